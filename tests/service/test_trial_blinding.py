"""No arm comes in, and no report of a blinded trial goes out before it is unblinded."""

from pathlib import Path
from typing import Any

import pytest
from records import NOW, add_exam, add_job, later, open_database, settings_in
from sqlalchemy import insert, select

from config.sections import SettingsError
from config.trial_plans import TrialPlan
from processing.results import Verdict
from service import jobs, release
from service import trial_tables as trials
from service.audit import AuditEvent
from service.database import Database, audit_queue
from service.deliveries import list_deliveries
from service.release import CannotDecide, Target
from service.signatures import CannotSign, Signing
from service.trials.blinding import CannotUnblind, arm_columns, check_no_arm, unblind
from service.trials.report_outbox import ReportObject, put_report_in_outbox

ARMS = ("arm", "ARM", "ARMCD", "ACTARMCD", "treatment", "Treatment group", "group", "trt01p", "randomised_to")
ARMS += ("randomization", "isRandomized", "studyArm", "cohort", "sham", "allocation", "treated", "TRTA", "dose_mg")
HARMLESS = ("subject_id", "site_id", "patient_id", "birth_year", "sex", "day_zero", "level", "treated_level", "warm")
HARMLESS += ("treatedLevel", "charmed", "visit", "region", "quantity", "assigned_by", "doser", "grouping_key", "carmen")


@pytest.mark.parametrize("name", ARMS)
def test_a_column_that_speaks_of_an_arm_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"column '{name}' speaks of an arm"):
        check_no_arm(["subject_id", name])


def test_other_columns_pass() -> None:
    assert arm_columns(HARMLESS) == []
    check_no_arm(HARMLESS)


def plan(**changes: Any) -> TrialPlan:
    content = {
        "protocol_id": "DISC-1",
        "sites": [{"id": "S1"}],
        "visits": [{"name": "BL", "day": 0, "baseline": True}, {"name": "M12", "day": 365}],
        "protocol": "ge-mapss",
        "release": "automatic",
        "destinations": ["core-lab"],
    }
    return TrialPlan.model_validate({**content, **changes})


DESTINATIONS = [
    {"name": name, "ae_title": "LAB", "host": "127.0.0.1", "port": 104, "objects": ["sr", "pdf"]}
    for name in ("core-lab", "elsewhere")
]


class Record:
    """A trial with one subject, whose reports are put down one after another."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings_in(folder, destinations=DESTINATIONS)
        self.database: Database = open_database(self.settings)
        add_job(self.database, add_exam(self.database))
        job = jobs.claim(self.database, "w", NOW, 60.0)
        assert job is not None
        jobs.finish(self.database, job, Verdict.OK, (), (), NOW)
        with self.database.write() as connection:
            trial = {"protocol_id": "DISC-1", "plan": "", "plan_sha256": "a" * 64, "file": "", "registered_at": NOW}
            connection.execute(insert(trials.trial).values(id=1, **trial))
            subject = {"trial_id": 1, "subject_id": "R-001", "site_id": "S1", "state": "active", "created_at": NOW}
            connection.execute(insert(trials.subject).values(id=1, **subject))

    def report(self, version: int, rule: TrialPlan, *warnings: str) -> int:
        """Make a version of the report; its number."""
        folder = Path("reports") / "R-001" / f"v{version}"
        (self.settings.storage_dir / folder).mkdir(parents=True)
        objects = [ReportObject(f"2.25.{version}{n}", kind, str(folder / kind)) for n, kind in enumerate(("sr", "pdf"))]
        for one in objects:
            (self.settings.storage_dir / one.path).write_text(f"{one.kind} {version}")
        row = {"subject_id": 1, "version": version, "inputs_digest": f"{version}", "folder": str(folder), "job_id": 1}
        with self.database.write() as connection:
            values = {**row, "has_warnings": bool(warnings), "created_at": NOW}
            made = connection.execute(insert(trials.subject_report).values(**values))
            assert made.inserted_primary_key is not None
            number = int(made.inserted_primary_key[0])
            assert put_report_in_outbox(connection, self.settings, rule, number, objects, NOW, warnings=warnings) == 2
        return number

    def states(self, report_id: int) -> set[tuple[str, str]]:
        found = [one for one in list_deliveries(self.database) if one.report_id == report_id]
        return {(one.destination, str(one.state)) for one in found}


def signing(**changes: str) -> Signing:
    said = {"by": "Dr Statistician", "via": "test", "meaning": "The trial is unblinded", "reason": "data base locked"}
    return Signing(at=later(60), **{**said, **changes})


def test_reports_are_withheld_until_the_trial_is_unblinded(tmp_path: Path) -> None:
    record = Record(tmp_path)
    report = record.report(1, plan())
    assert record.states(report) == {("core-lab", "held")}  # and nothing for a destination that the plan does not name
    for changes in ({"reason": ""}, {"meaning": " "}, {"by": ""}):
        with pytest.raises(CannotSign):
            unblind(record.database, "DISC-1", signing(**changes))
    with pytest.raises(CannotUnblind, match="no trial"):
        unblind(record.database, "DISC-2", signing())
    assert unblind(record.database, "DISC-1", signing()) == 2
    assert record.states(report) == {("core-lab", "waiting")}
    with pytest.raises(CannotUnblind, match="was unblinded on 2026-03-01 by Dr Statistician"):
        unblind(record.database, "DISC-1", signing())
    assert record.states(record.report(2, plan())) == {("core-lab", "waiting")}
    with record.database.read() as connection:
        told = [AuditEvent.from_json(text).detail for text in connection.execute(select(audit_queue.c.event)).scalars()]
    assert any(text.startswith("trial 1 unblinded") for text in told)


def test_an_approved_report_still_waits_for_the_unblinding(tmp_path: Path) -> None:
    record = Record(tmp_path)
    report = record.report(1, plan(release="hold"))
    assert release.approve(record.database, Target("report", report), signing()) == 0
    assert record.states(report) == {("core-lab", "held")}
    assert unblind(record.database, "DISC-1", signing()) == 2
    assert record.states(report) == {("core-lab", "waiting")}


def test_unblinding_approves_nothing(tmp_path: Path) -> None:
    record = Record(tmp_path)
    report = record.report(1, plan(release="hold_on_warning"), "the clock: 4 h from the baseline's")
    assert unblind(record.database, "DISC-1", signing()) == 0
    assert record.states(report) == {("core-lab", "held")}
    assert release.approve(record.database, Target("report", report), signing()) == 2


def test_a_new_version_of_a_report_makes_the_approval_void(tmp_path: Path) -> None:
    record = Record(tmp_path)
    rule = plan(release="hold_on_warning", blinding={"withhold_site_reports": False})
    first = record.report(1, rule, "all levels moved together")
    assert release.approve(record.database, Target("report", first), signing()) == 2
    second = record.report(2, rule)
    assert record.states(first) == {("core-lab", "rejected")}
    assert record.states(second) == {("core-lab", "held")}
    with pytest.raises(CannotDecide):
        release.approve(record.database, Target("report", first), signing())
    assert release.approve(record.database, Target("report", second), signing()) == 2
