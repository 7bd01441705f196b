"""What happens beside the senders of the whole node's campaign: faults, or samples of what the node uses."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
from node_process import Node

from tests.soak.own_disk import Disk
from tests.soak.peers_of_soak import CountingArchive


@dataclass
class Tally:
    """What the scanners have seen so far."""

    acknowledged: set[str] = field(default_factory=set)
    associations: int = 0
    aborted: int = 0
    undisturbed: int = 0  # associations while the node itself was left alone
    unexpected: int = 0  # of them, those that failed
    faults: Counter[str] = field(default_factory=Counter)
    is_disturbed: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, name: str) -> None:
        self.faults[name] += 1


@dataclass(frozen=True)
class Sample:
    associations: int
    node_mb: float
    receiver_mb: float
    threads: int
    files: int


class Faults:
    """One fault every few seconds."""

    def __init__(self, node: Node, archive: CountingArchive, disk: Disk | None, tally: Tally, seed: int) -> None:
        self._node, self._archive, self._disk, self._tally = node, archive, disk, tally
        self._chance = random.Random(seed)
        self._next_s = time.monotonic() + 3.0
        self._back_s: float | None = None
        self._room_s: float | None = None
        self._names = ("receiver", "worker", "node", "restart", "archive", *(() if disk is None else ("disk",)))

    def __call__(self) -> None:
        if self._back_s is not None and time.monotonic() > self._back_s:
            self._archive.start()
            self._back_s = None
        if self._disk is not None and self._room_s is not None and time.monotonic() > self._room_s:
            self._disk.empty()
            self._room_s = None
            self._next_s = time.monotonic() + self._chance.uniform(3, 9)
        if time.monotonic() < self._next_s or self._room_s is not None:
            return
        name = self._chance.choice(self._names)
        if name == "archive" and self._back_s is not None:
            name = "worker"
        self._tally.fault(name)
        match name:
            case "receiver":
                self._node.process("reception").kill()
            case "worker":
                self._node.process("worker").kill()
            case "node":
                self._node.kill()
                self._node.start()
            case "restart":
                assert self._node.stop() == 0
                self._node.start()
            case "archive":
                self._archive.stop()
                self._back_s = time.monotonic() + self._chance.uniform(3, 15)
            case "disk":
                assert self._disk is not None
                self._disk.fill()
                self._room_s = time.monotonic() + self._chance.uniform(3, 10)
        self._next_s = time.monotonic() + self._chance.uniform(3, 9)


class Watch:
    """A sample every two seconds; the archive goes away for a moment now and then."""

    def __init__(self, node: Node, archive: CountingArchive, tally: Tally, samples: list[Sample]) -> None:
        self._node, self._archive, self._tally, self._samples = node, archive, tally, samples
        self._next_s = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next_s:
            return
        self._samples.append(sample(self._node, self._tally))
        if len(self._samples) % 20 == 0:
            self._archive.stop()
            self._tally.faults["archive"] += 1
        elif len(self._samples) % 20 == 3 and len(self._samples) > 20:
            self._archive.start()
        self._next_s = time.monotonic() + 2.0


def sample(node: Node, tally: Tally) -> Sample:
    """Of the node without its workers."""
    supervisor = psutil.Process(node.pid)
    processes = [supervisor]
    processes += [one for one in supervisor.children() if "service.worker" not in " ".join(one.cmdline())]
    return Sample(
        tally.associations,
        supervisor.memory_info().rss / 1e6,
        sum(one.memory_info().rss for one in processes[1:]) / 1e6,
        sum(one.num_threads() for one in processes),
        sum(one.num_fds() for one in processes),
    )
