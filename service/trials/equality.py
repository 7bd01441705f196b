"""How a visit was acquired, held against the baseline."""

from collections.abc import Mapping
from typing import Any

from config.trial_plans import Acceptance
from dicom_io.acquisition import acquisition_of_entry
from processing.comparability import compare_acquisitions
from processing.visits import Difference


def differences(
    baseline: Mapping[str, Any] | None, visit: Mapping[str, Any] | None, rules: Acceptance
) -> tuple[Difference, ...]:
    """What of a visit is not as at the baseline, hard differences first; nothing where a result does not tell.

    Args:
        baseline: the block ``acquisition`` of the baseline's result.json; None: it has none.
        visit: the same of the visit.
        rules: how far apart they may lie.
    """
    before, now = acquisition_of_entry(baseline), acquisition_of_entry(visit)
    return () if before is None or now is None else compare_acquisitions(before, now, rules)
