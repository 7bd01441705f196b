"""Numbers and reasons in the words of a report."""

import math
import re
from collections.abc import Mapping, Sequence

from processing.advice import ADVICE, SUMMARIES
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.refusal import Reason, ReasonCode
from processing.results import Correction, Level, Quantity, Region
from service.reports.document import Flag, Flags, Notice, Tone

USE = "RESEARCH USE ONLY. NOT FOR DIAGNOSIS."
NONE = "–"
_MOST_FINDINGS = 8  # of one kind

#: Why a voxel has no value (processing.fitting.FitStatus), in words.
EXCLUSIONS: Mapping[str, str] = {
    "NON_FINITE_SIGNAL": "signal not finite",
    "NO_SIGNAL": "too little signal",
    "NO_DECAY": "signal does not fall",
    "NOT_CONVERGED": "fit did not converge",
    "OUT_OF_RANGE": "fit outside 1 to 1000 ms",
    "OUTSIDE_IMAGE": "not imaged",
    "ABOVE_CEILING": "above the ceiling",
}
_WORDS: Mapping[str, str] = {
    **{level.name: name for level, name in LEVEL_NAMES.items()},
    **{quantity.value: name for quantity, name in QUANTITY_NAMES.items()},
    **{region.value: name for region, name in REGION_NAMES.items()},
    **EXCLUSIONS,
}
_NAMES = re.compile(rf"(?<![\w/])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![\w/])")
_LEVELS = {name: level for level in Level for name in (level.name, LEVEL_NAMES[level])}


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals and a true minus, or a dash for what does not exist."""
    return f"{value:z.{digits}f}".replace("-", "−") if value is not None and math.isfinite(value) else NONE


def mean_and_sd(mean: float, sd: float) -> str:
    """``mean ± SD`` with one decimal; the mean alone where there is no SD."""
    if not math.isfinite(mean):
        return NONE
    return f"{mean:.1f} ± {sd:.1f}" if math.isfinite(sd) else f"{mean:.1f}"


def percent(part: int, whole: int) -> str:
    """A share in per cent with one decimal; a dash of nothing. What is not 0 is never shown as 0."""
    if whole == 0:
        return NONE
    return "< 0.1" if 0 < part / whole < 0.0005 else f"{100 * part / whole:.1f}"


def count(n: int, one: str, many: str) -> str:
    """``1 disc``, ``12,345 discs``."""
    return f"{n:,} {one if n == 1 else many}"


def in_words(detail: str) -> str:
    """A reason's detail with the names that the code uses in words: L5S1 becomes L5/S1, T1rho T1ρ."""
    return _NAMES.sub(lambda found: _WORDS[found[0]], detail)


def levels_named(detail: str) -> tuple[Level, ...]:
    """The discs that a detail speaks of, from above."""
    found = {level for name, level in _LEVELS.items() if re.search(rf"(?<![\w/]){name}(?![\w/])", detail)}
    return tuple(sorted(found, reverse=True))


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def flags(heading: str, reasons: Sequence[Reason]) -> Flags:
    """The reasons by kind: what was found, each finding once, and what helps."""
    details: dict[ReasonCode, dict[str, None]] = {}
    for reason in reasons:
        details.setdefault(reason.code, {})[_as_sentence(in_words(reason.detail))] = None
    made = []
    for code, found in details.items():
        shown = tuple(found)
        if len(shown) > _MOST_FINDINGS:
            shown = (*shown[: _MOST_FINDINGS - 1], f"and {len(shown) - _MOST_FINDINGS + 1} more, all in result.json")
        made.append(Flag(SUMMARIES[code], shown, ADVICE[code], code.value))
    return Flags(heading, tuple(made))


def _as_sentence(detail: str) -> str:
    """With a capital, where it begins with a word and not with a name."""
    return detail[0].upper() + detail[1:] if re.match("[a-z]+ ", detail) else detail


def review_notice(reasons: Sequence[Reason], most: int) -> Notice:
    """The doubts of a measured exam in one line each kind, naming the discs concerned; the details stand elsewhere."""
    if not reasons:
        return Notice(Tone.GOOD, "No doubts", ("Every automatic check was passed.",))
    of_kind: dict[str, set[Level]] = {}
    for reason in reasons:
        of_kind.setdefault(SUMMARIES[reason.code], set()).update(levels_named(reason.detail))
    lines = [
        f"{kind}: {listed([LEVEL_NAMES[one] for one in sorted(levels, reverse=True)])}." if levels else f"{kind}."
        for kind, levels in of_kind.items()
    ]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"And {len(lines) - most + 1} more."]
    title = f"Needs review: {count(len(reasons), 'doubt', 'doubts')}, see Quality control"
    return Notice(Tone.CAUTION, title, tuple(lines))


def correction_notice(correction: Correction) -> Notice:
    """That a person has drawn or changed the discs: who, with what, and how much."""
    origin = correction.origin
    editor = " ".join(origin.editor.replace("^", " ").split()) or "a person who is not named"
    of = f"segmentation {origin.sop_instance_uid}" if origin.sop_instance_uid else f"file, SHA-256 {origin.sha256}"
    by = f"By {editor}{f', with {origin.tool}' if origin.tool else ''}: {of}."
    dice = correction.automatic_dice
    said = listed([f"{LEVEL_NAMES[level]} {dice[level]:.3f}" for level in sorted(dice, reverse=True)])
    compared = f"Dice with the automatic discs: {said}." if said else "There are no automatic discs to compare with."
    if correction.removed:
        removed = listed([LEVEL_NAMES[level] for level in sorted(correction.removed, reverse=True)])
        compared += f" Left out: {removed}."
    return Notice(Tone.PLAIN, "Discs drawn or changed by a person", (by, compared))


def quantity_names(quantities: Sequence[Quantity]) -> str:
    """``T1ρ and T2``."""
    return listed([QUANTITY_NAMES[one] for one in quantities])


def region_heading(region: Region) -> str:
    """A region as the heading of a column."""
    return REGION_NAMES[region]
