"""Clocks and windows: the scanner's own day decides, and what cannot be is held."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from trial_site import PLAN

from config.trial_plans import TrialPlan
from dicom_io.trial_header import parse_date_time
from service.trials.exam_facts import ExamFacts
from service.trials.windows import clock_fault, outside, place, scanned_at

PARIS, NEW_YORK = ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York")
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "common", "zone", "expected"),
    [
        ("20260302100000", None, PARIS, "2026-03-02 10:00"),  # the scanner's clock is the site's
        ("20260302233000+0100", None, PARIS, "2026-03-02 23:30"),
        ("20260302233000+0000", None, PARIS, "2026-03-03 00:30"),  # a scanner in UTC: the next day at the site
        ("20260302003000+0000", None, NEW_YORK, "2026-03-01 19:30"),
        ("20260329003000+0000", None, PARIS, "2026-03-29 01:30"),  # the night in which summer time begins
        ("20260329013000+0000", None, PARIS, "2026-03-29 03:30"),
        ("20261025003000+0000", None, PARIS, "2026-10-25 02:30"),  # and in which it ends: 02:30 comes twice
        ("20261025013000+0000", None, PARIS, "2026-10-25 02:30"),
        ("20260302233000", timezone(timedelta(hours=-5)), PARIS, "2026-03-03 05:30"),  # TimezoneOffsetFromUTC
        ("20260302235960", None, PARIS, "2026-03-02 23:59"),  # a leap second
        ("20260302", UTC, PARIS, "2026-03-02 00:00"),  # a day has no offset
    ],
)
def test_the_day_of_a_scan_is_that_of_its_site(
    text: str, common: timezone | None, zone: ZoneInfo, expected: str
) -> None:
    parsed = parse_date_time(text, common)
    assert parsed is not None
    moment = scanned_at(ExamFacts(acquired_at=parsed[0], has_time=parsed[1]), zone)
    assert f"{moment:%Y-%m-%d %H:%M}" == expected


@pytest.mark.parametrize("text", ["", "2026", "20261301", "20260302250000", "Doe^Jane", "20260302100000+9900x"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_date_time(text) is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (ExamFacts(), "its headers tell no date"),
        (ExamFacts(acquired_at=datetime(2026, 7, 1, 15, 30)), "lies in the future"),  # 13:30 in UTC, an hour and a half
        (ExamFacts(acquired_at=datetime(2026, 7, 1, 14, 30)), ""),  # the clock may be a little ahead
        (ExamFacts(acquired_at=datetime(1969, 7, 1), birth_year=1970), "before the birth"),
        (ExamFacts(acquired_at=datetime(2026, 3, 3, 0, 10), study_date=date(2026, 3, 2)), ""),  # over midnight
        (ExamFacts(acquired_at=datetime(2016, 3, 2), study_date=date(2026, 3, 2)), "a date is wrong"),
        (ExamFacts(study_date=date(2026, 3, 2)), ""),
    ],
)
def test_dates_that_cannot_be(facts: ExamFacts, words: str) -> None:
    fault = clock_fault(facts, PARIS, NOW)
    assert words in fault
    assert bool(words) == bool(fault)


def test_the_nearest_window_counts() -> None:
    plan = TrialPlan.model_validate(PLAN)
    assert [place(plan, day).visit is None for day in (0, 1, 76, 77, 105, 106)] == [
        *(False, True, True),
        *(False, False, True),
    ]
    overlapping = [
        {"name": "BL", "day": 0, "baseline": True},
        {"name": "A", "day": 100, "before_days": 30, "after_days": 30},
        {"name": "B", "day": 140, "before_days": 30, "after_days": 30},
    ]
    plan = TrialPlan.model_validate(PLAN | {"visits": overlapping})
    found = [place(plan, day).visit for day in (119, 121)]
    assert [one and one.name for one in found] == ["A", "B"]
    assert place(plan, 120).text == "day 120 is as near to A as to B"
    assert outside(plan.visits[1], 131) == "1 day after the window of A (day 70 to 130)"
