"""Scans of QC phantoms on record: taken from finished analyses, put into their series, judged by its control chart."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from config.trial_plans import PhantomRule
from processing.control_chart import Chart, ChartRules, PhantomVerdict, VialKey, control_chart
from service import database as node
from service import trial_tables as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.job_records import PHANTOM, Job, read_job
from service.states import FilesState, JobState
from service.trials.registry import Trial, trials_of

_MOST_SCANS = 50  # of one look


class NoSuchScan(LookupError):
    """There is no scan of that number."""


@dataclass(frozen=True, slots=True)
class PhantomScan:
    """One scan. ``vials``: (vial, quantity) -> mean in ms over all slices. ``event``: what began with it, in words."""

    id: int
    job_id: int
    template: str
    device_serial: str
    scanner: str
    scan_date: date
    scanned_at: str
    temperature_c: str
    vials: dict[VialKey, float]
    verdict: PhantomVerdict
    detail: str
    event: str
    accepted_by: str
    accepted_reason: str
    set_aside_by: str
    set_aside_reason: str
    told_at: datetime | None

    @property
    def is_set_aside(self) -> bool:
        """Whether a person says that it does not count."""
        return bool(self.set_aside_by)

    @property
    def holds(self) -> bool:
        """Whether reports of its scanner wait for a person to look into it."""
        return self.verdict is PhantomVerdict.HOLD and not self.accepted_by and not self.is_set_aside


def as_scan(row: Row[Any]) -> PhantomScan:
    """A scan from its row."""
    values = {name: row._mapping[name] or "" for name in ("scanned_at", "temperature_c", "accepted_by")}
    values |= {name: row._mapping[name] or "" for name in ("accepted_reason", "set_aside_by", "set_aside_reason")}
    return PhantomScan(
        id=row.id,
        job_id=row.job_id,
        template=row.template,
        device_serial=row.device_serial,
        scanner=row.scanner,
        scan_date=row.scan_date,
        vials={(one["vial"], one["quantity"]): one["mean_ms"] for one in row.vials},
        verdict=PhantomVerdict(row.verdict),
        detail=row.detail,
        event=row.event,
        told_at=row.told_at,
        **values,
    )


def scans_of(
    connection: Connection, *, scanner: str | None = None, device_serial: str | None = None
) -> list[PhantomScan]:
    """Scans in order of time, of one chart or one scanner if asked for."""
    table = db.phantom_scan
    query = select(table).order_by(table.c.scan_date, table.c.scanned_at, table.c.id)
    if scanner is not None:
        query = query.where(table.c.scanner == scanner)
    if device_serial is not None:
        query = query.where(table.c.device_serial == device_serial)
    return [as_scan(row) for row in connection.execute(query)]


def get_scan(connection: Connection, number: int) -> PhantomScan:
    """One scan.

    Raises:
        NoSuchScan: there is none of that number.
    """
    row = connection.execute(select(db.phantom_scan).where(db.phantom_scan.c.id == number)).one_or_none()
    if row is None:
        raise NoSuchScan(f"no phantom scan {number}")
    return as_scan(row)


def take_scans(database: Database, now: datetime) -> list[PhantomScan]:
    """Take finished analyses of phantoms that are not on record yet, or are there by an older result; judge them.

    What it costs grows with what is new. Returns the scans that were taken.
    """
    with database.read() as connection:
        due = _due(connection)
    taken = []
    for job in due:
        content = json.loads((database.storage_dir / job.result_folder / "result.json").read_text(encoding="utf-8"))
        with database.write() as connection:
            trials = trials_of(connection)
            scan_id = _put_down(connection, job, content["phantom"], now)
            scan = get_scan(connection, scan_id)
            judge_series(connection, scan.scanner, rules_of(trials, content["phantom"]["scanner"]["protocol"]))
            taken.append(get_scan(connection, scan_id))
    return taken


def _due(connection: Connection) -> list[Job]:
    job, scan = node.job, db.phantom_scan
    query = (
        select(job.c.id)
        .outerjoin(scan, scan.c.exam_id == job.c.exam_id)
        .where(
            job.c.kind == PHANTOM,
            job.c.state == str(JobState.DONE),
            or_(scan.c.id.is_(None), scan.c.job_id < job.c.id),
            or_(job.c.files.is_(None), job.c.files.not_in([str(one) for one in FilesState])),
        )
        .order_by(job.c.id)
        .limit(_MOST_SCANS)
    )
    found = [read_job(connection, number) for number in connection.execute(query).scalars().all()]
    newest: dict[int, Job] = {}
    for one in found:
        if one is not None:
            newest[one.exam_id] = one
    return list(newest.values())


def _put_down(connection: Connection, job: Job, phantom: dict[str, Any], now: datetime) -> int:
    """The row of a scan; a newer result of the same exam takes the place of an older one."""
    scanner = phantom["scanner"]
    acquired = None if phantom["acquired_at"] is None else datetime.fromisoformat(phantom["acquired_at"])
    key = scanner_key(
        scanner["device_serial"], scanner["software_versions"], scanner["receive_coil"], scanner["protocol"]
    )
    values = {
        "job_id": job.id,
        "template": phantom["template"],
        "device_serial": scanner["device_serial"][:64],
        "scanner": key,
        "scan_date": acquired.date() if acquired is not None else job.created_at.date(),
        "scanned_at": phantom["acquired_at"] or "",
        "vials": [one for one in phantom["vials"] if one["slice"] is None],
        "verdict": str(PhantomVerdict.OK),
        "detail": "",
        "measured_at": now,
    }
    table = db.phantom_scan
    known = connection.execute(select(table.c.id).where(table.c.exam_id == job.exam_id)).scalar()
    if known is not None:
        connection.execute(update(table).where(table.c.id == known).values(**values))
        return int(known)
    values["event"] = _event(connection, key, scanner["device_serial"], values["scan_date"])
    result = connection.execute(insert(table).values(exam_id=job.exam_id, **values))
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def scanner_key(device_serial: str, software: str, coil: str, protocol: str) -> str:
    """What makes a control chart of its own, in one line."""
    parts = (device_serial or "serial unknown", software or "software unknown", coil or "coil unknown", protocol)
    return " / ".join(" ".join(part.split()) for part in parts)[:255]


def _event(connection: Connection, scanner: str, device_serial: str, day: date) -> str:
    """What is new about a scan whose chart has none before it; "" for the next of a series, and for the very first."""
    if scans_of(connection, scanner=scanner):
        return ""
    before = [one for one in scans_of(connection, device_serial=device_serial) if one.scan_date <= day]
    if before:
        names = ("serial number", "software", "coil", "protocol")
        pairs = zip(names, before[-1].scanner.split(" / "), scanner.split(" / "), strict=False)
        changes = [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
        return f"a new series begins: {', '.join(changes)}"
    others = [one for one in scans_of(connection) if one.scan_date <= day]
    return f"a new series begins: scanner {device_serial or 'unknown'}" if others else ""


def rules_of(trials: Sequence[Trial], protocol: str) -> ChartRules:
    """The strictest rules of the trials that use a protocol; of all trials where none does."""
    of_protocol = [one.plan.phantom for one in trials if one.plan.protocol in protocol.split(" + ")]
    rules = of_protocol or [one.plan.phantom for one in trials] or [PhantomRule()]
    return ChartRules(
        warn_share=min(one.warn_share for one in rules),
        hold_share=min(one.hold_share for one in rules),
        min_scans=max(one.min_scans for one in rules),
    )


def chart_of(connection: Connection, scanner: str, rules: ChartRules) -> tuple[list[PhantomScan], Chart]:
    """The scans of a chart that count, in order, and the chart. Scans of another set of vials are left out."""
    scans = [one for one in scans_of(connection, scanner=scanner) if not one.is_set_aside]
    if scans:
        vials = sorted(scans[-1].vials)
        scans = [one for one in scans if sorted(one.vials) == vials and one.template == scans[-1].template]
    return scans, control_chart([one.vials for one in scans], rules)


def judge_series(connection: Connection, scanner: str, rules: ChartRules) -> None:
    """Judge all scans of a chart anew: one that comes late, or is set aside, moves the limits of the others."""
    scans, chart = chart_of(connection, scanner, rules)
    table = db.phantom_scan
    for number, (scan, judgement) in enumerate(zip(scans, chart.judgements, strict=True), start=1):
        detail = judgement.text
        if judgement.sets_limits:
            detail = "; ".join(
                part for part in (f"scan {number} of {rules.min_scans} that set the limits", detail) if part
            )
        if (scan.verdict, scan.detail) != (judgement.verdict, detail):
            values = {"verdict": str(judgement.verdict), "detail": detail}
            connection.execute(update(table).where(table.c.id == scan.id).values(**values))


def accept_scan(database: Database, number: int, by: str, reason: str, now: datetime) -> PhantomScan:
    """A person looked into a scan that holds reports, and lets them go on.

    Raises:
        NoSuchScan: there is none of that number.
        ValueError: it holds nothing, or there is no reason.
    """
    with database.write() as connection:
        scan = get_scan(connection, number)
        if not scan.holds:
            raise ValueError(f"phantom scan {number} holds nothing: {scan.verdict}")
        _decide(connection, scan, by, reason, now, "accepted", {"accepted_at": now})
        return get_scan(connection, number)


def set_scan_aside(database: Database, number: int, by: str, reason: str, now: datetime) -> PhantomScan:
    """A person says that a scan does not count: the phantom stood wrongly, say. Its series is judged anew.

    Raises:
        NoSuchScan: there is none of that number.
        ValueError: it is set aside already, or there is no reason.
    """
    with database.write() as connection:
        scan = get_scan(connection, number)
        if scan.is_set_aside:
            raise ValueError(f"phantom scan {number} is set aside already, by {scan.set_aside_by}")
        _decide(connection, scan, by, reason, now, "set_aside", {})
        judge_series(connection, scan.scanner, rules_of(trials_of(connection), scan.scanner.rsplit(" / ", 1)[-1]))
        return get_scan(connection, number)


def note_temperature(database: Database, number: int, celsius: float, by: str, now: datetime) -> PhantomScan:
    """Write down how warm the phantom was.

    Raises:
        NoSuchScan: there is none of that number.
        ValueError: no temperature of a room.
    """
    if not 5 <= celsius <= 45:
        raise ValueError(f"{celsius:g} degrees Celsius is no temperature of a phantom")
    with database.write() as connection:
        scan = get_scan(connection, number)
        table = db.phantom_scan
        connection.execute(update(table).where(table.c.id == number).values(temperature_c=f"{celsius:.1f}"))
        was = scan.temperature_c or "none"
        _audit(connection, now, by, f"phantom scan {number}: temperature {was} -> {celsius:.1f} C")
        return get_scan(connection, number)


def _decide(
    connection: Connection, scan: PhantomScan, by: str, reason: str, now: datetime, what: str, more: dict[str, Any]
) -> None:
    if not reason.strip():
        raise ValueError("a reason is needed")
    values = {f"{what}_by": by[:64], f"{what}_reason": reason.strip(), **more}
    connection.execute(update(db.phantom_scan).where(db.phantom_scan.c.id == scan.id).values(**values))
    _audit(connection, now, by, f"phantom scan {scan.id} ({scan.verdict}) {what.replace('_', ' ')}")


def _audit(connection: Connection, now: datetime, by: str, detail: str) -> None:
    note(connection, AuditEvent(AuditKind.DECIDED, now, by=by, detail=detail))


def result_folder(database: Database, connection: Connection, scan: PhantomScan) -> Path | None:
    """Where the result of a scan lies; None where retention took it."""
    job = read_job(connection, scan.job_id)
    return None if job is None or job.files else database.storage_dir / job.result_folder
