"""Scans of QC phantoms at a node: never a subject's, put into the series of their scanner, holding reports on drift."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from trial_site import NOW, Scan, Site, open_site

from config.destinations import Destination
from config.notifications import Event
from config.trial_plans import TrialPlan
from processing.control_chart import ChartRules, PhantomVerdict
from processing.results import Verdict
from processing.visits import Acquisition
from service import database as db
from service import jobs
from service.channels import Channel
from service.cli import main
from service.health import Health
from service.incidents import Incidents
from service.notify import NotificationDesk
from service.trials.phantom_scans import accept_scan, chart_of, note_temperature, scans_of, set_scan_aside
from service.trials.phantoms import free_reports, phantom_hold, phantom_state, tell_overdue
from service.trials.registry import trials_of
from service.trials.report_outbox import ReportObject, put_report_in_outbox

FIRST = date(2026, 1, 5)
NOMINAL_MS = {("V1", "T1rho"): 45.0, ("V1", "T2"): 36.0, ("V2", "T1rho"): 80.0, ("V2", "T2"): 68.0}


def scan_content(day: date, factor: float = 1.0, *, serial: str = "SN1", software: str = "DV26") -> dict[str, Any]:
    """The block ``phantom`` of a result."""
    vials = [
        {
            "vial": vial,
            "quantity": quantity,
            "slice": None,
            "mean_ms": mean * factor,
            "sd_ms": 1.0,
            "n": 900,
            "snr": 60.0,
        }
        for (vial, quantity), mean in NOMINAL_MS.items()
    ]
    scanner = {"device_serial": serial, "software_versions": software, "receive_coil": "SPINE", "protocol": "ge-mapss"}
    return {"template": "mine", "scanner": scanner, "acquired_at": f"{day.isoformat()}T07:30:00", "vials": vials}


def add_scan(site: Site, day: date, factor: float = 1.0, *, exam_id: int | None = None, **how: str) -> int:
    """A phantom's exam that was received and measured; returns its exam."""
    if exam_id is None:
        exam_id = site.add(Scan(subject="", protocol_id="", site="", patient_id="QC_PHANTOM-1"))
    else:
        with site.database.write() as connection:
            jobs.enqueue(connection, jobs.JobRequest(exam_id, ("again.dcm",), "again", "SCANNER", "ge-mapss"), NOW)
    job = jobs.claim(site.database, "w", NOW, 60.0)
    assert job is not None
    folder = site.settings.storage_dir / job.result_folder
    folder.mkdir(parents=True)
    content = {"status": "ok", "reasons": [], "discs": [], "versions": {}, "phantom": scan_content(day, factor, **how)}
    (folder / "result.json").write_text(json.dumps(content))
    jobs.finish(site.database, job, Verdict.OK, (), (), NOW, kind="phantom")
    return exam_id


def add_series(site: Site, n: int = 11, start: date = FIRST, **how: str) -> None:
    """Monthly scans that differ by half a percent in turn."""
    for at in range(n):
        add_scan(site, start + timedelta(days=30 * at), 1 + 0.005 * (-1) ** at, **how)


def verdicts(site: Site) -> list[str]:
    with site.database.read() as connection:
        return [str(one.verdict) for one in scans_of(connection)]


def scanner(serial: str = "SN1", software: str = "DV26") -> Acquisition:
    return Acquisition(device_serial=serial, software_versions=software, receive_coil="SPINE", protocol="ge-mapss")


def held_reports(site: Site, serial: str) -> str:
    with site.database.read() as connection:
        return phantom_hold(connection, serial)


def plan_of(site: Site) -> TrialPlan:
    with site.database.read() as connection:
        return trials_of(connection)[0].plan


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(tmp_path)


def test_a_phantom_is_never_a_subject_even_with_the_attributes_of_a_trial(site: Site) -> None:
    exam_id = site.add(Scan(subject="01-001", visit="BL", patient_id="HOSP-7"))
    job = jobs.claim(site.database, "w", NOW, 60.0)
    assert job is not None
    folder = site.settings.storage_dir / job.result_folder
    folder.mkdir(parents=True)
    content = {"status": "ok", "reasons": [], "discs": [], "versions": {}, "phantom": scan_content(FIRST)}
    (folder / "result.json").write_text(json.dumps(content))
    jobs.finish(site.database, job, Verdict.OK, (), (), NOW, kind="phantom")
    site.sweep()
    site.sweep()
    assert site.visits() == {}
    assert exam_id not in site.at_the_door()
    assert not site.rows(db.trial_tables.report_due)
    assert len(verdicts(site)) == 1


def test_scans_are_taken_once_and_a_newer_result_takes_their_place(site: Site) -> None:
    exam_id = add_scan(site, FIRST)
    site.sweep()
    site.sweep()
    assert verdicts(site) == ["ok"]
    add_scan(site, FIRST, 1.001, exam_id=exam_id)
    site.sweep()
    (row,) = site.rows(db.trial_tables.phantom_scan)
    assert row.vials[0]["mean_ms"] == pytest.approx(45.0 * 1.001)


def test_drift_holds_the_reports_of_that_scanner_until_a_person_accepts(site: Site) -> None:
    add_series(site)
    add_series(site, serial="SN2")
    site.sweep()
    assert set(verdicts(site)) == {"ok"}
    add_scan(site, FIRST + timedelta(days=331), 1.07)
    site.sweep()
    (held,) = [row for row in site.rows(db.trial_tables.phantom_scan) if row.verdict == "hold"]
    assert "more than 5 % off their means" in held.detail
    assert "SN1" in held_reports(site, "SN1")
    assert held_reports(site, "SN2") == ""
    with pytest.raises(ValueError, match="reason"):
        accept_scan(site.database, held.id, "lead", " ", NOW)
    accept_scan(site.database, held.id, "lead", "phantom was cold; repeat was in order", NOW)
    assert held_reports(site, "SN1") == ""
    with pytest.raises(ValueError, match="holds nothing"):
        accept_scan(site.database, held.id, "lead", "again", NOW)
    events = [row.event for row in site.rows(db.audit_queue)]
    assert any(f"phantom scan {held.id} (hold) accepted" in event for event in events)
    assert not any("cold" in event for event in events)  # a person's free text stays out of the trail


def test_other_software_begins_a_new_series_and_is_marked(site: Site) -> None:
    add_series(site)
    add_scan(site, FIRST + timedelta(days=331), 1.07, software="DV27")
    add_scan(site, FIRST + timedelta(days=332), serial="SN3")
    site.sweep()
    rows = site.rows(db.trial_tables.phantom_scan)
    assert [row.event for row in rows[-2:]] == [
        "a new series begins: software DV26 -> DV27",
        "a new series begins: scanner SN3",
    ]
    assert rows[-2].verdict == "ok"  # the first of its series: nothing to hold it against
    assert {row.event for row in rows[:-2]} == {""}


def test_scans_that_come_late_are_put_in_their_place(tmp_path: Path) -> None:
    days = [FIRST + timedelta(days=30 * at) for at in range(12)]
    factors = [1 + 0.005 * (-1) ** at for at in range(11)] + [1.035]
    outcomes = []
    for order in (range(12), [11, *range(11)], [5, 3, 11, 0, 8, 1, 10, 2, 9, 4, 7, 6]):
        folder = tmp_path / "-".join(map(str, order))
        folder.mkdir()
        site = open_site(folder)
        for at in order:
            add_scan(site, days[at], factors[at])
            site.sweep()
        with site.database.read() as connection:
            outcomes.append([(one.scan_date, one.verdict, one.detail) for one in scans_of(connection)])
    assert outcomes[0][-1][1] is PhantomVerdict.HOLD  # 3.5 % against an SD of half a percent
    assert outcomes[1] == outcomes[2] == outcomes[0]


def test_a_scan_that_is_set_aside_moves_no_limits(site: Site) -> None:
    add_series(site, 5)
    add_scan(site, FIRST + timedelta(days=140), 0.90)  # it stood at the edge of the coil
    add_series(site, 7, FIRST + timedelta(days=150))
    site.sweep()
    bad = next(row for row in site.rows(db.trial_tables.phantom_scan) if row.verdict == "hold")
    set_scan_aside(site.database, bad.id, "lead", "stood wrongly", NOW)
    with site.database.read() as connection:
        key = scans_of(connection)[0].scanner
        scans, chart = chart_of(connection, key, ChartRules())
    assert len(scans) == 12
    assert chart.limits["V1", "T2"].sd < 0.3
    assert held_reports(site, "SN1") == ""


@pytest.mark.parametrize(
    ("serial", "software", "offset", "found", "noted"),
    [
        ("SN1", "DV26", 0, "QC phantom on the same day: ok", False),
        ("SN1", "DV26", 30, "QC phantom 30 days before: ok", False),
        ("SN1", "DV26", -1, "QC phantom 1 day after: ok", False),
        ("SN1", "DV26", 31, "no scan of the QC phantom within 30 days", True),
        ("SN2", "DV26", 0, "no scan of the QC phantom within 30 days", True),
        ("SN1", "DV27", 4, "QC phantom 4 days before: ok, with other software, coil or protocol", True),
    ],
)
def test_a_visit_without_a_phantom_near_it_gets_a_soft_deviation(
    site: Site, serial: str, software: str, offset: int, found: str, noted: bool
) -> None:
    add_scan(site, FIRST)
    site.sweep()
    state = phantom_state(site.database, plan_of(site), scanner(serial, software), FIRST + timedelta(days=offset))
    assert state.text == found
    assert (state.deviation is not None) is noted
    if state.deviation is not None:
        assert (state.deviation.what, state.deviation.hard, state.deviation.widens) == ("phantom", False, False)


def test_an_overdue_phantom_and_a_hold_are_told_once(site: Site) -> None:
    messages: list[Mapping[str, Any]] = []
    desk = NotificationDesk(site.settings, (Channel("way", tuple(Event), messages.append),))
    incidents = Incidents(site.database, site.settings, lambda: Health(()), desk)

    def told(now: datetime) -> list[str]:
        messages.clear()
        incidents.look(now)
        desk.send_due(now + timedelta(minutes=5))
        return [one["text"] for message in messages for one in message["events"] if one["event"] == Event.PHANTOM]

    start = datetime(2026, 12, 4, tzinfo=UTC)
    assert told(start) == []
    add_series(site)
    add_scan(site, FIRST + timedelta(days=331), 1.07)
    site.sweep(start)
    hold = "the QC phantom of scanner SN1 of 2026-12-02 says hold: new subject reports wait"
    assert told(start + timedelta(hours=1)) == [hold]
    assert told(start + timedelta(hours=9)) == []
    days = [datetime(2027, 1, day, 12, tzinfo=UTC) for day in (2, 3, 4)]  # 31 days: the last day in time
    assert [tell_overdue(site.database, day) for day in days] == [0, 1, 0]
    assert told(days[2]) == ["the QC phantom of scanner SN1 is overdue: last scanned on 2026-12-02"]
    assert told(days[2] + timedelta(days=1)) == []


def test_the_command_lists_shows_accepts_and_draws(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"storage_dir: {site.settings.storage_dir}\ntrials_dir: {site.settings.trials_dir}\n")
    add_series(site)
    add_scan(site, FIRST + timedelta(days=331), 1.07)
    site.sweep()

    def run(*arguments: str) -> tuple[int, str]:
        status = main(["trial", "phantoms", arguments[0], "--config", str(config), *arguments[1:]])
        return status, "".join(capsys.readouterr())

    assert "2026-12-02  hold" in run("list")[1]
    listed = json.loads(run("list", "--json")[1])
    assert listed["expected"] == [{"device_serial": "SN1", "due_by": "2027-01-02"}]
    number = str(listed["scans"][-1]["id"])
    assert json.loads(run("show", number)[1])["verdict"] == "hold"
    assert run("show", "999") == (3, "no phantom scan 999\n")
    assert run("note", number, "--temperature", "99", "--by", "me")[0] == 3
    assert run("note", number, "--temperature", "20.4", "--by", "me") == (0, f"phantom scan {number}: 20.4 °C\n")
    assert run("accept", number, "--by", "me", "--reason", "checked")[0] == 0
    status, _ = run("chart", "--out", str(tmp_path / "charts"))
    assert status == 0
    page = (tmp_path / "charts" / "chart-01.html").read_text()
    assert "accepted by me: checked" in page
    assert "20.4" in page
    assert "RESEARCH USE ONLY" in page


def test_temperature_is_audited(site: Site) -> None:
    add_scan(site, FIRST)
    site.sweep()
    assert note_temperature(site.database, 1, 21.25, "me", NOW).temperature_c == "21.2"
    with site.database.read() as connection:
        events = list(connection.execute(select(db.audit_queue.c.event)).scalars())
    assert any("temperature none -> 21.2 C" in event for event in events)


def add_report(site: Site, serial: str) -> int:
    """A report on its way whose newest visit was scanned on a scanner; returns the number of its delivery."""
    now = datetime(2026, 12, 5, tzinfo=UTC)
    exam_id = site.add(Scan(subject="01-001", visit="BL", day=330))
    job_id = site.measure(exam_id, acquisition={"device_serial": serial})
    site.sweep()
    with site.database.write() as connection:
        subject_id = connection.execute(select(db.trial_tables.subject.c.id)).scalars().first()
        values = {"subject_id": subject_id, "version": 1, "inputs_digest": "d", "folder": "r", "job_id": job_id}
        report = insert(db.trial_tables.subject_report).values(has_warnings=False, created_at=now, **values)
        (report_id,) = connection.execute(report).inserted_primary_key or ()
        why = phantom_hold(connection, serial)
        plan = trials_of(connection)[0].plan.model_copy(update={"destinations": ("pacs",), "release": "automatic"})
        sent = [ReportObject("1.2.3.4", "pdf", "r/report.dcm")]
        held_by = {"phantom": why} if why else {}
        destination = Destination(name="pacs", ae_title="PACS", host="localhost", port=104)
        settings = site.settings.model_copy(update={"destinations": (destination,)})
        plan = plan.model_copy(update={"blinding": plan.blinding.model_copy(update={"withhold_site_reports": False})})
        put_report_in_outbox(connection, settings, plan, report_id, sent, now, held_by=held_by)
        return int(connection.execute(select(db.delivery.c.id).order_by(db.delivery.c.id.desc()).limit(1)).scalar_one())


def test_a_held_report_goes_when_a_person_accepts_the_phantom(site: Site) -> None:
    add_series(site)
    add_scan(site, FIRST + timedelta(days=331), 1.07)
    site.sweep()
    delivery = add_report(site, "SN1")

    def state() -> tuple[str, list[str]]:
        with site.database.read() as connection:
            row = connection.execute(select(db.delivery).where(db.delivery.c.id == delivery)).one()
        return row.state, sorted(row.holds or {})

    def free() -> int:
        with site.database.write() as connection:
            return free_reports(connection)

    assert state() == ("held", ["phantom"])
    assert free() == 0
    with site.database.read() as connection:
        scan = scans_of(connection)[-1]
    accept_scan(site.database, scan.id, "lead", "looked into", NOW)
    assert free() == 1
    assert state() == ("waiting", [])


def test_a_report_of_another_scanner_is_not_held(site: Site) -> None:
    add_series(site)
    add_scan(site, FIRST + timedelta(days=331), 1.07)
    site.sweep()
    delivery = add_report(site, "SN2")
    with site.database.read() as connection:
        row = connection.execute(select(db.delivery).where(db.delivery.c.id == delivery)).one()
    assert row.state == "waiting"
