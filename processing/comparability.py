"""Whether a visit was acquired as the baseline was: what differs, and whether that forbids to judge a change.

Hard differences (times, spin-lock frequency, protocol, field strength, too few slices, orientation) withhold the
verdict; another scanner, software or coil widens the limits; the rest is told. What one header tells and the other
does not is told as not known and never taken for equal.
"""

import math
from collections.abc import Callable, Iterator
from datetime import datetime

import numpy as np

from config.trial_plans import Acceptance
from processing.visits import Acquisition, Difference

UNKNOWN = "not known"

#: Both planes are sagittal within so many degrees of each other, else the slices show another cut of the disc.
_SAME_ORIENTATION_DEG = 30.0
_SPIN_LOCK_TOLERANCE_HZ = 1.0
_FIELD_TOLERANCE_T = 0.2  # 2.89 T and 3 T are the same field by different makers' headers
_MINUTES_PER_DAY = 24 * 60


def compare_acquisitions(
    baseline: Acquisition, visit: Acquisition, rules: Acceptance, *, expected_slices: int | None = None
) -> tuple[Difference, ...]:
    """What of a visit's acquisition is not as at the baseline; hard differences first.

    Args:
        baseline: how the subject's baseline was acquired.
        visit: how the visit was.
        rules: how far apart they may lie.
        expected_slices: fewer than these are too few, if more than ``rules.min_slices``.
    """
    found = [
        *_times(baseline, visit, rules),
        *_texts(baseline, visit),
        *_numbers(baseline, visit, rules),
        *_slices(baseline, visit, rules, expected_slices),
        *_orientation(baseline, visit, rules),
        *_clock(baseline, visit, rules),
    ]
    return tuple(sorted(found, key=lambda one: (not one.hard, not one.widens)))


def _difference(
    what: str, name: str, before: str, now: str, *, hard: bool = False, widens: bool = False, text: str = ""
) -> Difference:
    consequence = ""
    if hard:
        consequence = "; the change is not judged"
    elif widens:
        consequence = "; the limits are those of another scanner"
    return Difference(
        what, before, now, hard, widens, (text or f"{name}: {before} at the baseline, {now} here") + consequence
    )


def _times(baseline: Acquisition, visit: Acquisition, rules: Acceptance) -> Iterator[Difference]:
    for what, name in (("t1rho_times_ms", "Spin-lock times"), ("t2_times_ms", "T2 preparation times")):
        before, now = getattr(baseline, what), getattr(visit, what)
        is_same = len(before) == len(now) and all(
            abs(one - other) <= rules.time_tolerance_ms for one, other in zip(before, now, strict=True)
        )
        if not is_same:
            yield _difference(what, name, _listed(before), _listed(now), hard=True)


def _listed(times_ms: tuple[float, ...]) -> str:
    return "/".join(f"{time:g}" for time in times_ms) + " ms" if times_ms else "none"


#: Field, name for people, whether it is hard, whether it widens the limits.
_TEXTS = (
    ("protocol", "Protocol", True, False),
    ("manufacturer", "Manufacturer", False, True),
    ("model", "Scanner model", False, True),
    ("device_serial", "Scanner serial number", False, True),
    ("software_versions", "Scanner software", False, True),
    ("receive_coil", "Receive coil", False, True),
)


def _texts(baseline: Acquisition, visit: Acquisition) -> Iterator[Difference]:
    for what, name, hard, widens in _TEXTS:
        before, now = (" ".join(getattr(one, what).split()) for one in (baseline, visit))
        if not before or not now:
            yield _silent(what, name, before or UNKNOWN, now or UNKNOWN, widens=widens)
        elif before.casefold() != now.casefold():
            yield _difference(what, name, before, now, hard=hard, widens=widens)


def _silent(what: str, name: str, before: str, now: str, *, widens: bool = False) -> Difference:
    """A header does not tell: never equal, never a reason to withhold.

    Where only one side tells, another scanner cannot be excluded: the limits are the wider ones. Where neither does,
    they stay, for many scanners never name their coil.
    """
    neither = before == now == UNKNOWN
    where = "at either visit" if neither else "at the baseline" if before == UNKNOWN else "here"
    text = f"{name}: not known {where}, so that it cannot be compared"
    return _difference(what, name, before, now, widens=widens and not neither, text=text)


_Same = Callable[[float, float], bool]


def _numbers(baseline: Acquisition, visit: Acquisition, rules: Acceptance) -> Iterator[Difference]:
    def within(tolerance: float) -> _Same:
        return lambda one, other: abs(one - other) <= tolerance

    def of_share(one: float, other: float) -> bool:
        return abs(one - other) <= rules.geometry_share * max(abs(one), abs(other))

    spin_lock = ("spin_lock_hz", "Spin-lock frequency", "Hz", within(_SPIN_LOCK_TOLERANCE_HZ), True)
    lines: tuple[tuple[str, str, str, _Same, bool], ...] = (
        *((spin_lock,) if baseline.t1rho_times_ms or visit.t1rho_times_ms else ()),
        ("field_strength_t", "Field strength", "T", within(_FIELD_TOLERANCE_T), True),
        ("slice_thickness_mm", "Slice thickness", "mm", of_share, False),
        ("slice_spacing_mm", "Distance of slices", "mm", of_share, False),
        ("repetition_time_ms", "Repetition time", "ms", of_share, False),
        ("pixel_bandwidth_hz", "Bandwidth per pixel", "Hz", of_share, False),
    )
    for what, name, unit, is_same, hard in lines:
        yield from _one_number(what, name, unit, getattr(baseline, what), getattr(visit, what), is_same, hard)
    before, now = (UNKNOWN if one.matrix is None else f"{one.matrix[0]} x {one.matrix[1]}" for one in (baseline, visit))
    if UNKNOWN in (before, now):
        yield _silent("matrix", "Matrix", before, now)
    elif before != now:
        yield _difference("matrix", "Matrix", before, now)
    for axis, name in ((0, "Field of view along the rows' axis"), (1, "Field of view along the columns' axis")):
        before_mm, now_mm = _field_of_view(baseline, axis), _field_of_view(visit, axis)
        yield from _one_number(f"field_of_view_{axis}", name, "mm", before_mm, now_mm, of_share, False)


def _one_number(
    what: str, name: str, unit: str, before: float | None, now: float | None, is_same: _Same, hard: bool
) -> Iterator[Difference]:
    texts = [UNKNOWN if one is None else f"{one:g} {unit}" for one in (before, now)]
    if before is None or now is None:
        yield _silent(what, name, *texts)
    elif not is_same(before, now):
        yield _difference(what, name, *texts, hard=hard)


def _field_of_view(one: Acquisition, axis: int) -> float | None:
    if one.matrix is None or one.pixel_spacing_mm is None:
        return None
    return round(one.matrix[axis] * one.pixel_spacing_mm[axis], 1)


def _slices(baseline: Acquisition, visit: Acquisition, rules: Acceptance, expected: int | None) -> Iterator[Difference]:
    least = max(rules.min_slices, expected or 0)
    before, now = (UNKNOWN if one.n_slices is None else str(one.n_slices) for one in (baseline, visit))
    for whose, one in (("the baseline has", baseline), ("this visit has", visit)):
        if one.n_slices is not None and one.n_slices < least:
            text = f"Slices: {whose} {one.n_slices}, at least {least} are needed"
            yield _difference("n_slices", "Slices", before, now, hard=True, text=text)
            return
    if UNKNOWN in (before, now):
        yield _silent("n_slices", "Slices", before, now)
    elif before != now:
        yield _difference("n_slices", "Slices", before, now)


def _orientation(baseline: Acquisition, visit: Acquisition, rules: Acceptance) -> Iterator[Difference]:
    if baseline.slice_normal is None or visit.slice_normal is None:
        told = [UNKNOWN if one.slice_normal is None else "known" for one in (baseline, visit)]
        yield _silent("slice_normal", "Orientation of the slices", *told)
        return
    one, other = np.array(baseline.slice_normal), np.array(visit.slice_normal)
    cosine = abs(float(one @ other)) / float(np.linalg.norm(one) * np.linalg.norm(other))
    degrees = math.degrees(math.acos(min(cosine, 1.0)))
    if degrees > min(rules.tilt_deg, _SAME_ORIENTATION_DEG):
        text = f"The slices are tilted by {degrees:.1f} degrees from the baseline's"
        hard = degrees > _SAME_ORIENTATION_DEG
        yield _difference("slice_normal", "Orientation", "0 deg", f"{degrees:.1f} deg", hard=hard, text=text)


def _clock(baseline: Acquisition, visit: Acquisition, rules: Acceptance) -> Iterator[Difference]:
    """Hours of the day on the scanners' clocks; 23:30 and 00:30 are one hour apart."""
    if baseline.acquired_at is None or visit.acquired_at is None:
        before, now = (_time_of_day(one.acquired_at) for one in (baseline, visit))
        yield _silent("acquired_at", "Time of day", before, now)
        return
    minutes = abs(_minutes(baseline.acquired_at) - _minutes(visit.acquired_at))
    hours = min(minutes, _MINUTES_PER_DAY - minutes) / 60
    if hours > rules.time_of_day_h:
        before, now = (_time_of_day(one.acquired_at) for one in (baseline, visit))
        text = (
            f"Time of day: {before} at the baseline, {now} here, {hours:.1f} h apart (at most {rules.time_of_day_h:g} h"
            " is planned); discs lose water during the day"
        )
        yield _difference("acquired_at", "Time of day", before, now, text=text)


def _minutes(moment: datetime) -> float:
    return moment.hour * 60 + moment.minute + moment.second / 60


def _time_of_day(moment: datetime | None) -> str:
    return UNKNOWN if moment is None else f"{moment:%H:%M}"
