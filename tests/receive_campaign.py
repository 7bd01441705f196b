"""A node that receives while something terrible happens to it; then every acknowledged object is looked for."""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from raw_client import Closed, RawClient
from small_mr_exam import mr_dataset
from sqlalchemy import select
from test_element_walk import encode

from service import database as db
from service.database import Database

_UID = "1.2.826.0.1.3680043.8.498.1{:012d}"
_PLACE = _UID.format(0)


def image_bytes(pixels: int = 64) -> bytes:
    """A data set of an MR image in which the UID can be exchanged."""
    noise = np.random.default_rng(1).integers(0, 4096, (pixels, pixels), dtype=np.uint16)
    return encode(mr_dataset(noise, SOPInstanceUID=_PLACE))


def with_uid(data: bytes, number: int) -> tuple[str, bytes]:
    uid = _UID.format(number)
    return uid, data.replace(_PLACE.encode(), uid.encode())


@dataclass
class Senders:
    """Several associations that send until they are cut off. ``acknowledged``: UID -> SHA-256 of the data set."""

    port: int
    data: bytes
    first_number: int
    n_associations: int = 4
    acknowledged: dict[str, str] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        for number in range(self.n_associations):
            start = self.first_number + number * 1_000_000
            thread = threading.Thread(target=self._send, args=(start,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self, number: int) -> None:
        try:
            with RawClient(self.port, timeout_s=30).associate() as client:
                while not self._stop.is_set():
                    number += 1
                    uid, data = with_uid(self.data, number)
                    if client.store(uid, data) == 0:
                        self.acknowledged[uid] = hashlib.sha256(data).hexdigest()
        except (Closed, OSError):
            return  # cut off


def lost(database: Database, acknowledged: dict[str, str]) -> list[str]:
    """Acknowledged objects that are not recorded exactly once, or whose file does not hold what was sent."""
    table = db.instance
    with database.read() as connection:
        rows: dict[str, list[Any]] = {}
        for row in connection.execute(select(table.c.sop_uid, table.c.path, table.c.sha256)):
            rows.setdefault(row.sop_uid, []).append(row)
    faults = []
    for uid, digest in acknowledged.items():
        found = rows.get(uid, [])
        if len(found) != 1:
            faults.append(f"{uid}: {len(found)} rows")
            continue
        content = (database.inbox_dir / found[0].path).read_bytes()
        is_whole = hashlib.sha256(content).hexdigest() == found[0].sha256
        if not is_whole or hashlib.sha256(data_set_of(content)).hexdigest() != digest:
            faults.append(f"{uid}: other bytes")
    return faults


def data_set_of(content: bytes) -> bytes:
    """What stands behind the file meta information."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def partial_files(database: Database) -> list[str]:
    """Files of the inbox that should not be there: half-written, or not what their name says."""
    faults = [str(path) for path in (database.inbox_dir / "incoming").iterdir()]
    objects = (database.inbox_dir / "objects").rglob("*.dcm")
    return faults + [str(path) for path in objects if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem]


def number_of(folder: Path) -> int:
    """Files in the spool."""
    return sum(1 for path in (folder / "spool").rglob("*.dcm"))
