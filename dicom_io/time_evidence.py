"""Where the headers of one scan tell the times of its images apart: the lines of a drafted card about times.

The most plausible place is proposed, with what was seen. Whether a time is a spin-lock or an echo time is only written
down where a text says so; and an order of acquisition tells no time at all: these stay TODO.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from config.protocol_cards import OrderKey, TimeRule
from dicom_io.differing_elements import DifferingElement
from dicom_io.headers import ImageFacts
from dicom_io.protocol_explanation import slice_numbers

TODO = "TODO"
_FEWEST_TIMES = 3
_MOST_SPIN_LOCK_TIMES = 5  # with more, times of T2 may be among them, whatever the name says
_SAME_TIME_MS = 0.5
_ELEMENTS_NAMED = 12

_NUMBER = r"\d+(?:\.\d+)?"
_LIST = re.compile(rf"(?P<label>[A-Za-z]\w*?)?(?P<gap>[ :=_-]*)(?P<list>{_NUMBER}(?:[_/,; ]+{_NUMBER}){{2,}})")
_SAYS_T1RHO = re.compile(r"T1.?rho|T1.?ρ|T1r|TSL|spin.?lock|(?<![A-Za-z])SL(?![A-Za-z])", re.IGNORECASE)
_SAYS_BOTH = re.compile(r"MAPP?S", re.IGNORECASE)  # also as sites spell it
_SAYS_T2 = re.compile(r"T2(?!\*)|(?<![A-Za-z])TE(?![A-Za-z])|prep", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TimeEvidence:
    """The ``times`` section of a card, line by line, and, where the time stands in SeriesDescription, the pattern that
    matches the descriptions of all times."""

    lines: tuple[str, ...]
    description_pattern: str | None = None

    @property
    def quantities(self) -> tuple[str, ...]:
        """What the scan has times of, in the order of the lines: "t1rho", "t2"."""
        keys = (line.strip().partition("_ms:")[0] for line in self.lines if "_ms:" in line)
        return tuple(key for key in keys if key in ("t1rho", "t2"))


def find_times(
    images: Sequence[ImageFacts],
    look_further: Callable[[Sequence[ImageFacts]], Sequence[DifferingElement]] | None = None,
) -> TimeEvidence:
    """The times of a scan with several images at each slice, as far as its headers tell them.

    ``look_further``: finds other elements that tell the images apart, where the usual ones do not.
    """
    slices = slice_numbers(images)
    for look in (_in_description_list, _in_echo_time, _in_series_descriptions, _in_inversion_time):
        found = look(images, slices)
        if found is not None:
            return found
    return _in_order(images, slices, look_further(images) if look_further is not None else ())


def escaped(text: str) -> str:
    """A regular expression for just this text; spaces stay readable."""
    return re.escape(text).replace(r"\ ", " ").replace(r"\-", "-").replace(r"\#", "#")


def quoted(text: str) -> str:
    """A text as YAML reads it back."""
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)


def _separated(
    images: Sequence[ImageFacts], slices: Sequence[int | None], value_of: Callable[[ImageFacts], object]
) -> list[float] | None:
    """The distinct values of an attribute, ascending, if every image has one and no slice has one twice."""
    seen: defaultdict[int | None, set[float]] = defaultdict(set)
    for one, number in zip(images, slices, strict=True):
        value = value_of(one)
        if not isinstance(value, int | float) or value in seen[number]:
            return None
        seen[number].add(value)
    distinct = sorted(set().union(*seen.values()))
    most = max(len(values) for values in seen.values())
    return distinct if len(distinct) == most >= _FEWEST_TIMES else None


def _in_description_list(images: Sequence[ImageFacts], slices: Sequence[int | None]) -> TimeEvidence | None:
    descriptions = {one.series_description for one in images}
    if len(descriptions) != 1:
        return None
    description = descriptions.pop()
    lists = [(found, _numbers(found["list"])) for found in _LIST.finditer(description)]
    triggers = _separated(images, slices, lambda one: one.trigger_time_ms)
    listed = sorted({number for _, numbers in lists for number in numbers})
    if not lists or len(lists) > 2 or triggers is None or not _agree(listed, triggers):
        return None
    lines = [
        "times:",
        f"  # The description lists {_text(listed)} and TriggerTime (0018,1060) holds just these, each once per slice.",
        f"  rule: {TimeRule.DESCRIPTION_LIST}",
    ]
    for found, numbers in lists:
        quantity = _quantity(found["label"] or "") or (_quantity(description) if len(lists) == 1 else None)
        pattern = escaped(f"{found['label'] or ''}{found['gap']}") + f"({escaped_class(found['list'])}+)"
        if quantity is None:
            lines += [
                f"  # Spin-lock or echo times? Seen: {_text(numbers)}; pattern {quoted(pattern)}",
                f"  t1rho_ms: {TODO}",
                f"  t1rho_pattern: {quoted(pattern)}",
            ]
        else:
            lines += [f"  {quantity}_ms: {_yaml_list(numbers)}", f"  {quantity}_pattern: {quoted(pattern)}"]
    return TimeEvidence(tuple(lines))


def escaped_class(listed: str) -> str:
    """A character class for the numbers of a list and what stands between them."""
    between = sorted(set(re.sub(r"[\d.]", "", listed)))
    return "[0-9." + "".join(between) + "]"


def _in_echo_time(images: Sequence[ImageFacts], slices: Sequence[int | None]) -> TimeEvidence | None:
    found = _separated(images, slices, lambda one: one.echo_time_ms)
    if found is None:
        return None
    lines = [
        "times:",
        f"  # EchoTime (0018,0081) holds {_text(found)} ms, each once per slice.",
        f"  rule: {TimeRule.ECHO_TIME}",
        *_times_lines(found, _all_texts(images)),
        *_tolerance_lines(found),
    ]
    return TimeEvidence(tuple(lines))


def _in_series_descriptions(images: Sequence[ImageFacts], slices: Sequence[int | None]) -> TimeEvidence | None:
    """One series for each time, in one family of descriptions ("TSL #") or two ("TSL #" and "TE #")."""
    families: defaultdict[str, set[str]] = defaultdict(set)
    for one in images:
        families[re.sub(_NUMBER, "#", one.series_description)].add(one.series_description)
    varying = {text: _varying_number(sorted(members)) for text, members in families.items()}
    if len(families) > 2 or any(found is None for found in varying.values()):
        return None
    lines = ["times:", "  # One series for each time, which stands in its SeriesDescription."]
    lines.append(f"  rule: {TimeRule.SERIES_DESCRIPTION}")
    patterns = []
    for found in varying.values():
        assert found is not None
        before, after, numbers = found
        pattern = f"{escaped(before)}({_NUMBER}){escaped(after)}"
        patterns.append(f"{escaped(before)}{_NUMBER}{escaped(after)}")
        label = re.split(r"[\s_]+", before.strip(" _=:-"))[-1]
        quantity = _quantity(label) or (_quantity(before) if len(varying) == 1 else None)
        if quantity is None or len(varying) == 2 or len(numbers) < _FEWEST_TIMES:
            lines.append(f"  # Seen with {quoted(pattern)}: {_text(numbers)}")
        if quantity is None:
            lines += [f"  t1rho_ms: {TODO}", f"  t1rho_pattern: {quoted(pattern)}"]
            lines += [f"  t2_ms: {TODO}", "  t2_pattern: TODO  # delete both lines of what was not acquired"]
        elif quantity == "t2" and 0.0 not in numbers:
            lines += [
                "  # Put 0 in front if T2 also uses the image without preparation of the T1rho times.",
                f"  t2_ms: {TODO}",
                f"  t2_pattern: {quoted(pattern)}",
            ]
        elif len(numbers) < _FEWEST_TIMES:
            lines += [f"  {quantity}_ms: {TODO}", f"  {quantity}_pattern: {quoted(pattern)}"]
        else:
            lines += [f"  {quantity}_ms: {_yaml_list(numbers)}", f"  {quantity}_pattern: {quoted(pattern)}"]
    joined = patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(patterns)})"
    return TimeEvidence(tuple(lines), f"^{joined}$")


def _varying_number(descriptions: Sequence[str]) -> tuple[str, str, list[float]] | None:
    """What stands before and after the one number in which the descriptions differ, and its values; else None."""
    if len(descriptions) < 2:
        return None
    found = [list(re.finditer(_NUMBER, text)) for text in descriptions]
    columns = list(zip(*([one[0] for one in numbers] for numbers in found), strict=True))
    differing = [index for index, column in enumerate(columns) if len(set(column)) > 1]
    if len(differing) != 1:
        return None
    place = found[0][differing[0]]
    text = descriptions[0]
    return text[: place.start()], text[place.end() :], sorted(float(one) for one in columns[differing[0]])


def _in_inversion_time(images: Sequence[ImageFacts], slices: Sequence[int | None]) -> TimeEvidence | None:
    found = _separated(images, slices, lambda one: one.inversion_time_ms)
    if found is None:
        return None
    return TimeEvidence(
        (
            "times:",
            f"  # InversionTime (0018,0082) holds {_text(found)}, each once per slice. Are these the times?",
            f"  rule: {TimeRule.ELEMENT}",
            "  element:",
            "    keyword: InversionTime",
            *_open_times_lines(),
            *_tolerance_lines(found),
        )
    )


def _in_order(
    images: Sequence[ImageFacts], slices: Sequence[int | None], elements: Sequence[DifferingElement]
) -> TimeEvidence:
    """No attribute tells a time: only the order is left, and whoever knows the protocol must tell what it means."""
    n_times = max(slices.count(number) for number in set(slices))
    key, seen = OrderKey.INSTANCE_NUMBER, "No attribute that is known to hold a time tells the images apart."
    for candidate, value_of in (
        (OrderKey.TEMPORAL_POSITION, lambda one: one.temporal_position),
        (OrderKey.ACQUISITION_NUMBER, lambda one: one.acquisition_number),
    ):
        values = _separated(images, slices, value_of)
        if values is not None:
            key, seen = candidate, f"{candidate} is {_text(values)}, each once per slice; no attribute holds a time."
            break
    ordered = [
        number
        for _, number in sorted(
            zip((one.instance_number or 0 for one in images), slices, strict=True), key=lambda pair: pair[0]
        )
    ]
    fastest = "time" if len(ordered) > 1 and ordered[0] == ordered[1] else "slice"
    echo_times = sorted({one.echo_time_ms for one in images if one.echo_time_ms is not None})
    return TimeEvidence(
        (
            "times:",
            f"  # {seen} There are {n_times} images at a slice.",
            f"  # EchoTime is {_text(echo_times) or 'absent'}. If another element holds the time, use rule element.",
            *_element_lines(elements),
            f"  rule: {TimeRule.ACQUISITION_ORDER}",
            *_open_times_lines(),
            "  order:",
            f"    key: {key}",
            f"    fastest: {fastest}  # as InstanceNumber counts"
            if key is OrderKey.INSTANCE_NUMBER
            else "    fastest: time",
            f"    # the {n_times} times in the order in which they were acquired, from the protocol on the scanner",
            f"    times_ms: {TODO}",
        )
    )


def _element_lines(elements: Sequence[DifferingElement]) -> list[str]:
    if not elements:
        return []
    return [
        "  # These elements tell the images of a slice apart, alike at every slice. Is one of them the time?",
        *(
            f"  #   {one.name!r:.100}: {_text(one.values)}; element: {one.address}"
            for one in elements[:_ELEMENTS_NAMED]
        ),
    ]


def _times_lines(found: Sequence[float], texts: str) -> list[str]:
    quantity = _quantity(texts)
    if quantity is None or (quantity == "t1rho" and len(found) > _MOST_SPIN_LOCK_TIMES):
        return ["  # Which of them are spin-lock times, which are echo times?", *_open_times_lines()]
    return [f"  {quantity}_ms: {_yaml_list(found)}"]


def _open_times_lines() -> list[str]:
    return [
        "  # A time in both lists is one image that both fits use. Delete the line of what was not acquired.",
        f"  t1rho_ms: {TODO}",
        f"  t2_ms: {TODO}",
    ]


def _tolerance_lines(found: Sequence[float]) -> list[str]:
    nearest = min(later - earlier for earlier, later in pairwise(found))
    if nearest > 2 * _SAME_TIME_MS:
        return []
    return [f"  tolerance_ms: {0.4 * nearest:.3g}  # two times lie {nearest:g} ms apart"]


def _all_texts(images: Sequence[ImageFacts]) -> str:
    first = images[0]
    return " ".join((first.series_description, first.protocol_name, first.sequence_name))


def _quantity(text: str) -> str | None:
    """ "t1rho" or "t2", where the text names just one of them and no sequence that measures both."""
    says_t1rho, says_t2 = bool(_SAYS_T1RHO.search(text)), bool(_SAYS_T2.search(text))
    if says_t1rho == says_t2 or _SAYS_BOTH.search(text):
        return None
    return "t1rho" if says_t1rho else "t2"


def _numbers(text: str) -> list[float]:
    return sorted({float(one) for one in re.findall(_NUMBER, text)})


def _agree(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= _SAME_TIME_MS for a, b in zip(one, other, strict=True))


def _text(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:16]) + (", ..." if len(numbers) > 16 else "")


def _yaml_list(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:g}" for number in numbers) + "]"
