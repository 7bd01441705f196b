"""What the QC phantom says of a scanner on a day: whether a visit has one near it, what it said, and what it holds."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, select, update

from config.trial_plans import PhantomRule, TrialPlan
from processing.control_chart import PhantomVerdict
from processing.visits import Acquisition, Difference
from service import database as node
from service import trial_tables as db
from service.database import Database
from service.holds import Hold, put_holds
from service.states import DeliveryState
from service.trials.phantom_scans import PhantomScan, scanner_key, scans_of
from service.trials.registry import trials_of
from service.trials.visit_record import VisitRecord


@dataclass(frozen=True, slots=True)
class PhantomState:
    """The phantom of a scanner about a day.

    ``scan``: the nearest one within the plan's days; None: there is none. ``days``: from the visit to it. ``holds``: a
    scan of this scanner says hold and nobody has accepted it: new reports wait. ``deviation``: what is noted with the
    visit, soft; None where all is well. ``text``: in one line.
    """

    scan: PhantomScan | None
    days: int | None
    holds: bool
    deviation: Difference | None
    text: str

    @property
    def verdict(self) -> PhantomVerdict | None:
        """What the chart says of the nearest scan; None without one."""
        return None if self.scan is None else self.scan.verdict


def phantom_state(database: Database, plan: TrialPlan, scanner: Acquisition, on: date) -> PhantomState:
    """The phantom of a visit's scanner, about its day; a scan of the same software, coil and protocol is preferred."""
    with database.read() as connection:
        scans = [one for one in scans_of(connection, device_serial=scanner.device_serial[:64]) if not one.is_set_aside]
    holding = [one for one in scans if one.holds]
    key = scanner_key(
        scanner.device_serial, scanner.software_versions, scanner.receive_coil, scanner.protocol or plan.protocol
    )
    reach = plan.phantom.near_visit_days
    near = [one for one in scans if abs((one.scan_date - on).days) <= reach]
    same = [one for one in near if one.scanner == key]
    scan = min(same or near, key=lambda one: (abs((one.scan_date - on).days), one.scan_date, one.id), default=None)
    if scan is None:
        text = f"no scan of the QC phantom within {reach} days"
        return PhantomState(None, None, bool(holding), _deviation("none", text), text)
    days = (scan.scan_date - on).days
    when = (
        "on the same day"
        if days == 0
        else f"{abs(days)} {'day' if abs(days) == 1 else 'days'} {'after' if days > 0 else 'before'}"
    )
    text = f"QC phantom {when}: {scan.verdict}"
    if scan.scanner != key:
        text += ", with other software, coil or protocol"
    if scan.accepted_by:
        text += ", accepted by a person"  # whose name is for no report; it stands in the record
    odd = scan.verdict is not PhantomVerdict.OK or scan.scanner != key
    return PhantomState(scan, days, bool(holding), _deviation(str(scan.verdict), text) if odd else None, text)


def _deviation(found: str, text: str) -> Difference:
    return Difference("phantom", "", found, hard=False, widens=False, text=f"{text[:1].upper()}{text[1:]}.")


def phantom_hold(connection: Connection, device_serial: str) -> str:
    """Why no new report of a subject whose newest scan is of this scanner goes out now; "" where nothing holds it."""
    holding = [one for one in scans_of(connection, device_serial=device_serial[:64]) if one.holds]
    if not device_serial or not holding:
        return ""
    one = holding[-1]
    return f"QC phantom of scanner {one.device_serial} on {one.scan_date.isoformat()}: hold; {one.detail}"


def free_reports(connection: Connection) -> int:
    """Let the reports go that only a phantom holds which holds nothing any more; returns how many objects."""
    table, report, result = node.delivery, db.subject_report, db.trial_result
    query = (
        select(table, result.c.acquisition)
        .join(report, report.c.id == table.c.report_id)
        .outerjoin(result, result.c.job_id == report.c.job_id)
        .where(table.c.state == str(DeliveryState.HELD))
    )
    freed = 0
    for row in connection.execute(query).all():
        holds = dict(row.holds or {})
        if Hold.PHANTOM in holds and not phantom_hold(
            connection, str((row.acquisition or {}).get("device_serial", ""))
        ):
            del holds[Hold.PHANTOM]
            put_holds(connection, row, holds)
            freed += 1
    return freed


def with_phantom(database: Database, plan: TrialPlan, visit: VisitRecord) -> VisitRecord:
    """A visit with what its QC phantom gives to be noted, on a node that has scanned phantoms at all."""
    if not visit.is_measured or visit.acquisition is None or visit.scan_date is None:
        return visit
    with database.read() as connection:
        if not connection.execute(select(func.count()).select_from(db.phantom_scan)).scalar():
            return visit
    deviation = phantom_state(database, plan, visit.acquisition, visit.scan_date).deviation
    return visit if deviation is None else replace(visit, differences=(*visit.differences, deviation))


@dataclass(frozen=True, slots=True)
class Expected:
    """When the next scan of a scanner's phantom is due."""

    device_serial: str
    newest: PhantomScan
    by: date

    def is_overdue(self, today: date) -> bool:
        """Whether the day has passed."""
        return today > self.by


def expected_scans(connection: Connection) -> tuple[Expected, ...]:
    """When the next scan of each known scanner is due, by the trial that wants it soonest."""
    trials = trials_of(connection)
    every_days = min((one.plan.phantom.every_days for one in trials), default=PhantomRule().every_days)
    newest = {one.device_serial: one for one in scans_of(connection)}
    return tuple(
        Expected(serial, one, one.scan_date + timedelta(days=every_days)) for serial, one in sorted(newest.items())
    )


def tell_overdue(database: Database, now: datetime) -> int:
    """Note which phantoms are overdue, each once, for the notifications; returns how many."""
    with database.read() as connection:
        late = [one for one in expected_scans(connection) if one.is_overdue(now.date()) and one.newest.told_at is None]
    if late:
        with database.write() as connection:
            table = db.phantom_scan
            for one in late:
                connection.execute(update(table).where(table.c.id == one.newest.id).values(told_at=now))
    return len(late)
