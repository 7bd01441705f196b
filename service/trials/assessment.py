"""What has changed in a subject, judged as its trial's plan says."""

from collections.abc import Sequence

from config.trial_plans import PrimaryCell, TrialPlan
from processing.change import assess_changes
from processing.precision_profile import read_precision
from processing.results import Level, Quantity, Region
from processing.visits import Cell, ChangeTable, Observation
from service.trials.visit_record import VisitRecord


def assess(
    plan: TrialPlan,
    visits: Sequence[VisitRecord],
    observations: dict[Cell, tuple[Observation, ...]],
    non_evaluable: dict[Level, tuple[str, str]],
    treated: Level | None,
) -> ChangeTable:
    """All changes since the baseline.

    ``treated``: None where it is not known or may not be shown. Cells that are declared for the treated level are then
    exploratory like all others, so that nothing tells which level it is.

    Raises:
        SettingsError: the plan's precision profile cannot be used.
    """
    return assess_changes(
        observations,
        baseline=plan.baseline.name,
        differences={one.name: one.differences for one in visits},
        precision=read_precision(plan.change.precision),
        rule=plan.change,
        primary={
            (Cell(level, Region(one.region), Quantity(one.quantity)), visit)
            for one in plan.primary
            if (level := _level(one, treated)) is not None
            for visit in one.visits or [each.name for each in plan.visits if not each.baseline]
        },
        treated=treated,
        not_evaluable={level: first for level, (first, _) in non_evaluable.items()},
        max_excluded_share=plan.acceptance.max_excluded_share,
    )


def _level(cell: PrimaryCell, treated: Level | None) -> Level | None:
    return treated if cell.level == "treated" else Level[cell.level]
