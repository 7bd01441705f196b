"""How a visit was acquired, held against the baseline."""

from collections.abc import Mapping
from typing import Any

from config.trial_plans import Acceptance
from dicom_io.acquisition import acquisition_of_entry
from processing.comparability import UNKNOWN, compare_acquisitions
from processing.visits import Difference


def differences(
    baseline: Mapping[str, Any] | None, visit: Mapping[str, Any] | None, rules: Acceptance
) -> tuple[Difference, ...]:
    """What of a visit is not as at the baseline, hard differences first; nothing where neither result tells.

    Args:
        baseline: the block ``acquisition`` of the baseline's result.json; None: it has none.
        visit: the same of the visit.
        rules: how far apart they may lie.
    """
    before, now = acquisition_of_entry(baseline), acquisition_of_entry(visit)
    if before is None and now is None:
        return ()
    if before is None or now is None:
        return (_untold(before is None),)
    return compare_acquisitions(before, now, rules)


def _untold(of_baseline: bool) -> Difference:
    """One of the results was made before results told their acquisition: another scanner cannot be excluded."""
    whose, told = ("baseline", (UNKNOWN, "known")) if of_baseline else ("visit", ("known", UNKNOWN))
    text = (
        f"How the {whose} was acquired does not stand in its result, so that nothing of it can be compared; analysed"
        " again it will. The limits are those of another scanner"
    )
    return Difference("acquisition", *told, hard=False, widens=True, text=text)
