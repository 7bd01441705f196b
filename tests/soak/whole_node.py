"""Thousands of small exams through a real node, with faults: nothing lost, everything once, nothing leaks.

First third: the receiver, a worker, the node are killed, the node is restarted, the disk is full to the last block
(where a file system can be mounted), the archive goes away, senders abort in mid-object. Then only the latter two, and
the node's memory, threads, files and refusals are watched.
"""

import queue
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from node_process import Node, destination
from peers import wait_until
from sqlalchemy import func, select

from service import database as db
from service.database import open_database
from service.delivery import send_now
from tests.soak.beside import Faults, Sample, Tally, Watch, sample
from tests.soak.campaign import Check, Options, Ticker
from tests.soak.own_disk import Disk, NoDisk
from tests.soak.peers_of_soak import N_IMAGES, CountingArchive, Dcmsend, abort_in_an_object, study_uid, write_small_exam

SCANNERS = 2
OBJECTS = 2  # that the light analysis makes of an exam
FEW_ASSOCIATIONS = 400  # too few to tell a leak from noise


def run(options: Options) -> list[Check]:
    """The campaign; ``options.exams`` exams, or as many as fit in ``options.minutes``."""
    archive = CountingArchive(options.folder)
    archive.start()
    disk, no_disk = _open_disk(options)
    storage = {} if disk is None else {"storage_dir": str(disk.mount_point / "node")}
    node = Node(
        options.folder,
        options.analysis,
        **storage,
        reception={"full_mb": 0, "closed_mb": 0},  # the disk is full when it is
        destinations=[destination("archive", archive)],
        completion={"idle_s": 30, "sweep_s": 0.2},
        jobs={"lease_s": 20, "retry_s": 1},
        delivery={"first_retry_s": 0.5, "longest_retry_s": 20, "timeout_s": 5},
    )
    tally, ticker, samples = Tally(), Ticker("soak"), list[Sample]()
    started_s = time.monotonic()
    try:
        node.start()
        third = 0 if options.steady else options.exams // 3
        budget_s = None if options.minutes is None else options.minutes * 30.0
        n = _send(
            node, options, tally, ticker, range(third), budget_s, Faults(node, archive, disk, tally, options.seed)
        )
        if disk is not None:
            disk.empty()
        archive.restart()
        _settle(node, tally, n, ticker)
        tally.is_disturbed = False
        samples.append(sample(node, tally))
        rest = range(third, third + options.exams - third)
        n_rest = _send(node, options, tally, ticker, rest, budget_s, Watch(node, archive, tally, samples))
        archive.restart()
        _settle(node, tally, n + n_rest, ticker)
        after = sample(node, tally)
        numbers = [*range(n), *range(third, third + n_rest)]
        checks = _checks(node, archive, tally, numbers)
        seconds = time.monotonic() - started_s
        return [*checks, *no_disk, *_leaks(samples, after), _rate(len(numbers), seconds, tally)]
    finally:
        node.__exit__()
        archive.stop()
        if disk is not None:
            disk.unmount()


def _open_disk(options: Options) -> tuple[Disk | None, list[Check]]:
    """A file system for the node, where one can be had and is wanted; else why not."""
    if options.steady:
        return None, []
    try:
        return Disk(options.folder, 500 + options.exams // 4), []
    except NoDisk as reason:
        return None, [Check("full disk", f"not tried: {reason}")]


# --- senders ----------------------------------------------------------------------------------------------------------


def _send(
    node: Node,
    options: Options,
    tally: Tally,
    ticker: Ticker,
    numbers: range,
    budget_s: float | None,
    beside: Callable[[], None],
) -> int:
    """Send exams from several scanners at once, calling ``beside`` again and again; returns how many were sent."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        waiting.put(number)
    end_s = None if budget_s is None else time.monotonic() + budget_s
    failures: list[BaseException] = []

    def scan() -> None:
        chance = random.Random(f"{options.seed} {threading.current_thread().name}")
        try:
            while not failures and (end_s is None or time.monotonic() < end_s):
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                _send_exam(node, options, tally, number, chance)
        except BaseException as error:
            failures.append(error)
            raise

    scanners = [threading.Thread(target=scan, name=f"scanner {index}") for index in range(SCANNERS)]
    for scanner in scanners:
        scanner.start()
    while any(scanner.is_alive() for scanner in scanners):
        beside()
        ticker.tell(f"{len(tally.acknowledged)} images acknowledged, faults {dict(tally.faults)}")
        time.sleep(0.2)
    if failures:
        raise failures[0]
    return len(numbers) - waiting.qsize()


def _send_exam(node: Node, options: Options, tally: Tally, number: int, chance: random.Random) -> None:
    """As a scanner does: what was not answered with Success is sent again, until all of it was."""
    folder = options.folder / "scanner" / str(number)
    paths = write_small_exam(folder, number)
    if chance.random() < 0.1:
        abort_in_an_object(node.port)
        with tally.lock:
            tally.aborted += 1
            tally.associations += 1
    missing = {f"{study_uid(number)}.1.{index + 1}": path for index, path in enumerate(paths)}
    give_up_s = time.monotonic() + 300
    while missing:
        assert time.monotonic() < give_up_s, f"exam {number} is not taken"
        taken = Dcmsend(node.port, sorted(missing.values()), folder / "report.txt").wait()
        with tally.lock:
            tally.associations += 1
            tally.acknowledged |= taken
            if not tally.is_disturbed:
                tally.undisturbed += 1
                tally.unexpected += taken != set(missing)
        missing = {uid: path for uid, path in missing.items() if uid not in taken}
        if missing:
            time.sleep(0.5)
    shutil.rmtree(folder)


def _settle(node: Node, tally: Tally, n_exams: int, ticker: Ticker) -> None:
    """Wait until every exam is analysed and delivered."""
    database = open_database(node.settings)

    def n_sent() -> int:
        with database.read() as connection:
            states = [str(state) for state in connection.execute(select(db.delivery.c.state)).scalars()]
        n = sum(state in ("sent", "confirmed") for state in states)
        ticker.tell(f"waiting for deliveries: {n} of {OBJECTS * n_exams}")
        return n

    send_now(database, "archive", _now())
    wait_until(lambda: n_sent() >= OBJECTS * n_exams, "every result to be delivered", 120 + 2 * n_exams)
    database.close()
    time.sleep(3.0)


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


# --- judgement --------------------------------------------------------------------------------------------------------


def _checks(node: Node, archive: CountingArchive, tally: Tally, numbers: list[int]) -> list[Check]:
    database = open_database(node.settings)
    with database.read() as connection:
        rows = connection.execute(select(db.instance.c.sop_uid, db.instance.c.path)).all()
        jobs = Counter(connection.execute(select(db.job.c.state)).scalars())
        n_cases = connection.execute(
            select(func.count()).select_from(db.quarantine).where(db.quarantine.c.state == "held")
        ).scalar_one()
        results = set(connection.execute(select(db.delivery.c.sop_uid)).scalars())
        studies = len(set(connection.execute(select(db.exam.c.study_uid)).scalars()))
    database.close()
    indexed = {row.sop_uid: database.inbox_dir / row.path for row in rows}
    lost = tally.acknowledged - set(indexed)
    spoilt = [uid for uid in tally.acknowledged & set(indexed) if not _is_as_sent(uid, indexed[uid])]
    kills = sum(tally.faults[name] for name in ("node", "restart", "archive"))
    more = sum(count - 1 for count in archive.sent.values())
    n_failed = len(numbers) - jobs["done"]
    return [
        Check("exams, images acknowledged", f"{len(numbers)}, {len(tally.acknowledged)}"),
        Check("faults", ", ".join(f"{name} {count}" for name, count in sorted(tally.faults.items()))),
        Check("associations, of them aborted in mid-object", f"{tally.associations}, {tally.aborted}"),
        _none("acknowledged images lost", len(lost)),
        _none("acknowledged images changed", len(spoilt)),
        _equal("images on record", len(indexed), N_IMAGES * len(numbers)),
        _equal("exams on record", studies, len(numbers)),
        _equal("analyses", sum(jobs.values()), len(numbers)),
        Check("exams without result", str(n_failed), "< 0.1 %", n_failed < 0.001 * len(numbers)),
        _none("open cases", int(n_cases)),
        _equal("objects at the archive", len(archive.uids), OBJECTS * len(numbers)),
        _none("of them not of a result, or missing", len(archive.uids ^ results)),
        Check("objects sent more than once", str(more), f"<= {kills} (one in flight)", more <= kills),
        Check(
            "failed associations while the node was left alone",
            f"{tally.unexpected} of {tally.undisturbed}",
            "< 0.1 %",
            tally.unexpected < 0.001 * tally.undisturbed,
        ),
        _none("tracebacks in the log", node.log.count("Traceback")),
    ]


def _is_as_sent(uid: str, path: Any) -> bool:
    number, index = int(uid.split(".")[-3]), int(uid.split(".")[-1]) - 1
    sent = (np.arange(30).reshape(6, 5) * 7 + number + 100 * index).astype(np.uint16)
    return bool(pydicom.dcmread(path).PixelData == sent.tobytes())


def _leaks(samples: list[Sample], after: Sample) -> list[Check]:
    """What grows while the node is left alone; not in the first third: caches and pools fill after a restart."""
    used = samples[len(samples) // 3 :]
    n = used[-1].associations - used[0].associations
    is_told = n >= FEW_ASSOCIATIONS
    early, late = used[: (len(used) + 1) // 2], [*used[len(used) // 2 :], after]
    checks = [
        _growth(name, n, [one.associations for one in used], [of(one) for one in used])
        for name, of in (("node", lambda one: one.node_mb), ("receiver", lambda one: one.receiver_mb))
    ]
    for name, most, of in (("threads", 2, lambda one: one.threads), ("open files", 3, lambda one: one.files)):
        before, then = max(map(of, early)), max(map(of, late))
        is_well = then <= before + most if is_told else None
        checks.append(Check(f"most {name}, second half", f"{before} -> {then}", f"+{most}", is_well))
    return checks


def _growth(name: str, n: int, associations: list[int], mb: list[float]) -> Check:
    slope = 1000.0 * float(np.polyfit(associations, mb, 1)[0]) if n > 0 else float("nan")
    is_told = n >= FEW_ASSOCIATIONS
    return Check(
        f"memory of the {name} over associations, after its warm-up",
        f"{slope:+.2f} MB per 1,000 ({n} of them; {mb[0]:.0f} to {mb[-1]:.0f} MB)",
        "< 1 MB" if is_told else f"< 1 MB, from {FEW_ASSOCIATIONS} on",
        slope < 1.0 if is_told else None,
    )


def _rate(n_exams: int, seconds: float, tally: Tally) -> Check:
    return Check("time", f"{seconds:.0f} s; {n_exams / seconds:.2f} exams a second")


def _none(what: str, found: int) -> Check:
    return _equal(what, found, 0)


def _equal(what: str, found: int, wanted: int) -> Check:
    return Check(what, str(found), f"= {wanted}", found == wanted)
