"""Retention deletes what is done and delivered everywhere, and nothing else, whatever happens meanwhile."""

import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from desk import IDLE_S, Desk, open_desk
from records import NOW, later
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import select, update

from config.retention import Retention
from processing.refusal import Reason, ReasonCode
from processing.results import Verdict
from service import database as db
from service import jobs
from service.backup import files_named
from service.checks import comparison_check
from service.cli import main
from service.giving_up import give_up_destination
from service.outbox import Parcel
from service.quarantine import hold_exam
from service.reprocessing import CannotReprocess, Request, reprocess
from service.retention import Deletions, apply_retention, orphans
from service.states import DeliveryState

DAY_S = 86_400.0
MONTH = Retention(images_days=30, results_days=60)


@dataclass
class Site:
    """A desk with one exam that is analysed; its result has a file for each of two destinations."""

    desk: Desk
    images: list[Path]

    def analyse(self) -> None:
        job = jobs.claim(self.desk.database, "w", NOW, 60.0)
        assert job is not None
        folder = self.desk.settings.storage_dir / job.result_folder
        folder.mkdir(parents=True)
        (folder / "result.json").write_text('{"objects": []}')
        (folder / "seg.dcm").write_bytes(b"x" * 100)
        parcels = [
            Parcel(f"2.25.{job.version}", "seg", str(job.result_folder / "seg.dcm"), name) for name in ("near", "far")
        ]
        jobs.finish(self.desk.database, job, Verdict.OK, (), parcels, later(10))

    def deliver(self, *names: str) -> None:
        with self.desk.database.write() as connection:
            for name in names:
                sent = {"state": str(DeliveryState.CONFIRMED), "sent_at": later(20)}
                connection.execute(update(db.delivery).where(db.delivery.c.destination == name).values(**sent))

    def look(self, days: float, *, dry_run: bool = False, retention: Retention = MONTH) -> Deletions:
        return apply_retention(self.desk.database, retention, later(days * DAY_S), dry_run=dry_run)

    @property
    def n_files(self) -> int:
        return sum(path.is_file() for path in (self.desk.database.inbox_dir / "objects").rglob("*"))

    @property
    def states(self) -> list[str]:
        with self.desk.database.read() as connection:
            return sorted(set(connection.execute(select(db.instance.c.state)).scalars()))

    def result(self, version: int = 1) -> list[str]:
        folder = self.desk.settings.storage_dir / "results" / "exam-000001" / f"v{version}"
        return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_mapss(tmp_path_factory.mktemp("scan"), mapss_signal())


@pytest.fixture
def site(tmp_path: Path, images: list[Path]) -> Iterator[Site]:
    with open_desk(tmp_path) as desk:
        desk.arrive_all(images)
        desk.sweep(1)
        desk.sweep(300)
        made = Site(desk, images)
        made.analyse()
        yield made


def test_what_is_done_and_delivered_goes_after_its_days(site: Site) -> None:
    site.deliver("near", "far")
    assert site.look(29).study_uids == []
    foretold = site.look(31, dry_run=True)
    assert (foretold.n_images, foretold.n_results, site.n_files) == (28, 0, 28)
    done = site.look(31)
    assert (done.n_images, done.n_results, done.n_bytes) == (28, 0, foretold.n_bytes)
    assert done.study_uids == [site.desk.exam.study_uid]
    assert (site.n_files, site.states, site.result()) == (0, ["deleted"], ["result.json", "seg.dcm"])
    assert site.look(59).study_uids == []
    assert (site.look(61, dry_run=True).n_results, site.result()) == (1, ["result.json", "seg.dcm"])
    done = site.look(61)
    assert (done.n_images, done.n_results, done.n_bytes) == (0, 1, 100)
    assert site.result() == ["result.json"]
    assert site.look(90) == Deletions()
    assert list(files_named(site.desk.settings.storage_dir / "discnode.sqlite")) == []  # a backup misses nothing


def test_who_has_files_deleted_stands_in_the_trail(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person deleted by the command was put down to the node; and a name in the environment is nobody's."""
    site.deliver("near", "far")
    monkeypatch.setenv("LOGNAME", "somebody.else")
    content = {"storage_dir": str(site.desk.settings.storage_dir), "retention": {"images_days": 0}}
    (tmp_path / "node.yaml").write_text(json.dumps(content))
    assert main(["retention", "--config", str(tmp_path / "node.yaml")]) == 0
    assert site.n_files == 0
    with site.desk.database.read() as connection:
        queued = [json.loads(one) for one in connection.execute(select(db.audit_queue.c.event)).scalars()]
    name = pwd.getpwuid(os.getuid()).pw_name
    assert [one["by"] for one in queued if one["kind"] == "deleted"] == [name]


def test_by_default_everything_is_kept(site: Site) -> None:
    site.deliver("near", "far")
    assert site.look(10_000, retention=Retention()) == Deletions()
    assert site.n_files == 28


def test_what_one_destination_does_not_have_is_kept(site: Site) -> None:
    site.deliver("near")
    assert site.look(1000).kept == {"is not delivered everywhere": 1}
    assert site.n_files == 28


def test_what_a_destination_seems_to_have_lost_is_not_deleted_here_too(site: Site) -> None:
    """Confirmed once, and gone there since: it was held back for a person to decide, and deleted here meanwhile."""
    site.deliver("near", "far")

    def compared(n_compared: int, *, held_back: bool) -> None:
        values = {"destination": "far", "started_at": NOW, "finished_at": NOW, "n_there": 0}
        values |= {"n_compared": n_compared, "details": {"held_back": held_back}}
        with site.desk.database.write() as connection:
            connection.execute(db.reconciliation.insert().values(**values))

    check = comparison_check(site.desk.database)
    assert check() == ""
    compared(30, held_back=True)
    compared(2, held_back=False)  # of the last day alone: it says nothing about the others
    assert site.look(1000).kept == {"may be gone from a destination: see 'discnode reconcile'": 1}
    assert site.n_files == 28
    assert "--send-many" in check()
    compared(20, held_back=False)
    assert check() == ""
    assert site.look(1000).n_images == 28


def test_what_was_sent_nowhere_is_kept(site: Site) -> None:
    with site.desk.database.write() as connection:
        connection.execute(db.delivery.delete())
    assert site.look(1000).kept == {"was sent nowhere": 1}


def test_what_was_given_up_for_one_destination_is_deleted_only_if_another_has_it(site: Site) -> None:
    give_up_destination(site.desk.database, "far", {"near"}, "switched off", "anna", NOW)
    assert site.look(1000).kept == {"is not delivered everywhere": 1}
    site.deliver("near")
    assert site.look(1000, dry_run=True).n_images == 28
    with site.desk.database.write() as connection:
        connection.execute(db.delivery.delete().where(db.delivery.c.destination == "near"))
    assert site.look(1000).kept == {"has results that were given up, and are nowhere else": 1}
    assert site.n_files == 28


def test_the_last_version_stays_until_its_successor_is_delivered(site: Site) -> None:
    site.deliver("near", "far")
    (job,) = site.desk.jobs
    reprocess(site.desk.database, job.id, Request("a newer model", "ann"))
    assert site.look(1000) == Deletions()  # the exam is queued
    site.analyse()
    assert site.look(1000).kept == {"is not delivered everywhere": 1}
    assert site.result(1) == ["result.json", "seg.dcm"]
    site.deliver("near", "far")
    assert site.look(1000).n_results == 2


def test_what_is_held_or_parked_is_kept(site: Site) -> None:
    site.deliver("near", "far")
    with site.desk.database.write() as connection:
        hold_exam(connection, 1, Reason(ReasonCode.INSTANCE_CONFLICT, "two contents"), NOW)
    assert site.look(1000).kept == {"has an open case": 1}
    with site.desk.database.write() as connection:
        connection.execute(update(db.quarantine).values(state="resolved"))
        connection.execute(update(db.instance).where(db.instance.c.id == 3).values(state="held"))
    assert site.look(1000).kept == {"has objects that are held or not yet judged": 1}
    with site.desk.database.write() as connection:
        connection.execute(update(db.instance).values(state="indexed"))
        connection.execute(update(db.job).values(state="failed"))
    assert site.look(1000).kept == {"has a job that is not done": 1}
    assert site.n_files == 28


def test_a_kill_in_between_is_made_good_by_the_next_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.deliver("near", "far")
    unlink = Path.unlink
    count = iter(range(100))

    def die(path: Path, missing_ok: bool = False) -> None:
        if next(count) == 5:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            site.look(1000)
    assert (site.n_files, site.states) == (23, ["deleting"])
    assert site.look(1000).n_images == 28
    assert (site.n_files, site.states) == (0, ["deleted"])


def test_an_image_that_comes_again_is_taken_up_again(site: Site) -> None:
    """Its row is there, but its file is gone: it was answered with Success and its new file belonged to nothing."""
    site.deliver("near", "far")
    site.look(1000)
    site.desk.arrive_all(site.images, 1001 * DAY_S)
    assert site.n_files == 28
    assert site.states == ["received"]
    site.desk.sweep(1001 * DAY_S + 1)
    site.desk.sweep(1001 * DAY_S + 300)
    assert site.states == ["indexed"]
    assert site.desk.exam.state == "analysed"
    assert len(site.desk.jobs) == 1


def test_a_part_of_deleted_images_makes_no_result_that_replaces_that_of_all(tmp_path: Path) -> None:
    """Nothing announced how many there are: of five slices sent again four were measured anew, as the newer result."""
    (tmp_path / "scan").mkdir()
    paths = write_mapss(tmp_path / "scan", mapss_signal(5), ImagesInAcquisition=None)
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}) as desk:
        desk.arrive_all(paths)
        desk.sweep(IDLE_S)
        site = Site(desk, paths)
        site.analyse()
        site.deliver("near", "far")
        assert site.look(1000).n_images == 35
        edge = [path for path in paths if path.name.endswith("-4")]
        desk.arrive_all([path for path in paths if path not in edge], 1001 * DAY_S)
        desk.sweep(1001 * DAY_S + IDLE_S)
        assert (len(desk.jobs), desk.exam.state) == (1, "incomplete")
        assert "7 images of the newest result were deleted by retention" in desk.exam.detail
        desk.arrive_all(edge, 1001 * DAY_S + 100)
        desk.sweep(1001 * DAY_S + 100 + IDLE_S)
        assert (len(desk.jobs), desk.exam.state) == (1, "analysed")


def test_an_image_deleted_at_the_moment_it_comes_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.deliver("near", "far")
    store = site.desk.inbox.store

    def overtaken(parts: Any) -> Any:
        found = store(parts)  # the file is there and is not written anew
        site.look(1000)
        return found

    monkeypatch.setattr(site.desk.inbox, "store", overtaken)
    with pytest.raises(OSError, match="deleted by retention"):
        site.desk.arrive(site.images[0])


def test_an_analysis_is_not_made_anew_without_its_images(site: Site) -> None:
    site.deliver("near", "far")
    site.look(1000)
    with pytest.raises(CannotReprocess, match="28 of the 28 files"):
        reprocess(site.desk.database, site.desk.jobs[0].id, Request("a newer model", "ann"))


def test_a_file_that_nothing_names_is_told_and_stays(site: Site) -> None:
    lost = site.desk.database.inbox_dir / "objects" / "00" / "lost.dcm"
    lost.write_bytes(b"1234")
    assert list(orphans(site.desk.database)) == []
    os.utime(lost, (1, 1))
    assert list(orphans(site.desk.database)) == [(lost, 4)]
    site.deliver("near", "far")
    site.look(1000)
    assert lost.exists()
