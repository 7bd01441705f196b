"""Protocol cards: how one scanner protocol writes its spin-lock and echo times, its scaling and its expected counts."""

import re
from enum import StrEnum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from config.settings import Section, SettingsError, explain


def _is_regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_is_regular_expression)]


class Role(StrEnum):
    """What the images of a card are for."""

    RELAXOMETRY = "relaxometry"
    ANATOMY = "anatomy"


class TimeRule(StrEnum):
    """How the time of an image is found."""

    # spin-lock and echo-preparation times stand in EchoTime (0018,0081), as GE research MAPSS writes them
    ECHO_TIME = "echo_time"
    NONE = "none"  # one image per slice, nothing to fit


class ScalingRule(StrEnum):
    """How stored values become signal that may be compared between echoes."""

    RESCALE_IF_PRESENT = (
        "rescale_if_present"  # apply RescaleSlope/Intercept where given; the same for all images, else refused
    )
    RAW = "raw"  # stored values; a RescaleSlope other than 1 is refused


class Match(Section):
    """Which series a card is for. All given patterns (case-insensitive regular expressions) must be found."""

    manufacturer: Pattern | None = None
    series_description: Pattern | None = None
    protocol_name: Pattern | None = None
    scanning_sequence: Pattern | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(
                "at least one of manufacturer, series_description, protocol_name, scanning_sequence is needed"
            )
        return self


class Times(Section):
    """The times a card expects, in ms, and where they are read."""

    rule: TimeRule
    t1rho_ms: tuple[float, ...] = ()
    t2_ms: tuple[float, ...] = ()
    tolerance_ms: float = Field(0.5, ge=0, le=5, description="How far a header time may lie from the card's")

    @model_validator(mode="after")
    def _times_fit_the_rule(self) -> Self:
        for times in (self.t1rho_ms, self.t2_ms):
            if times and (len(times) < 3 or list(times) != sorted(set(times)) or times[0] < 0):
                raise ValueError("times must be at least three, non-negative and increasing")
        if (self.rule is TimeRule.NONE) == bool(self.t1rho_ms or self.t2_ms):
            raise ValueError("rule 'none' has no times; every other rule needs t1rho_ms, t2_ms or both")
        distinct = self.distinct_ms
        if any(later - earlier <= 2 * self.tolerance_ms for earlier, later in pairwise(distinct)):
            raise ValueError("two times lie closer than twice the tolerance: they could not be told apart")
        return self

    @property
    def distinct_ms(self) -> tuple[float, ...]:
        """All different times, ascending: the images expected at each slice. Time 0 is shared by T1rho and T2."""
        return tuple(sorted({*self.t1rho_ms, *self.t2_ms}))


class Expected(Section):
    """How many images make the exam whole."""

    min_slices: int = Field(ge=1, le=200)
    max_slices: int = Field(ge=1, le=200)

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.min_slices > self.max_slices:
            raise ValueError(f"min_slices {self.min_slices} is more than max_slices {self.max_slices}")
        return self


class ProtocolCard(Section):
    """One scanner protocol, as a person who knows the scanner describes it."""

    name: str = Field(pattern=r"^[a-z0-9-]{3,64}$")
    description: str
    role: Role
    match: Match
    times: Times
    expected: Expected
    scaling: ScalingRule
    spin_lock_frequency_hz: float | None = Field(None, gt=0, le=5000)

    @model_validator(mode="after")
    def _role_fits_times(self) -> Self:
        if (self.role is Role.RELAXOMETRY) == (self.times.rule is TimeRule.NONE):
            raise ValueError("relaxometry needs times, anatomy has none")
        return self


@cache
def load_cards(folder: Path | None = None) -> tuple[ProtocolCard, ...]:
    """The built-in cards, and those of a site's folder; a site's card replaces a built-in one of the same name.

    Raises:
        SettingsError: a card is faulty; the message names file, key and what is allowed.
    """
    cards: dict[str, ProtocolCard] = {}
    origin: dict[str, Path] = {}
    for directory in (Path(__file__).parent / "protocols", folder):
        if directory is None:
            continue
        if not directory.is_dir():
            raise SettingsError(f"{directory}: protocols_dir: no such folder")
        for path in sorted(directory.glob("*.yaml")):
            card = _load_card(path)
            other = origin.get(card.name)
            if other is not None and other.parent == directory:
                raise SettingsError(f"{path}: name: {card.name!r} is also the name of {other.name}")
            cards[card.name], origin[card.name] = card, path
    return tuple(cards.values())


def _load_card(path: Path) -> ProtocolCard:
    try:
        return ProtocolCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError("\n".join(explain(path, error, ProtocolCard))) from error
