"""Templates of QC phantoms: where their vials lie in a slice, and what is known of them."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, model_validator

from config.sections import Name, Section, SettingsError
from config.settings import explain

_Point = tuple[float, float]


class Vial(Section):
    """One vial, a cylinder across the slices: a circle in each of them."""

    name: Name
    down_mm: float = Field(ge=-300, le=300, description="Its centre, along the columns of pixels, downwards")
    across_mm: float = Field(ge=-300, le=300, description="Its centre, along the rows of pixels, to the right")
    diameter_mm: float = Field(ge=8, le=80, description="Inner diameter: where the signal ends")
    t1rho_ms: float | None = Field(None, gt=0, le=1000, description="Nominal T1rho, where it is known")
    t2_ms: float | None = Field(None, gt=0, le=1000, description="Nominal T2, where it is known")


class PhantomTemplate(Section):
    """How the vials of one kind of phantom lie. Positions are relative to each other; the origin is free."""

    name: Name
    description: str = Field("", max_length=200, description="What it is, for people")
    vials: tuple[Vial, ...] = Field(min_length=3, max_length=24)
    tolerance_mm: float = Field(3.0, gt=0, le=10, description="A vial may lie so far from its place")
    max_turn_deg: float = Field(20.0, ge=0, le=45, description="The phantom may be turned so far in the slice")
    roi_share: float = Field(0.7, gt=0.2, le=0.95, description="Of the radius: what is measured, away from the wall")
    nominal_share: float = Field(
        0.35, gt=0, le=1, description="A vial that reads further from its nominal value stands in another's place"
    )
    min_slices: int = Field(1, ge=1, le=100, description="Slices in which all vials must be seen")

    @model_validator(mode="after")
    def _is_a_template(self) -> Self:
        names = [vial.name for vial in self.vials]
        if len(set(names)) < len(names):
            raise ValueError("vials: two have the same name")
        for index, one in enumerate(self.vials):
            for other in self.vials[:index]:
                distance = math.hypot(one.down_mm - other.down_mm, one.across_mm - other.across_mm)
                if distance < (one.diameter_mm + other.diameter_mm) / 2:
                    raise ValueError(f"vials: {one.name} and {other.name} overlap")
        points = [(vial.down_mm, vial.across_mm) for vial in self.vials]
        if looks := _other_looks(points, 2 * self.tolerance_mm):
            raise ValueError(
                f"vials: the phantom looks the same {looks}, so that nothing tells which vial is which;"
                " leave out one vial, or move it"
            )
        return self


def _other_looks(points: Sequence[_Point], within_mm: float) -> str:
    """How else the same picture could come about: "turned", "mirrored"; "" where it cannot."""
    for mirrored, word in ((False, "turned"), (True, "mirrored")):
        for order in _coincidences(points, within_mm, mirrored):
            if order != list(range(len(points))):
                return word
    return ""


def _coincidences(points: Sequence[_Point], within_mm: float, mirrored: bool) -> Iterator[list[int]]:
    """The orders of the points in which a turned (and mirrored) picture of them covers the picture itself."""
    source = [complex(down, across) for down, across in points]
    if mirrored:
        source = [one.conjugate() for one in source]
    target = [complex(down, across) for down, across in points]
    middle = sum(source) / len(source)
    centred, goal = [one - middle for one in source], [one - sum(target) / len(target) for one in target]
    far = max(range(len(centred)), key=lambda index: abs(centred[index]))
    for candidate in goal:
        if abs(abs(candidate) - abs(centred[far])) > within_mm or candidate == 0:
            continue
        turn = candidate / centred[far]
        turn /= abs(turn)
        laid = [turn * one for one in centred]
        order = [_nearest(goal, spot) for spot in laid]
        gaps = [abs(goal[at] - spot) for at, spot in zip(order, laid, strict=True)]
        if len(set(order)) == len(order) and max(gaps) <= within_mm:
            yield order


def _nearest(points: Sequence[complex], spot: complex) -> int:
    distances = [abs(one - spot) for one in points]
    return distances.index(min(distances))


@cache
def load_templates(folder: Path | None = None) -> tuple[PhantomTemplate, ...]:
    """The built-in templates and those of a site's folder, which replace built-in ones of the same name.

    Raises:
        SettingsError: one is faulty; the message names file, key and what is allowed.
    """
    templates: dict[str, PhantomTemplate] = {}
    for directory in (Path(__file__).parent / "phantoms", folder):
        if directory is None:
            continue
        if not directory.is_dir():
            raise SettingsError(f"{directory}: phantoms_dir: no such folder")
        here: dict[str, Path] = {}
        for path in sorted(directory.glob("*.yaml")):
            template = _load(path)
            if template.name in here:
                raise SettingsError(f"{path}: name: {template.name!r} is also the name of {here[template.name].name}")
            templates[template.name], here[template.name] = template, path
    return tuple(templates.values())


def _load(path: Path) -> PhantomTemplate:
    try:
        return PhantomTemplate.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError("\n".join(explain(path, error, PhantomTemplate))) from error
