"""The reports of subjects that are due: made once, whole or not at all, sent as the trial's rules say."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import insert, select, update
from synthetic_subject import USUAL, Site, synthetic_site

from config.settings import Settings
from service import database as db
from service import trial_tables as tables
from service.cli import main
from service.database import open_database
from service.holds import settle_destinations_of_reports
from service.release import CannotDecide, Target, approve
from service.signatures import Signing
from service.states import DeliveryState
from service.trials import reporter
from service.trials.report_demands import count_stuck, forgive_attempts
from service.trials.reporter import make_next
from service.trials.takeover import ask_for_report

NOW = datetime(2027, 1, 8, 10, 22, tzinfo=UTC)
CORE_LAB = {"name": "corelab", "ae_title": "CORE", "host": "127.0.0.1", "port": 11199, "objects": ["sr", "pdf"]}
#: Kills itself at a point of the way, as a power cut does.
DIES = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from config.settings import load_settings
from service.database import open_database
from service.trials import reporter
where, config, now = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "built":
    reporter.flush_tree = die
elif where == "published":
    rename = reporter._publish
    reporter._publish = lambda *folders: (rename(*folders), die())
settings = load_settings(Path(config))
reporter.make_next(open_database(settings), settings, datetime.fromisoformat(now))
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with a subject whose baseline and one later visit are measured."""
    folder = tmp_path_factory.mktemp("template")
    two = (USUAL[0], replace(USUAL[-1], deviations=()))
    synthetic_site(folder, two, not_evaluable=None, destinations=[CORE_LAB]).database.close()
    shutil.rmtree(folder / "source")
    for image in folder.rglob("reference-*.dcm"):  # the strip of pictures takes longest, and is looked at elsewhere
        image.unlink()
    return folder


@pytest.fixture
def site(template: Path, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    shutil.copytree(template, folder)
    content = {
        "storage_dir": str(folder / "node"),
        "trials_dir": str(folder / "trials"),
        "destinations": [CORE_LAB],
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(content))
    settings = Settings.model_validate(content)
    database = open_database(settings)
    with database.write() as connection:
        connection.execute(update(tables.trial).values(file=str(folder / "trials" / "example.yaml")))
    from config.trial_plans import load_plan

    yield Site(settings, database, load_plan(folder / "trials" / "example.yaml"), 1)
    database.close()


def ask(site: Site, minutes: float = 0.0) -> datetime:
    now = NOW + timedelta(minutes=minutes)
    with site.database.write() as connection:
        ask_for_report(connection, site.subject_id, "M12 is measured", now)
    return now


def rows(site: Site, table: Any) -> list[Any]:
    with site.database.read() as connection:
        return list(connection.execute(select(table).order_by(table.c.id)).all())


def folders(site: Site) -> list[str]:
    return sorted(one.name for one in (site.settings.storage_dir / "reports" / "subject-000001").iterdir())


def discard(site: Site, level: str) -> None:
    """A person says that a disc is not evaluable."""
    values = {"level": level, "from_visit": "M12", "reason": "fused", "noted_by": "x", "noted_at": NOW}
    with site.database.write() as connection:
        connection.execute(insert(tables.non_evaluable).values(subject_id=site.subject_id, **values))


def hold_scanner(site: Site, serial: str) -> None:
    """Its QC phantom has drifted, and nobody has looked into it."""
    values = {
        "job_id": 1,
        "template": "t",
        "device_serial": serial,
        "scanner": serial,
        "scan_date": date(2027, 1, 6),
        "vials": [],
        "verdict": "hold",
        "detail": "vial 2 by 6 %",
        "event": "",
        "measured_at": NOW,
    }
    with site.database.write() as connection:
        connection.execute(insert(tables.phantom_scan).values(**values))


def test_a_due_report_is_made_recorded_and_held_for_the_trial(site: Site) -> None:
    now = ask(site)
    assert make_next(site.database, site.settings, now)
    assert not make_next(site.database, site.settings, now)
    (report,) = rows(site, tables.subject_report)
    assert (report.version, report.created_at, report.job_id) == (1, NOW, 2)
    assert rows(site, tables.report_due) == []
    folder = site.settings.storage_dir / report.folder
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == [
        *("changes.csv", "dicom/subject-report.dcm", "dicom/subject-sr.dcm"),
        *("report.html", "report.json", "report.pdf"),
    ]
    deliveries = rows(site, db.delivery)
    assert [(one.kind, one.destination, one.state, one.report_id) for one in deliveries] == [
        ("sr", "corelab", DeliveryState.HELD, report.id),
        ("pdf", "corelab", DeliveryState.HELD, report.id),
    ]
    assert all("blinded" in one.holds for one in deliveries)
    # the same inputs make no new version
    assert make_next(site.database, site.settings, ask(site, 5))
    assert len(rows(site, tables.subject_report)) == 1
    assert rows(site, tables.report_due) == []
    # what a person says does, and the one before is not sent any more
    discard(site, "L2L3")
    hold_scanner(site, "0000309999")
    assert make_next(site.database, site.settings, ask(site, 10))
    versions = rows(site, tables.subject_report)
    assert [one.version for one in versions] == [1, 2]
    content = json.loads((site.settings.storage_dir / versions[1].folder / "report.json").read_text())
    assert (content["version"], content["supersedes"]) == (2, 1)
    states = [(one.report_id, one.state) for one in rows(site, db.delivery)]
    assert states == [(1, DeliveryState.REJECTED)] * 2 + [(2, DeliveryState.HELD)] * 2
    holds = rows(site, db.delivery)[-1].holds  # of a trial that releases by itself
    assert set(holds) == {"blinded", "phantom"}
    assert "QC phantom of scanner 0000309999" in holds["phantom"]
    assert any("QC phantom 2 days before: hold" in one for one in content["warnings"])
    assert folders(site) == ["v1", "v2"]


@pytest.mark.parametrize("where", ["built", "published"])
def test_kill_9_leaves_the_version_before_or_the_new_one_whole(site: Site, where: str) -> None:
    now = ask(site)
    config = str(site.settings.storage_dir.parent / "node.yaml")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIES, where, config, now.isoformat()]
    done = subprocess.run(command, env=environment, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    assert rows(site, tables.subject_report) == []
    assert rows(site, db.delivery) == []
    (due,) = rows(site, tables.report_due)
    assert due.attempts == 1
    forgive_attempts(site.database, now)  # the node starts again
    assert make_next(site.database, site.settings, now)
    (report,) = rows(site, tables.subject_report)
    assert folders(site) == ["v1"]  # and nothing of the attempt that died
    folder = site.settings.storage_dir / report.folder
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 6
    assert [one.path.startswith(report.folder) for one in rows(site, db.delivery)] == [True, True]


def test_what_cannot_be_made_is_tried_again_later_and_told(site: Site) -> None:
    plan = site.settings.storage_dir.parent / "trials" / "example.yaml"
    content = yaml.safe_load(plan.read_text()) | {"change": {"precision": "no-such-profile"}}
    with site.database.write() as connection:
        connection.execute(update(tables.trial).values(plan=yaml.safe_dump(content)))
    now = ask(site)
    assert make_next(site.database, site.settings, now)
    assert not make_next(site.database, site.settings, now + timedelta(seconds=30))  # not at once again
    (due,) = rows(site, tables.report_due)
    assert due.attempts == 1
    assert "no-such-profile" in due.error
    assert count_stuck(site.database, 2) == 0
    assert make_next(site.database, site.settings, now + timedelta(hours=5))
    assert count_stuck(site.database, 2) == 1
    ask(site, 60 * 24)  # asked for anew, it begins anew
    assert count_stuck(site.database, 2) == 0


def test_without_a_measured_visit_there_is_no_report(site: Site) -> None:
    with site.database.write() as connection:
        connection.execute(update(tables.visit).values(state="held", code="REVIEW_REQUIRED"))
    assert make_next(site.database, site.settings, ask(site))
    assert rows(site, tables.subject_report) == []
    assert rows(site, tables.report_due) == []


def test_on_demand_by_command(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(site.settings.storage_dir.parent / "node.yaml")
    out = tmp_path / "draft"
    assert main(["trial", "report", "01-007", "--config", config, "--out", str(out)]) == 0
    assert "DRAFT" in (out / "report.html").read_text()
    assert rows(site, tables.subject_report) == []
    assert main(["trial", "report", "01-007", "--config", config, "--out", str(out)]) == 2  # is not empty
    assert main(["trial", "report", "01-007", "--config", config]) == 0
    assert "version 1" in capsys.readouterr().out
    assert main(["trial", "report", "01-007", "--config", config]) == 0
    assert "nothing new" in capsys.readouterr().out
    assert main(["trial", "report", "01-999", "--config", config]) == 2
    assert "no subject '01-999'" in capsys.readouterr().err


def test_a_report_of_what_counts_no_more_waits_and_goes_when_it_counts_again(site: Site) -> None:
    """The only exam turned out to be another subject's: no newer version takes the report's place."""
    assert make_next(site.database, site.settings, ask(site))
    with site.database.write() as connection:
        connection.execute(update(db.delivery).values(holds=None, state=str(DeliveryState.WAITING)))
        connection.execute(update(tables.visit).values(state="held", code="IDENTITY_CONFLICT"))
    later = ask(site, 5)
    assert {one.state for one in rows(site, db.delivery)} == {DeliveryState.HELD}, "already while the new one is made"
    assert make_next(site.database, site.settings, later)
    assert {one.state for one in rows(site, db.delivery)} == {DeliveryState.HELD}
    signing = Signing("anna", "test", NOW, "I reviewed it", "a reason")
    with pytest.raises(CannotDecide, match="counts any more"):
        approve(site.database, Target("report", 1), signing)
    with site.database.write() as connection:
        connection.execute(update(tables.visit).values(state="measured", code=None))
    assert make_next(site.database, site.settings, ask(site, 10))
    assert len(rows(site, tables.subject_report)) == 1
    assert {one.state for one in rows(site, db.delivery)} == {DeliveryState.WAITING}


def test_a_report_that_was_overtaken_while_it_was_made_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now, write = ask(site), reporter._write

    def write_and_meanwhile(*arguments: Any) -> Any:
        made = write(*arguments)
        ask(site, 1)  # a visit is in doubt
        return made

    with site.database.write() as connection:
        connection.execute(update(tables.trial).values(unblinded_at=NOW))
    monkeypatch.setattr(reporter, "_write", write_and_meanwhile)
    assert make_next(site.database, site.settings, now)
    assert {one.state for one in rows(site, db.delivery)} == {DeliveryState.HELD}
    assert "visit" in rows(site, db.delivery)[0].holds
    nowhere = site.plan.model_copy(update={"destinations": ()})
    with site.database.write() as connection:
        settle_destinations_of_reports(connection, 1, nowhere)
    assert {"visit", "elsewhere"} <= set(rows(site, db.delivery)[0].holds)
    with site.database.write() as connection:
        settle_destinations_of_reports(connection, 1, site.plan)
    assert "elsewhere" not in rows(site, db.delivery)[0].holds
