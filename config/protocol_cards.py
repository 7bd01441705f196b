"""Protocol cards: how one scanner protocol writes its spin-lock and echo times, its scaling and its expected counts."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from config.sections import Section, SettingsError
from config.settings import explain

#: A part of a regular expression: an escaped character, a set, white space, a comment of a verbose one, or a character.
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\s+|#[^\n]*|.", re.DOTALL)


def _as_regular_expression(text: str) -> str:
    """Checked; a verbose one, which begins with (?x), without its white space and comments."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if not text.startswith("(?x)"):
        return text
    parts = _PART.findall(text.removeprefix("(?x)"))
    return "".join(part for part in parts if not (part.isspace() or part.startswith("#")))


Finite = Annotated[float, Field(allow_inf_nan=False)]
Pattern = Annotated[str, AfterValidator(_as_regular_expression)]

_LONGEST_SHOWN_PATTERN = 60


def shown_pattern(pattern: str) -> str:
    """A pattern as it is told to people: not a long one, which would hide what else is told."""
    return repr(pattern) if len(pattern) <= _LONGEST_SHOWN_PATTERN else "what the card asks for"


class Role(StrEnum):
    """What the images of a card are for."""

    RELAXOMETRY = "relaxometry"
    ANATOMY = "anatomy"


class TimeRule(StrEnum):
    """How the time of an image is found."""

    # spin-lock and echo-preparation times stand in EchoTime (0018,0081), as GE research MAPSS writes them
    ECHO_TIME = "echo_time"
    # SeriesDescription lists the times ("TSL 0_10_40_80 ms") and TriggerTime (0018,1060) says which image has which;
    # both must tell the same set. As sites with Philips scanners do it.
    DESCRIPTION_LIST = "description_list"
    # one series for each time, named in its SeriesDescription ("MAPSS TSL 40")
    SERIES_DESCRIPTION = "series_description"
    # nothing in the header tells the times apart; they were acquired in a known order
    ACQUISITION_ORDER = "acquisition_order"
    ELEMENT = "element"  # a standard or private element that the site knows
    NONE = "none"  # one image per slice, nothing to fit


class ScalingRule(StrEnum):
    """How stored values become signal that may be compared between echoes."""

    RESCALE_IF_PRESENT = (
        "rescale_if_present"  # apply RescaleSlope/Intercept where given; the same for all images, else refused
    )
    RESCALE_PER_IMAGE = "rescale_per_image"  # apply each image's own RescaleSlope/Intercept, which must be there
    # Philips: signal = (stored * RescaleSlope + RescaleIntercept) / (RescaleSlope * scale slope (2005,xx0E))
    PHILIPS_SCALE_SLOPE = "philips_scale_slope"
    RAW = "raw"  # stored values; a RescaleSlope other than 1 is refused


class OrderKey(StrEnum):
    """The attribute that tells the order in which images were acquired."""

    INSTANCE_NUMBER = "instance_number"
    ACQUISITION_NUMBER = "acquisition_number"
    TEMPORAL_POSITION = "temporal_position"  # TemporalPositionIdentifier / TemporalPositionIndex


class Match(Section):
    """Which series a card is for. All given patterns (case-insensitive regular expressions) must be found."""

    manufacturer: Pattern | None = None
    manufacturer_model_name: Pattern | None = None
    device_serial_number: Pattern | None = None
    software_versions: Pattern | None = None
    series_description: Pattern | None = None
    protocol_name: Pattern | None = None
    scanning_sequence: Pattern | None = None
    sequence_name: Pattern | None = None  # SequenceName, or PulseSequenceName of Enhanced MR

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if all(value is None for _, value in self):
            raise ValueError(f"at least one of {', '.join(type(self).model_fields)} is needed")
        return self


class Order(Section):
    """The order of acquisition, for scanners that write no time at all."""

    key: OrderKey = OrderKey.INSTANCE_NUMBER
    fastest: Literal["time", "slice"] = Field(
        "time", description="What changes from one InstanceNumber to the next: the time (at one slice), or the slice"
    )
    times_ms: tuple[Finite, ...] = Field(description="The times in the order in which they were acquired")


class ElementAddress(Section):
    """A data element: a standard one by keyword, or a private one by group, creator and the last byte of its number."""

    keyword: str | None = Field(None, description="e.g. InversionTime")
    group: str | None = Field(None, pattern=r"^[0-9A-Fa-f]{4}$", description="e.g. 0019")
    creator: str | None = Field(None, min_length=1, max_length=64, description="Private creator, e.g. GEMS_ACQU_01")
    offset: str | None = Field(
        None, pattern=r"^[0-9A-Fa-f]{2}$", description="Last byte of the number: B0 of (0019,10B0)"
    )

    @model_validator(mode="after")
    def _is_one_address(self) -> Self:
        private = (self.group, self.creator, self.offset)
        if (self.keyword is None and None in private) or (self.keyword is not None and any(private)):
            raise ValueError("either keyword, or group, creator and offset")
        if self.group is not None and int(self.group, 16) % 2 == 0:
            raise ValueError(f"group {self.group} is not private (private groups are odd)")
        return self

    @property
    def name(self) -> str:
        """How the element is called in facts, texts and refusals."""
        return self.keyword or f"({self.group},xx{self.offset}) {self.creator}"


class Times(Section):
    """The times a card expects, in ms, and where they are read.

    A time that T1rho and T2 both list is one image that both fits use (usually that without preparation).
    """

    rule: TimeRule
    t1rho_ms: tuple[Finite, ...] = ()
    t2_ms: tuple[Finite, ...] = ()
    tolerance_ms: float = Field(0.5, ge=0, le=5, description="How far a header time may lie from the card's")
    t1rho_pattern: Pattern | None = Field(None, description="Finds a spin-lock time, or their list, in its one group")
    t2_pattern: Pattern | None = Field(None, description="Finds a preparation time, or their list, in its one group")
    order: Order | None = None
    element: ElementAddress | None = None
    unit: Literal["ms", "s", "us"] = Field("ms", description="Unit of the element's value")

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

    @model_validator(mode="after")
    def _rule_has_what_it_needs(self) -> Self:
        with_patterns = self.rule in (TimeRule.DESCRIPTION_LIST, TimeRule.SERIES_DESCRIPTION)
        for name, times, pattern in (
            ("t1rho", self.t1rho_ms, self.t1rho_pattern),
            ("t2", self.t2_ms, self.t2_pattern),
        ):
            if (pattern is not None) != (with_patterns and bool(times)):
                raise ValueError(
                    f"{name}_pattern: needed by rule '{self.rule}' with {name}_ms, and only there"
                    if with_patterns
                    else f"{name}_pattern: rule '{self.rule}' reads no description"
                )
            if pattern is not None and re.compile(pattern).groups != 1:
                raise ValueError(f"{name}_pattern: must have exactly one group, which holds the time or the times")
        for name, value, rule in (
            ("order", self.order, TimeRule.ACQUISITION_ORDER),
            ("element", self.element, TimeRule.ELEMENT),
        ):
            if (value is not None) != (self.rule is rule):
                raise ValueError(f"{name}: needed by rule '{rule}', and only there")
        if self.order is not None and sorted(self.order.times_ms) != list(self.distinct_ms):
            raise ValueError("order.times_ms: must hold each time of t1rho_ms and t2_ms once")
        if self.unit != "ms" and self.element is None:
            raise ValueError("unit: only of an element")
        return self

    @property
    def distinct_ms(self) -> tuple[float, ...]:
        """All different times, ascending: the images expected at each slice. Time 0 is shared by T1rho and T2."""
        return tuple(sorted({*self.t1rho_ms, *self.t2_ms}))


class Expected(Section):
    """How many images make the exam whole: all times at each slice. Equal limits say the exact number of slices,
    and a full grid is then evidence that nothing is awaited."""

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
    match_in_words: str | None = Field(
        None, description="What a series must say to match, in words; shown of the nearest card where none fits"
    )
    times: Times
    expected: Expected
    scaling: ScalingRule
    spin_lock_frequency_hz: float | None = Field(None, gt=0, le=5000)
    together_with: tuple[str, ...] = Field(
        (), description="Cards of the other scans without which the exam is not whole, e.g. T2 beside T1rho"
    )
    replaces: tuple[str, ...] = Field((), description="Built-in cards that are not used where this card is")

    @model_validator(mode="after")
    def _role_fits_times(self) -> Self:
        if (self.role is Role.RELAXOMETRY) == (self.times.rule is TimeRule.NONE):
            raise ValueError("relaxometry needs times, anatomy has none")
        if self.together_with and self.role is Role.ANATOMY:
            raise ValueError("together_with: only of relaxometry")
        for key, names in (("together_with", self.together_with), ("replaces", self.replaces)):
            if self.name in names:
                raise ValueError(f"{key}: names the card itself")
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: names a card twice")
        return self


def asked_elements(cards: Iterable[ProtocolCard]) -> tuple[ElementAddress, ...]:
    """The elements that cards want to be read beside the usual ones, each once, in a fixed order."""
    found = {card.times.element.name: card.times.element for card in cards if card.times.element is not None}
    return tuple(found[name] for name in sorted(found))


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
    return _settle_references(cards, origin)


def _settle_references(cards: Mapping[str, ProtocolCard], origin: Mapping[str, Path]) -> tuple[ProtocolCard, ...]:
    """The cards in use: without replaced ones, and what named a replaced card names the card in its place."""

    def refuse(card: ProtocolCard, key: str, text: str) -> SettingsError:
        return SettingsError(f"{origin[card.name]}: {key}: {text}")

    replacements: dict[str, list[str]] = {}
    for card in cards.values():
        for name in card.replaces:
            if name not in cards:
                raise refuse(card, "replaces", f"no such card: {name}; there are: {', '.join(sorted(cards))}")
            replacements.setdefault(name, []).append(card.name)
    used = {name: card for name, card in cards.items() if name not in replacements}
    for card in cards.values():
        for name in card.replaces:
            if card.name not in used:
                by = " and ".join(replacements[card.name])
                raise refuse(card, "replaces", f"{card.name} is itself replaced, by {by}")
            if name in card.together_with:
                raise refuse(card, "together_with", f"names {name}, which it replaces")
    settled = {}
    for card in used.values():
        partners = []
        for name in card.together_with:
            in_place = replacements.get(name, [name])
            if len(in_place) > 1 or in_place == [card.name]:
                by = " and ".join(in_place)
                raise refuse(card, "together_with", f"{name} is replaced by {by}; replace {card.name} as well")
            if in_place[0] not in used:
                raise refuse(card, "together_with", f"no such card: {name}; there are: {', '.join(sorted(used))}")
            partners.append(in_place[0])
        settled[card.name] = card.model_copy(update={"together_with": tuple(partners)})
    for card in settled.values():
        for name in card.together_with:
            if card.name not in settled[name].together_with:
                text = f"{name} is not together with {card.name}; each card of an exam must name the others"
                raise refuse(card, "together_with", text)
    return tuple(settled.values())


def _load_card(path: Path) -> ProtocolCard:
    try:
        return ProtocolCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError("\n".join(explain(path, error, ProtocolCard))) from error
