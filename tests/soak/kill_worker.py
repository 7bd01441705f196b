"""The worker is killed (SIGKILL) at many points of the analysis: each job resumes, one result set arrives.

``python -m tests.soak.kill_worker --points 30``; with ``--real`` the real pipeline on simulated exams of one slice.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
from node_process import Node, destination
from peers import statuses, storescu, wait_until
from sqlalchemy import Row, select

from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam
from service import database as db
from service.database import Database, open_database
from tests.soak.campaign import Check, Options, Ticker, print_table
from tests.soak.light_analysis import STAGE_S, STAGES
from tests.soak.peers_of_soak import CountingArchive, write_small_exam

LIGHT = "tests.soak.light_analysis:analyse_in_stages"
REAL = "service.pipeline:analyse_job"
REAL_STAGES = ("segment", "check echoes", "fit native", "register", "fit registered", "measure", "write")
REAL_STAGE_S = 4.0


def run(options: Options) -> list[Check]:
    """Kill at ``options.points`` points: every stage in turn, after a random part of its time."""
    chance = random.Random(options.seed)
    is_real = options.analysis == REAL
    stages = (*(REAL_STAGES if is_real else STAGES), "publish")
    ticker = Ticker("kill-worker", every_s=0.0)
    archive = CountingArchive(options.folder)
    archive.start()
    settings = {"workers": 2 if is_real or options.points <= 5 else 4, "lease_s": 30, "retry_s": 1}
    node = Node(
        options.folder, REAL if is_real else LIGHT, destinations=[destination("archive", archive)], jobs=settings
    )
    hits: dict[str, int] = dict.fromkeys(stages, 0)
    slowest_s = 0.0
    end_s = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    try:
        node.start()
        database = open_database(node.settings)
        points = 0
        for point in range(options.points):
            if time.monotonic() > end_s:
                break
            points = point + 1
            stage = stages[point % len(stages)]
            within_s = chance.uniform(0, (REAL_STAGE_S if is_real else STAGE_S) if stage != "publish" else 0.05)
            _send(node, _exam(options.folder / f"exam-{point}", point, is_real=is_real))
            hit = _kill_at(node, database, point + 1, stage, within_s)
            start_s = time.monotonic()
            wait_until(lambda number=point + 1: _job(database, number).state == "done", "the job to be done", 600)
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            hits[stage] += hit
            ticker.tell(f"{point + 1} of {options.points}: {stage} + {within_s:.2f} s {'hit' if hit else 'too late'}")
        wait_until(lambda: _all_sent(database), "everything to be sent", 120)
        checks = _checks(database, node, archive, points, hits, slowest_s)
        database.close()
        return checks
    finally:
        node.__exit__()
        archive.stop()


def _send(node: Node, paths: list[Path]) -> None:
    answered = storescu(node.port, paths)
    assert statuses(answered) == ["Success"] * len(paths), answered.stdout + answered.stderr


def _exam(folder: Path, number: int, *, is_real: bool) -> list[Path]:
    if not is_real:
        return write_small_exam(folder, number)
    return write_exam(simulate_exam(number, protocol="t1rho-fse", n_slices=1, subject=f"S-{number}"), folder)


def _job(database: Database, number: int) -> "Row[Any]":
    with database.read() as connection:
        return connection.execute(select(db.job).where(db.job.c.id == number)).one()


def _kill_at(node: Node, database: Database, number: int, stage: str, within_s: float) -> bool:
    """Kill the worker of a job so long after it has come to a stage; False if the job was done before."""

    def reached() -> str | None:
        with database.read() as connection:
            row = connection.execute(select(db.job).where(db.job.c.id == number)).one_or_none()
        if row is not None and row.state == "done":
            return "done"
        return row.worker if row is not None and row.state == "running" and row.stage == stage else None

    deadline_s = time.monotonic() + 180
    while (worker := reached()) is None:
        if time.monotonic() > deadline_s:
            raise AssertionError(f"job {number} did not come to {stage!r}")
        time.sleep(0.005)
    if worker == "done":
        return False
    time.sleep(within_s)
    found = re.findall(rf" {worker}: worker waits for jobs pid=(\d+)", node.log)
    try:
        psutil.Process(int(found[-1])).kill()
    except psutil.NoSuchProcess:
        return False
    wait_until(lambda: f"child={worker} " in node.log, "the supervisor to notice", 30)
    return bool(_job(database, number).attempts > 1 or _job(database, number).state != "done")


def _all_sent(database: Database) -> bool:
    with database.read() as connection:
        return set(connection.execute(select(db.delivery.c.state)).scalars()) <= {"sent", "confirmed"}


def _checks(
    database: Database, node: Node, archive: CountingArchive, points: int, hits: dict[str, int], slowest_s: float
) -> list[Check]:
    with database.read() as connection:
        jobs = connection.execute(select(db.job)).all()
        uids = list(connection.execute(select(db.delivery.c.sop_uid)).scalars())
    kept = [one for one in (node.settings.storage_dir / "results").rglob("*") if one.is_dir() and _is_version(one)]
    leftovers = list((node.settings.storage_dir / "results").rglob(".attempts*"))
    twice = sum(count - 1 for count in archive.sent.values())
    n_hit = sum(hits.values())
    return [
        Check("points (hit before the job was done)", f"{points} ({n_hit})", ">= 4/5 hit", n_hit >= 0.8 * points),
        Check("stages hit", f"{sum(count > 0 for count in hits.values())} of {len(hits)}"),
        _equal("jobs done", sum(one.state == "done" for one in jobs), points),
        _equal("jobs tried twice", sum(one.attempts == 2 for one in jobs), n_hit),
        _equal("result folders", len(kept), points),
        _equal("folders of attempts left", len(leftovers), 0),
        _equal("objects at the archive that are not of a result", len(archive.uids ^ set(uids)), 0),
        _equal("objects sent twice", twice, 0),
        _equal("tracebacks in the log", node.log.count("Traceback"), 0),
        Check("longest from kill to done", f"{slowest_s:.1f} s"),
    ]


def _is_version(path: Path) -> bool:
    return bool(re.fullmatch(r"v\d+", path.name))


def _equal(what: str, found: int, wanted: int) -> Check:
    return Check(what, str(found), f"= {wanted}", found == wanted)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="no more points after so long")
    parser.add_argument("--real", action="store_true", help="the real pipeline: about a minute for each point")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        options = Options(
            Path(folder),
            minutes=chosen.minutes,
            points=chosen.points,
            seed=chosen.seed,
            analysis=REAL if chosen.real else LIGHT,
        )
        return 0 if print_table("worker killed", run(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
