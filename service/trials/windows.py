"""Days and clocks of a trial: the scanner's own date, the day from day zero, and which visit's window holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from config.trial_plans import TrialPlan, Visit
from service.trials.exam_facts import ExamFacts

UNSCHEDULED = "unscheduled"
_CLOCK_AHEAD = timedelta(hours=1)  # what a scanner's clock may be ahead of ours
_STUDY_DAYS = 1  # a scan over midnight is a day later than its study


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a day falls. ``visit``: None where it falls in no window, or in two equally; ``text`` then tells why."""

    visit: Visit | None
    text: str = ""


def scanned_at(facts: ExamFacts, zone: ZoneInfo) -> datetime | None:
    """The scan's moment on the wall clock of its site, without zone; None where no header tells the day.

    A header without an offset from UTC tells the scanner's clock, which is the site's (PS3.3 C.12.1.1.8); one with an
    offset is brought to the site's zone, whose summer time counts.
    """
    moment = facts.acquired_at
    if moment is None:
        return None if facts.study_date is None else datetime.combine(facts.study_date, datetime.min.time())
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)


def zone_of(plan: TrialPlan, site_id: str) -> ZoneInfo:
    """The time zone of a site; UTC where the plan has no such site."""
    return next((ZoneInfo(one.time_zone) for one in plan.sites if one.id == site_id), ZoneInfo("UTC"))


def clock_fault(facts: ExamFacts, zone: ZoneInfo, now: datetime) -> str:
    """Why the date cannot be the scan's, in words; "" where it can. ``now``: aware."""
    moment = scanned_at(facts, zone)
    if moment is None:
        return "its headers tell no date"
    if moment > now.astimezone(zone).replace(tzinfo=None) + _CLOCK_AHEAD:
        return f"its scan date {moment.date()} lies in the future: a clock is wrong"
    if facts.birth_year is not None and moment.year < facts.birth_year:
        return f"its scan date {moment.date()} is before the birth of the patient: a date is wrong"
    if facts.study_date is not None and abs((moment.date() - facts.study_date).days) > _STUDY_DAYS:
        return f"its images are of {moment.date()}, its study of {facts.study_date}: a date is wrong"
    return ""


def place(plan: TrialPlan, day: int) -> Placed:
    """The visit in whose window a day falls; of two the nearer one."""
    found = sorted((one for one in plan.visits if one.first_day <= day <= one.last_day), key=lambda v: abs(day - v.day))
    if not found:
        return Placed(None, f"day {day} is outside every window: {_beside(plan.visits, day)}")
    if len(found) > 1 and abs(day - found[0].day) == abs(day - found[1].day):
        return Placed(None, f"day {day} is as near to {found[0].name} as to {found[1].name}")
    return Placed(found[0])


def outside(visit: Visit, day: int) -> str:
    """How far a day lies outside a visit's window, in words; "" where it lies in it."""
    window = f"the window of {visit.name} (day {visit.first_day} to {visit.last_day})"
    if day < visit.first_day:
        return f"{_days(visit.first_day - day)} before {window}"
    return f"{_days(day - visit.last_day)} after {window}" if day > visit.last_day else ""


def _beside(visits: Sequence[Visit], day: int) -> str:
    earlier = [one for one in visits if one.last_day < day]
    later = [one for one in visits if one.first_day > day]
    nearest = [*earlier[-1:], *later[:1]]
    return " and ".join(outside(one, day) for one in nearest)


def _days(number: int) -> str:
    return f"{number} day" if number == 1 else f"{number} days"


def missed_on(visit: Visit, day_zero: date, alert_after_days: int) -> date:
    """The first day on which a visit that did not come is told."""
    return day_zero + timedelta(days=visit.last_day + alert_after_days + 1)
