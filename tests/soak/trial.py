"""A whole simulated trial through a real node: C-STORE in, people's words by command, Orthanc as archive, verdicts out.

Every exam is sent by an association of its own, in the order in which it would arrive. What people must do is done with
the commands that they have. Then what the node says of each visit is held against what it must say.
"""

import contextlib
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_process import Node, destination
from peers import Orthanc, Storescp, storescu, wait_until
from sqlalchemy import func, select

import config
from service import database as db
from service import trial_tables as trials
from service.cli import main as discnode
from service.database import open_database
from service.trials.simulation.folder import Size, write_trial
from tests.soak.campaign import Check, Options, Ticker
from tests.soak.trial_verdicts import (
    Found,
    Line,
    checks_of,
    print_lines,
    read_expected,
    read_histories,
    read_scans,
    states_of,
    table_of,
    write_table,
)

ANALYSIS = "tests.soak.remembered_analysis:analyse"
BY = "coordinator"

#: Registration ends earlier than usual: on an exam of four slices the means of nuclei moved by < 0.3 %, Dice from
#: above 0.996 to above 0.995, and a disc cost 3.6 s in place of 7.5 s.
_ITERATIONS = {"affine_3d.txt": 60, "bspline_fast_3d.txt": 20}

_BUSY = ("collecting", "queued")


@dataclass(frozen=True)
class Outcome:
    """What a campaign found."""

    lines: list[Line]
    checks: list[Check]


def run(options: Options) -> list[Check]:
    """The campaign; ``options.subjects`` subjects."""
    os.environ.setdefault("DISCNODE_REMEMBERED", str(options.folder / "remembered"))
    folder = options.folder / "trial"
    started_s = time.monotonic()
    write_trial(folder, options.subjects, options.seed, Size(n_slices=3), tell=lambda *_: None)
    simulated_s = time.monotonic() - started_s
    archive = Orthanc(options.folder / "orthanc")
    parameters = options.folder / "elastix"
    shorten(parameters)
    node = trial_node(
        folder,
        archive,
        ANALYSIS,
        registration={"parameters_dir": str(parameters), "processes": 1},
        jobs={"lease_s": 60, "workers": 2},
    )
    with archive:
        try:
            node.start()
            outcome = Campaign(folder, node, Ticker("trial"), patience_s=200.0).run()
        finally:
            node.__exit__()
        kept = sorted(archive.get("/instances?expand"), key=lambda one: str(one["ID"]))
    print()
    print_lines(outcome.lines)
    seconds = time.monotonic() - started_s
    return [
        *outcome.checks,
        Check("objects at the archive", str(len(kept))),
        Check("tracebacks in the log", str(node.log.count("Traceback")), "= 0", node.log.count("Traceback") == 0),
        Check("time, of it simulating the exams", f"{seconds:.0f} s, {simulated_s:.0f} s"),
    ]


def shorten(folder: Path) -> None:
    """elastix' parameters with fewer iterations, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, iterations in _ITERATIONS.items():
        text = (Path(config.__file__).parent / "elastix" / name).read_text(encoding="utf-8")
        short, n = re.subn(r"\(MaximumNumberOfIterations \d+\)", f"(MaximumNumberOfIterations {iterations})", text)
        assert n == 1
        (folder / name).write_text(short, encoding="utf-8")


def trial_node(folder: Path, archive: Orthanc | Storescp, analysis: str, **settings: Any) -> Node:
    """The node of a simulated trial in ``folder``, which sends to ``archive``."""
    usual = {
        "trials_dir": str(folder / "trials"),
        "protocols_dir": str(folder / "protocols"),
        "destinations": [destination("archive", archive)],
        "completion": {"idle_s": 5, "sweep_s": 0.2},
    }
    return Node(folder, analysis, **(usual | settings))


class Campaign:
    """One run over the trial in ``folder``, whose node is running.

    ``patience_s``: for one exam to be measured. ``with_reports``: wait for them and look at them, too.
    """

    def __init__(
        self, folder: Path, node: Node, ticker: Ticker, *, patience_s: float, with_reports: bool = True
    ) -> None:
        self.folder, self.node, self._ticker, self._patience_s = folder, node, ticker, patience_s
        self._with_reports = with_reports
        self.scans, self.expected = read_scans(folder), read_expected(folder)
        self._database = open_database(node.settings)

    def run(self) -> Outcome:
        """Import, send, wait, act, release, compare."""
        self.command("trial", "subjects", "import", str(self.folder / "subjects.csv"), "--by", BY)
        for scan in self.scans:
            self.send(scan)
        self.await_exams()
        first = states_of(self._database, self.scans)
        self.let_people_act()
        self.await_exams()
        last = states_of(self._database, self.scans)
        if self._with_reports:
            self.await_reports()
        released = self.release_all()
        histories = read_histories(self._database, self.node.settings)
        lines = table_of(self.expected, first, last, histories)
        write_table(lines, self.folder / "verdicts.csv")
        checks = [*checks_of(lines, histories), *released, *self._sent(first, last)]
        checks += self._reports() if self._with_reports else ()
        self._database.close()
        return Outcome(lines, checks)

    # --- what senders and people do -----------------------------------------------------------------------------------

    def send(self, scan: dict[str, str]) -> None:
        """One association for an exam, or as often as it is sent."""
        files = sorted((self.folder / scan["folder"]).rglob("*.dcm"))
        for _ in range(int(scan["times_sent"])):
            result = storescu(self.node.port, files)
            assert result.returncode == 0, f"{scan['folder']}: {result.stderr[-400:]}"
        self._ticker.tell(f"sent {scan['arrives']} of {len(self.scans)}")

    def command(self, *arguments: str) -> str:
        """A command of a person; what it wrote."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = discnode([*arguments, "--config", str(self.node.config)])
        assert status == 0, f"discnode {' '.join(arguments)}: {status} {out.getvalue()} {err.getvalue()}"
        return out.getvalue()

    def let_people_act(self) -> None:
        """What expected.csv says that a person does; and levels are confirmed for everybody else."""
        acts: dict[str, Callable[[dict[str, str]], None]] = {
            "name L4L5": self._name_levels,
            "accept": lambda one: self._on_exam("accept", one, "the site scanned with another table once"),
            "set aside": lambda one: self._on_exam("set-aside", one, "of another person, who is no subject"),
            "not evaluable": self._not_evaluable,
        }
        done = set()
        for one in self.expected:
            key = (one["subject"], one["visit"])
            if one["person"] and key not in done:
                acts[one["person"]](one)
                done.add(key)
        named = {one["subject"] for one in self.expected if one["person"] == "name L4L5"}
        self.await_exams()
        for subject in sorted({one["subject"] for one in self.expected if one["level"]}):
            lowest = "L4L5" if subject in named else "L5S1"
            self.command("trial", "subjects", "confirm-levels", subject, "--lowest-disc", lowest, "--by", BY)

    def _name_levels(self, one: dict[str, str]) -> None:
        """The exam was refused: a person counts the vertebrae in a picture that shows more of the spine."""
        exam_id = self._exam_of(one)
        with self._database.read() as connection:
            newest = select(func.max(db.job.c.id)).where(db.job.c.exam_id == exam_id)
            job = connection.execute(newest).scalar_one()
        self.command("jobs", "retry", str(job), "--lowest-disc", "L4L5")

    def _on_exam(self, action: str, one: dict[str, str], reason: str) -> None:
        self.command("trial", "visits", action, str(self._exam_of(one)), "--by", BY, "--reason", reason)

    def _not_evaluable(self, one: dict[str, str]) -> None:
        signed = ("--by", BY, "--reason", "operated on")
        where = (one["subject"], one["level"], "--from", one["visit"])
        self.command("trial", "subjects", "not-evaluable", *where, *signed)

    def _exam_of(self, one: dict[str, str]) -> int:
        study = next(
            scan["study_uid"]
            for scan in self.scans
            if (scan["subject"], scan["visit"]) == (one["subject"], one["visit"])
        )
        with self._database.read() as connection:
            return int(connection.execute(select(db.exam.c.id).where(db.exam.c.study_uid == study)).scalar_one())

    def release_all(self) -> list[Check]:
        """Approve everything that waits for a signature and may have one."""
        held = json.loads(self.command("release", "list", "--json"))
        approved, refused = 0, Counter[str]()
        for item in held:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                arguments = ["release", "approve", item["target"], "--by", "reviewer", "--meaning", "I looked at it"]
                arguments += ["--reason", "its deviations do not touch the images"]
                status = discnode([*arguments, "--config", str(self.node.config)])
            if status == 0:
                approved += 1
            else:
                refused[item["visit"]] += 1
        return [Check("results and reports approved by a person, not approvable", f"{approved}, {refused.total()}")]

    # --- waiting ------------------------------------------------------------------------------------------------------

    def await_exams(self) -> None:
        """Until every exam is measured, held or refused, and the desk has looked at each."""

        def n_open() -> int:
            table = db.exam
            with self._database.read() as connection:
                n_known = connection.execute(select(func.count()).select_from(table)).scalar_one()
                busy = table.c.state.in_(_BUSY) | table.c.has_news.is_(True) | table.c.trial_seen.is_not(True)
                n_busy = connection.execute(select(func.count()).select_from(table).where(busy)).scalar_one()
            self._ticker.tell(f"{n_known} exams, {n_busy} of them not settled")
            return int(n_busy + len(self.scans) - n_known)

        wait_until(lambda: n_open() == 0, "every exam to be settled", 60 + self._patience_s * len(self.scans))

    def await_reports(self) -> None:
        """Until no report is due."""
        table = trials.report_due

        def n_due() -> int:
            with self._database.read() as connection:
                n = int(connection.execute(select(func.count()).select_from(table)).scalar_one())
            self._ticker.tell(f"{n} reports due")
            return n

        wait_until(lambda: n_due() == 0, "every report to be made", 120 + 60 * len(self.expected))

    # --- judgement ----------------------------------------------------------------------------------------------------

    def _reports(self) -> Iterator[Check]:
        """Who must have a report has one; what was held has none of it."""
        measured = {one["subject"] for one in self.expected if one["state"] == "measured"}
        report, subject = trials.subject_report, trials.subject
        query = select(subject.c.subject_id, func.count()).join(report, report.c.subject_id == subject.c.id)
        with self._database.read() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query.group_by(subject.c.subject_id))}
        lacking = measured - found.keys()
        yield Check("subjects with a report", f"{len(found)} of {len(measured)}", "all", not lacking)
        needless = found.keys() - measured
        yield Check("subjects with a report who must have none", str(len(needless)), "= 0", not needless)
        yield Check("versions of reports", str(sum(found.values())))

    def _sent(self, first: dict[tuple[str, str], Found], last: dict[tuple[str, str], Found]) -> Iterator[Check]:
        """Nothing of an exam that never counted has left."""
        closed = {key for key, one in last.items() if one.state != "measured" and first[key].state != "measured"}
        studies = {scan["study_uid"] for scan in self.scans if (scan["subject"], scan["visit"]) in closed}
        query = (
            select(func.count())
            .select_from(db.delivery)
            .join(db.job, db.job.c.id == db.delivery.c.job_id)
            .join(db.exam, db.exam.c.id == db.job.c.exam_id)
            .where(db.exam.c.study_uid.in_(studies), db.delivery.c.state.in_(("sent", "confirmed")))
        )
        with self._database.read() as connection:
            n = int(connection.execute(query).scalar_one())
        yield Check("objects sent of exams that are held, refused or set aside", str(n), "= 0", n == 0)
