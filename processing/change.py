"""Changes of one subject against the baseline: beyond measurement error, within it, or why it is not judged.

Verdicts are neutral and say nothing of treatment. What moves all discs (hour, hydration, scanner) is looked for by
comparing the subject's own levels (:mod:`processing.change_controls`).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean

from config.trial_plans import ChangeRule
from processing.change_controls import together_warnings, untreated_controls
from processing.change_limits import Limits, change_limits, verdict_of
from processing.change_slopes import slopes
from processing.display import QUANTITY_NAMES, REGION_NAMES
from processing.results import Level
from processing.visits import (
    NO_SCAN,
    Cell,
    Change,
    ChangeTable,
    ChangeVerdict,
    Difference,
    Observation,
    PrecisionProfile,
    UntreatedControl,
)

#: From this share of voxels without a value on, a change is told to be read with it.
_TOLD_EXCLUDED = 0.1


@dataclass(frozen=True, slots=True)
class _Baseline:
    """What a cell is compared with: ``value_ms`` None with the verdict and reason that follow."""

    value_ms: float | None
    n: int = 0
    day: int = 0
    verdict: ChangeVerdict = ChangeVerdict.WITHIN
    reason: str = ""


def assess_changes(
    observations: Mapping[Cell, Sequence[Observation]],
    *,
    baseline: str,
    differences: Mapping[str, Sequence[Difference]],
    precision: PrecisionProfile,
    rule: ChangeRule,
    primary: Collection[tuple[Cell, str]] = (),
    treated: Level | None = None,
    not_evaluable: Mapping[Level, str] | None = None,
    max_excluded_share: float = 0.5,
) -> ChangeTable:
    """Judge every cell at every visit but the baseline.

    Args:
        observations: of each cell, in the order of the visits; a visit without scan has one whose reason is NO_SCAN.
            Several of the baseline's name (scans of the same session or of screening) are averaged.
        baseline: name of the visit that is compared with.
        differences: of each visit from the baseline (:func:`processing.comparability.compare_acquisitions`).
        precision: how well cells repeat.
        rule: kind of limit, confidence, upper bound.
        primary: what was declared in advance; everything else is exploratory.
        treated: the treated level; None where it is not known or not to be shown.
        not_evaluable: disc -> the visit from which on it cannot be measured (operated on, fused).
        max_excluded_share: more voxels without a value: not evaluable.
    """
    discarded = not_evaluable or {}
    usable = {
        cell: [_without(one, cell.level, of_cell, discarded, max_excluded_share) for one in of_cell]
        for cell, of_cell in observations.items()
    }
    changes: list[Change] = []
    for cell, of_cell in usable.items():
        start = _baseline_of([one for one in of_cell if one.visit == baseline], baseline, rule)
        changes += [
            _judge(cell, one, start, differences.get(one.visit, ()), precision, rule, (cell, one.visit) in primary)
            for one in of_cell
            if one.visit != baseline
        ]
    controls = () if treated is None else untreated_controls(changes, treated, rule)
    changes = [_with_control(one, controls) for one in changes]
    judged = [one for one in changes if one.verdict.is_judged]
    n_primary = sum(one.is_primary for one in judged)
    n_exploratory = len(judged) - n_primary
    return ChangeTable(
        changes=tuple(changes),
        n_primary=n_primary,
        n_exploratory=n_exploratory,
        expected_false_primary=n_primary * (1 - rule.confidence),
        expected_false_exploratory=n_exploratory * (1 - rule.confidence),
        slopes=slopes(usable, changes, baseline, differences, precision, rule),
        controls=controls,
        warnings=together_warnings(changes, rule),
        notes=_notes(precision, rule, n_primary, n_exploratory),
    )


def _without(
    one: Observation,
    level: Level,
    of_cell: Sequence[Observation],
    discarded: Mapping[Level, str],
    max_excluded_share: float,
) -> Observation:
    """The observation, or the same without a value where the value is none or must not be used."""
    reason = ""
    if one.reason == NO_SCAN:
        return replace(one, value_ms=None)
    if level in discarded and _is_from(one.visit, discarded[level], of_cell):
        reason = f"the disc is not evaluable from {discarded[level]} on"
    elif one.value_ms is None or not math.isfinite(one.value_ms):
        reason = one.reason or "no value"
    elif one.value_ms <= 0:
        reason = f"{one.value_ms:g} ms is no relaxation time"
    elif one.excluded_share > max_excluded_share:
        reason = f"{one.excluded_share:.0%} of the voxels have no value (at most {max_excluded_share:.0%})"
    return replace(one, value_ms=None, reason=reason) if reason else one


def _is_from(visit: str, first: str, of_cell: Sequence[Observation]) -> bool:
    """Whether a visit is the first that does not count, or later; a first one that is not on record: all do not."""
    names = [one.visit for one in of_cell]
    return first not in names or names.index(visit) >= names.index(first)


def _baseline_of(scans: Sequence[Observation], name: str, rule: ChangeRule) -> _Baseline:
    came = [one for one in scans if one.reason != NO_SCAN]
    if not came:
        return _Baseline(None, verdict=ChangeVerdict.NOT_COMPARABLE, reason=f"there is no scan of {name} yet")
    values = [one.value_ms for one in came if one.value_ms is not None]
    if not values:
        reason = f"{name}: {came[0].reason}"
        return _Baseline(None, verdict=ChangeVerdict.NOT_EVALUABLE, reason=reason)
    mean = fmean(values) if rule.limit == "sdc" or len(values) == 1 else geometric_mean(values)
    return _Baseline(mean, len(values), min(one.day for one in came))


def _judge(
    cell: Cell,
    one: Observation,
    start: _Baseline,
    differences: Sequence[Difference],
    precision: PrecisionProfile,
    rule: ChangeRule,
    is_primary: bool,
) -> Change:
    def withheld(verdict: ChangeVerdict, *reasons: str) -> Change:
        told = tuple(reason for reason in reasons if reason)
        values = (start.value_ms, one.value_ms, None, None, None, None)
        return Change(cell, one.visit, *values, verdict, is_primary, reasons=told)

    hard = [difference.text for difference in differences if difference.hard]
    known = precision.of(cell)
    widened = any(difference.widens for difference in differences)
    if one.reason == NO_SCAN:
        return withheld(ChangeVerdict.MISSING, "no scan of this visit came")
    if one.value_ms is None:
        return withheld(ChangeVerdict.NOT_EVALUABLE, one.reason)
    if start.value_ms is None:
        return withheld(start.verdict, start.reason)
    if one.day < start.day:
        return withheld(ChangeVerdict.NOT_COMPARABLE, "the scan is earlier than the baseline")
    if hard:
        return withheld(ChangeVerdict.NOT_COMPARABLE, *hard)
    if known is None:
        what = f"{QUANTITY_NAMES[cell.quantity]} in {REGION_NAMES[cell.region]}"
        text = f"the profile {precision.name} has no precision of {what}"
        return withheld(ChangeVerdict.NOT_EVALUABLE, text)
    if widened and known.between_sd_log is None:
        texts = [difference.text for difference in differences if difference.widens]
        return withheld(ChangeVerdict.NOT_COMPARABLE, *texts, "what that adds is not known")
    limits = change_limits(
        start.value_ms,
        known,
        limit=rule.limit,
        confidence=rule.confidence,
        upper_bound=rule.upper_bound,
        n_baseline=start.n,
        widened=widened,
    )
    return _judged(cell, one, start.value_ms, limits, [each.text for each in differences], is_primary)


def _judged(
    cell: Cell, one: Observation, baseline_ms: float, limits: Limits, deviations: Sequence[str], is_primary: bool
) -> Change:
    assert one.value_ms is not None
    delta_ms = one.value_ms - baseline_ms
    reasons = list(deviations)
    if one.excluded_share >= _TOLD_EXCLUDED:
        reasons.append(f"{one.excluded_share:.0%} of the voxels have no value")
    return Change(
        cell=cell,
        visit=one.visit,
        baseline_ms=baseline_ms,
        value_ms=one.value_ms,
        delta_ms=delta_ms,
        delta_percent=100 * delta_ms / baseline_ms,
        lower_limit_ms=limits.lower_ms,
        upper_limit_ms=limits.upper_ms,
        verdict=verdict_of(delta_ms, limits.lower_ms, limits.upper_ms),
        is_primary=is_primary,
        basis=limits.basis,
        reasons=tuple(reasons),
        details={"sd_of_difference": limits.sd, "excluded_percent": 100 * one.excluded_share},
    )


def _with_control(one: Change, controls: Sequence[UntreatedControl]) -> Change:
    for control in controls:
        if (one.visit, one.cell) == (control.visit, Cell(control.treated, control.region, control.quantity)):
            found = {
                "untreated_mean_delta_ms": control.untreated_mean_delta_ms,
                "difference_in_differences_ms": control.difference_ms,
                "difference_lower_limit_ms": control.lower_limit_ms,
                "difference_upper_limit_ms": control.upper_limit_ms,
            }
            return replace(one, details={**one.details, **found})
    return one


def _notes(precision: PrecisionProfile, rule: ChangeRule, n_primary: int, n_exploratory: int) -> tuple[str, ...]:
    share = 1 - rule.confidence
    primary = f"{n_primary * share:.2f} of {n_primary} primary, " if n_primary else ""
    notes = [
        f"In a subject that has not changed, {share:.0%} of all judged cells are expected beyond their limits:"
        f" {primary}{n_exploratory * share:.2f} of {n_exploratory} exploratory cells. Exploratory cells are no evidence"
        " by themselves."
    ]
    if precision.borrowed:
        text = precision.description or precision.name
        notes.append(
            f"The precision is borrowed ({text}), not measured on lumbar discs with this sequence at this site; the"
            " limits are as good as that holds."
        )
    return tuple(notes)
