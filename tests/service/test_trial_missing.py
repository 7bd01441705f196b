"""Visits that do not come are told once; held ones too; health and metrics know of both and of an edited plan."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from trial_site import DAY_ZERO, NOW, VERSIONS, Scan, Site, open_site

from service import database as node
from service import trial_tables as db
from service.health import Health
from service.incidents import Incidents
from service.metrics import _trials
from service.notify import NotificationDesk
from service.trials.desk import TrialDesk
from service.trials.watch import trials_check

BASELINE_DAY = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = open_site(tmp_path)
    yield opened
    opened.database.close()


def test_a_visit_that_does_not_come_is_told_once(site: Site) -> None:
    desk = NotificationDesk(site.settings)
    told: list[str] = []

    def look(now: datetime) -> list[str]:
        trials.sweep(now)
        with site.database.read() as connection:
            marks: dict[str, int] = {}
            found = incidents._of_trials(connection, marks)
        desk.add(found, now, marks)
        return [f"{one.event}: {one.text}" for one in found]

    incidents = Incidents(site.database, site.settings, lambda: Health(()), desk)
    trials = TrialDesk(site.database, site.settings)
    exam_id = site.add(Scan(visit="BL"))
    site.measure(exam_id)
    told += look(BASELINE_DAY)
    # M3 may be scanned until day 105 and is told from the eighth day after that
    told += look(BASELINE_DAY + timedelta(days=112))
    assert told == []
    missed = "visit_missed: trial DISC-1: 1 subjects did not come to M3 (discnode trial status)"
    assert look(BASELINE_DAY + timedelta(days=113)) == [missed]
    assert look(BASELINE_DAY + timedelta(days=114)) == []
    late = site.add(Scan(visit="M3", day=100))
    site.measure(late)
    trials.sweep(BASELINE_DAY + timedelta(days=115))
    (row,) = site.rows(db.missed_visit)
    assert (row.visit, row.due_until, row.resolved_at is None) == ("M3", DAY_ZERO + timedelta(days=105), False)
    assert "M6" in look(BASELINE_DAY + timedelta(days=300))[0]
    far = site.add(Scan(visit="M6", day=260))
    site.measure(far)
    held = "visit_held: trial DISC-1: 1 exams are held with REVIEW_REQUIRED (discnode trial status)"
    assert look(BASELINE_DAY + timedelta(days=301)) == [held]
    assert look(BASELINE_DAY + timedelta(days=302)) == []


def test_health_and_metrics_know_of_an_edited_plan_and_of_held_visits(site: Site) -> None:
    desk = TrialDesk(site.database, site.settings)
    site.measure(site.add(Scan(visit="BL")))
    site.measure(site.add(Scan(subject="?", visit="BL")))
    desk.sweep(NOW)
    check = trials_check(site.database, lambda: desk.problems)
    assert check() == ""
    with site.database.write() as connection:
        frozen = {"versions": VERSIONS, "plan_sha256": site.rows(db.trial)[0].plan_sha256}
        connection.execute(db.trial.update().values(freeze=frozen, frozen_at=NOW, frozen_by="anna"))
    site.write_plan(name="another")
    (site.plan_file.parent / "broken.yaml").write_text("protocol_id: X\nsites: 3\n")
    desk.sweep(NOW + timedelta(seconds=1))
    assert "PROTOCOL_DEVIATION: plan edited after freeze" in check()
    assert "broken.yaml" in check()
    with site.database.read() as connection:
        samples = {
            (one.name, tuple(one.labels.values())): one.value
            for family in _trials(connection)
            for one in family.samples
        }
    assert samples["discnode_trial_visits", ("DISC-1", "measured")] == 1
    assert samples["discnode_trial_held", ("DISC-1", "REVIEW_REQUIRED")] == 1
    assert samples["discnode_trial_plan_edited", ("DISC-1",)] == 1


def test_a_sweep_reads_only_what_is_new(site: Site) -> None:
    """What is asked of the database does not grow with the exams on record."""
    import sqlalchemy

    site.sweep()
    for number in range(12):
        site.measure(site.add(Scan(subject=f"01-{number:03d}", visit="BL", patient_id=f"H{number}")))
    desk = TrialDesk(site.database, site.settings)
    desk.sweep(NOW)
    asked: list[str] = []
    engine = site.database._engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    assert desk.sweep(NOW) == 0
    assert len(asked) < 12
    with site.database.read() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id FROM exam WHERE trial_seen IS NULL AND state NOT IN ('collecting', 'joined')"
        ).all()
        due = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id FROM trial_subject WHERE state = 'active' AND look_on <= '2026-01-01'"
        ).all()
    assert "exam_by_trial_news" in repr(plan)
    assert "trial_subject_by_look" in repr(due)
    assert len(site.rows(node.exam)) == 12
