"""The subject's own levels as a control: the treated disc against the others, and discs that all moved together."""

import math
from collections.abc import Iterable, Sequence

from config.trial_plans import ChangeRule
from processing.change_limits import critical_value, verdict_of
from processing.display import QUANTITY_NAMES, REGION_NAMES
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Change, UntreatedControl

#: Fewer discs than these do not tell whether all moved.
_FEWEST_TOGETHER = 3

_Group = tuple[str, Quantity, Region]


def untreated_controls(
    changes: Sequence[Change],
    treated: Level,
    rule: ChangeRule,
) -> tuple[UntreatedControl, ...]:
    """Difference in differences at each visit: the treated level's change less the mean change of the others.

    In the scale of the rule (logarithms for "rcv"), with the SD of such a difference:
    sqrt(sd_treated² + sum(sd_untreated²) / m²). Errors that all levels share make it smaller than that, never larger.
    """
    found = []
    for (visit, quantity, region), group in _groups(changes).items():
        own = [one for one in group if one.cell.level is treated]
        others = [one for one in group if one.cell.level is not treated]
        if not own or not others:
            continue
        found.append(_control(own[0], others, visit, quantity, region, rule))
    return tuple(found)


def _control(
    own: Change, others: Sequence[Change], visit: str, quantity: Quantity, region: Region, rule: ChangeRule
) -> UntreatedControl:
    difference = _moved(own, rule) - math.fsum(_moved(one, rule) for one in others) / len(others)
    sds = [one.details["sd_of_difference"] for one in others]
    sd = math.hypot(own.details["sd_of_difference"], math.sqrt(math.fsum(sd**2 for sd in sds)) / len(sds))
    half = critical_value(rule.confidence) * sd
    low, high, middle = (_in_ms(part, own, rule) for part in (-half, half, difference))
    assert own.delta_ms is not None
    return UntreatedControl(
        visit=visit,
        quantity=quantity,
        region=region,
        treated=own.cell.level,
        untreated=tuple(one.cell.level for one in others),
        treated_delta_ms=own.delta_ms,
        untreated_mean_delta_ms=math.fsum(one.delta_ms or 0.0 for one in others) / len(others),
        difference_ms=middle,
        lower_limit_ms=low,
        upper_limit_ms=high,
        verdict=verdict_of(difference, -half, half),
    )


def together_warnings(changes: Sequence[Change], rule: ChangeRule) -> tuple[str, ...]:
    """A sentence for each visit, quantity and region in which all levels moved the same way.

    All must have the same sign, and without the one that moved most (which may be the treated one) the mean of the
    others must be beyond the limits of a mean of so many.
    """
    warnings = []
    for (visit, quantity, region), group in _groups(changes).items():
        moved = sorted((_moved(one, rule) for one in group), key=abs)
        if len(moved) < _FEWEST_TOGETHER or min(moved) * max(moved) <= 0:
            continue
        rest = moved[:-1]
        by_size = sorted(group, key=lambda one: abs(_moved(one, rule)))[:-1]
        sd = math.sqrt(math.fsum(one.details["sd_of_difference"] ** 2 for one in by_size)) / len(rest)
        if abs(math.fsum(rest) / len(rest)) <= critical_value(rule.confidence) * sd:
            continue
        deltas = sorted(one.delta_ms for one in group if one.delta_ms is not None)
        levels = f"All {len(group)} levels" if len(group) == len(LUMBAR_LEVELS) else f"All {len(group)} judged levels"
        warnings.append(
            f"{levels} moved together at {visit}: {QUANTITY_NAMES[quantity]} of the {REGION_NAMES[region]}"
            f" {deltas[0]:+.1f} to {deltas[-1]:+.1f} ms. Hour of the day, hydration, scanner, software and coil move"
            " all discs; a treatment of one level does not."
        )
    return tuple(warnings)


def _groups(changes: Iterable[Change]) -> dict[_Group, list[Change]]:
    """The judged changes of all levels, by visit, quantity and region."""
    groups: dict[_Group, list[Change]] = {}
    for one in changes:
        if one.verdict.is_judged:
            groups.setdefault((one.visit, one.cell.quantity, one.cell.region), []).append(one)
    return groups


def _moved(one: Change, rule: ChangeRule) -> float:
    """A change in the scale of its limits."""
    assert one.value_ms is not None
    assert one.baseline_ms is not None
    return math.log(one.value_ms / one.baseline_ms) if rule.limit == "rcv" else one.value_ms - one.baseline_ms


def _in_ms(part: float, own: Change, rule: ChangeRule) -> float:
    assert own.baseline_ms is not None
    return own.baseline_ms * math.expm1(part) if rule.limit == "rcv" else part
