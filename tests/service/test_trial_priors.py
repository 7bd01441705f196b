"""For which days a PACS is asked about a subject."""

from datetime import date, timedelta

from trial_site import DAY_ZERO, PLAN

from config.trial_plans import TrialPlan
from service.trials.priors import days_of_visits

_PLAN = TrialPlan.model_validate(PLAN)


def _day(number: int) -> date:
    return DAY_ZERO + timedelta(days=number)


def test_the_windows_from_day_zero() -> None:
    assert days_of_visits(_PLAN, DAY_ZERO, ()) == (
        (_day(0), _day(0)),
        (_day(77), _day(105)),
        (_day(161), _day(203)),
    )


def test_before_the_baseline_is_there_a_named_visit_bounds_the_days() -> None:
    """M3 on day 91: the baseline was 77 to 105 days earlier."""
    found = days_of_visits(_PLAN, None, (("unscheduled", _day(30)), ("M3", _day(91))))
    assert found[0] == (_day(91 - 105), _day(91 - 77))
    assert found[2] == (_day(91 - 105 + 161), _day(91 - 77 + 203))
    assert days_of_visits(_PLAN, None, (("unscheduled", _day(30)),)) == ()
