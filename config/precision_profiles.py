"""Profiles of precision: how well a measurement repeats, of which source. Those shipped are in ``precision.yaml``."""

from datetime import date
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from config.sections import Name, Section, SettingsError
from config.settings import explain

SHIPPED = Path(__file__).parent / "precision.yaml"


class PrecisionEntry(Section):
    """Repeatability of one quantity in some regions, at some levels or all."""

    quantity: Literal["T1rho", "T2"]
    regions: tuple[Literal["whole_disc", "nucleus", "anterior_annulus", "posterior_annulus"], ...] = Field(min_length=1)
    levels: tuple[Literal["L5S1", "L4L5", "L3L4", "L2L3", "L1L2"], ...] = Field((), description="Empty = all")
    within_cv: float = Field(gt=0, le=1, description="Within-subject coefficient of variation of repeated measurements")
    within_sd_ms: float | None = Field(None, gt=0, le=1000, description="Within-subject SD in ms, where it is known")
    between_cv: float | None = Field(None, gt=0, le=1, description="What another scanner, software or coil adds")
    n_pairs: int | None = Field(None, ge=2, le=100_000, description="Subjects measured twice; absent = not known")
    source: str = Field(min_length=8, description="Where it is from: a publication, or whose own measurement")
    borrowed: bool = Field(description="Measured on other tissue or with another sequence")


class Profile(Section):
    """One profile."""

    name: Name = Field(description="What trial plans call it")
    description: str = ""
    measured_on: date | None = Field(None, description="Day of a site's own measurement")
    entries: tuple[PrecisionEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _says_each_once(self) -> Self:
        cells = [
            (one.quantity, region, level)
            for one in self.entries
            for region in one.regions
            for level in one.levels or ("all",)
        ]
        for cell in cells:
            if cells.count(cell) > 1:
                raise ValueError(f"entries: two for {' '.join(cell)}")
        return self


class PrecisionFile(Section):
    """What a file of profiles holds."""

    profiles: tuple[Profile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [one.name for one in self.profiles]
        if len(set(names)) < len(names):
            raise ValueError("profiles: two have the same name")
        return self


def load_profile(name: str, folder: Path | None = None) -> Profile:
    """A shipped profile by its name, or that of a site's own file by its path (``.yaml``; it then holds just one).

    Args:
        name: as in a trial's plan.
        folder: where relative paths begin; None: the working folder.

    Raises:
        SettingsError: no such profile, or a file that cannot be used, naming what is wrong and what is allowed.
    """
    if not name.endswith((".yaml", ".yml")):
        shipped = {one.name: one for one in load_profiles(SHIPPED)}
        if name not in shipped:
            allowed = ", ".join(sorted(shipped))
            raise SettingsError(f"precision: no profile {name!r}; allowed: {allowed}, or the path of a .yaml file")
        return shipped[name]
    path = Path(name) if folder is None else folder / name
    profiles = load_profiles(path)
    if len(profiles) != 1:
        raise SettingsError(f"{path}: profiles: must hold one profile, holds {len(profiles)}")
    return profiles[0]


def load_profiles(path: Path) -> tuple[Profile, ...]:
    """All profiles of a file.

    Raises:
        SettingsError: naming file, key, what was found and what is allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return PrecisionFile.model_validate(content).profiles
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError("\n".join(explain(path, error, PrecisionFile))) from error
