"""The node is killed again and again while it receives and delivers: its audit trail is whole and says each thing once.

``python -m tests.soak.kill_audit [--kills 20] [--seed 1]``
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from xml.etree import ElementTree

from node_process import Node, destination
from peers import Storescp, storescu, wait_until
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import func, select

from service import audit_chain, exams
from service import database as db
from service.audit_trail import noted_head
from service.database import Database
from service.delivery import list_deliveries


class Check(NamedTuple):
    """One line of the summary. ``ok`` None: a figure without a limit."""

    what: str
    found: str
    limit: str = ""
    ok: bool | None = None


def run(options: Any) -> list[Check]:
    """Send exams from two senders all the while, kill -9 the node at random moments, and read the trail.

    ``options``: with ``folder``, ``points`` (how often to kill) and ``seed``.
    """
    folder, kills, chance = options.folder, options.points, random.Random(options.seed)
    with Storescp(folder / "archive") as archive:
        node = Node(folder, destinations=[destination("archive", archive)])
        stop, paused = threading.Event(), threading.Event()
        senders = [threading.Thread(target=_send, args=(node, folder, name, stop, paused)) for name in ("A", "B")]
        node.start()
        for sender in senders:
            sender.start()
        for kill in range(kills):
            time.sleep(chance.uniform(0.5, 6.0))
            node.kill()
            node.start()
            sys.stderr.write(f"kill-audit: {kill + 1} of {kills} kills\n")
        stop.set()
        for sender in senders:
            sender.join()
        wait_until(lambda: all(one.state == "analysed" for one in node.ask(exams.list_exams)), "the exams", 300)
        wait_until(lambda: all(one.state == "sent" for one in node.ask(list_deliveries)), "deliveries", 300)
        status = node.stop()
        return [_equal("exit status", status, 0), *_judge(node, kills)]


def _send(node: Node, folder: Path, name: str, stop: threading.Event, paused: threading.Event) -> None:
    """Exams one after the other; one that was cut short is sent again."""
    number = 0
    while not stop.is_set():
        number += 1
        source = folder / f"exam-{name}-{number}"
        source.mkdir()
        study = f"1.2.{ord(name)}.{number}"
        images = write_mapss(source, mapss_signal(), StudyInstanceUID=study, PatientID=f"P{name}{number}")
        for image in images:
            _make_unique(image, study)
        for _ in range(200):
            if storescu(node.port, images, calling=f"SCANNER_{name}").returncode == 0:
                break
            paused.wait(0.5)


def _make_unique(path: Path, study: str) -> None:
    import pydicom

    image = pydicom.dcmread(path)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{study}.{image.SOPInstanceUID}"[:64]
    image.SeriesInstanceUID = f"{study}.1"
    image.save_as(path)


def _judge(node: Node, kills: int) -> list[Check]:
    folder = node.settings.storage_dir / "audit"
    kinds: Counter[str] = Counter()
    moved: dict[tuple[str, str], Counter[str]] = {}
    for line in audit_chain.read_lines(folder):
        kinds[line.kind] += 1
        if line.kind in ("received", "sent"):
            root = ElementTree.fromstring(line.message)
            event = root.find("EventIdentification/EventID")
            study = root.find("ParticipantObjectIdentification")
            assert event is not None
            assert study is not None
            number = sum(int(one.get("NumberOfInstances", "0")) for one in root.iter("SOPClass"))
            key = line.kind, "begin" if event.get("csd-code") == "110102" else "end"
            moved.setdefault(key, Counter())[study.get("ParticipantObjectID", "")] += number
    verified = audit_chain.verify(folder, node.ask(noted_head))
    arrived, delivered = node.ask(_arrived), node.ask(_delivered)
    return [
        _equal("lines, chain whole", verified.head.number, sum(kinds.values())),
        _equal("starts told", kinds["started"], kills + 1),
        _equal("stops told", kinds["stopped"], 1),
        Check("objects received", str(sum(arrived.values()))),
        _equal("studies whose receptions (begin) differ", _differing(moved["received", "begin"], arrived), 0),
        _equal("studies whose receptions (end) differ", _differing(moved["received", "end"], arrived), 0),
        Check("objects delivered", str(sum(delivered.values()))),
        _equal("studies whose deliveries (begin) differ", _differing(moved["sent", "begin"], delivered), 0),
        _equal("studies whose deliveries (end) differ", _differing(moved["sent", "end"], delivered), 0),
    ]


def _equal(what: str, found: int, wanted: int) -> Check:
    return Check(what, str(found), f"= {wanted}", found == wanted)


def _differing(told: Counter[str], true: Counter[str]) -> int:
    return sum(told[study] != true[study] for study in told | true)


def _arrived(database: Database) -> Counter[str]:
    table = db.instance
    with database.read() as connection:
        rows = connection.execute(select(table.c.study_uid, func.count()).group_by(table.c.study_uid)).all()
    return Counter({row[0]: row[1] for row in rows})


def _delivered(database: Database) -> Counter[str]:
    query = (
        select(db.exam.c.study_uid, func.count())
        .select_from(db.delivery.join(db.job).join(db.exam))
        .group_by(db.exam.c.study_uid)
    )
    with database.read() as connection:
        return Counter({row[0]: row[1] for row in connection.execute(query)})


def main() -> int:
    """Print what was found beside what was wanted; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        checks = run(SimpleNamespace(folder=Path(folder), points=options.kills, seed=options.seed))
    for one in checks:
        print(f"{one.what:45s} {one.found:>10s}   {one.limit}   {'BREACHED' if one.ok is False else ''}".rstrip())
    return int(any(one.ok is False for one in checks))


if __name__ == "__main__":
    sys.exit(main())
