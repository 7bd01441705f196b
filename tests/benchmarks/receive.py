"""Receiving beside the peers, in one run. ``python -m tests.benchmarks.receive [--rounds 5]``.

Contenders take turns in every round, in a new order each time: the whole node (``discnode serve``: every object
durable before Success, indexed, headers read), Orthanc as it comes (SyncStorageArea on) and storescp (nothing durable).
All have Nagle's algorithm off, and all write to the same disk. Ratios are medians over the rounds of the ratio within a
round.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "dicom_io"))
sys.path.insert(0, str(Path(__file__).parent.parent / "service"))
sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does

import numpy as np
import psutil
from node_process import Node
from peers import Orthanc, Storescp
from pydicom.uid import EnhancedMRImageStorage
from raw_client import EXPLICIT, RawClient, store_message
from small_mr_exam import mr_dataset
from test_element_walk import encode

N_IMAGES = 96  # in a turn
TURNS = 3  # in a round
LARGE_BYTES = 210_000_000
_UID = "1.2.826.0.1.3680043.8.498.1{:017d}"
_PLACE = _UID.format(0)


@dataclass
class Contender:
    """A server: who it is called, where it listens, and its processes."""

    name: str
    called: str
    port: int
    root: Callable[[], psutil.Process]
    rates: dict[int, list[float]] = field(default_factory=dict)
    cpu_ms: dict[int, list[float]] = field(default_factory=dict)
    waits_ms: dict[int, list[float]] = field(default_factory=dict)
    large_mb_s: list[float] = field(default_factory=list)
    growth_mb: list[float] = field(default_factory=list)

    def processes(self) -> list[psutil.Process]:
        root = self.root()
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def rss_mb(self) -> float:
        total = 0.0
        for process in self.processes():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6


def image_bytes(series: int) -> bytes:
    """A data set of a 256 x 256 MR image, 134 kB, in which the UID can be exchanged."""
    pixels = np.random.default_rng(series).integers(0, 4096, (256, 256), dtype=np.uint16)
    study = f"1.2.826.0.1.3680043.8.499.{series}"
    return encode(mr_dataset(pixels, SOPInstanceUID=_PLACE, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1"))


class Numbers:
    """New UIDs."""

    def __init__(self) -> None:
        self._next = int(time.time() * 1000) * 100_000 % 10**17

    def take(self) -> str:
        self._next += 1
        return _UID.format(self._next)


def send(contender: Contender, data: bytes, numbers: Numbers, n_associations: int) -> tuple[float, list[float]]:
    """Seconds to send all images, and the wait for each answer in ms."""
    parts = [[numbers.take() for _ in range(N_IMAGES // n_associations)] for _ in range(n_associations)]
    waits_ms: list[float] = []
    faults: list[str] = []
    clients = [RawClient(contender.port, timeout_s=120).associate(called=contender.called) for _ in parts]
    step = clients[0].step
    messages = [
        [store_message(uid, data.replace(_PLACE.encode(), uid.encode()), step=step) for uid in part] for part in parts
    ]

    def run(client: RawClient, part: list[bytes]) -> None:
        for message in part:
            start_s = time.perf_counter()
            status = client.status_of(client.ask(message))
            waits_ms.append((time.perf_counter() - start_s) * 1e3)
            if status != 0:
                faults.append(f"0x{status:04X}")

    threads = [
        threading.Thread(target=run, args=(client, part)) for client, part in zip(clients, messages, strict=True)
    ]
    start_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - start_s
    for client in clients:
        client.release()
    if faults or len(waits_ms) != sum(len(part) for part in parts):
        raise SystemExit(f"{contender.name}: not all answered with Success: {faults[:3]}")
    return took_s, waits_ms


def measure(order: list[Contender], data: bytes, numbers: Numbers, n_associations: int) -> None:
    """One round: the contenders take several turns each, so that a busy moment of the disk meets all of them."""
    took_s = dict.fromkeys((one.name for one in order), 0.0)
    cpu_s = dict.fromkeys(took_s, 0.0)
    waits_ms: dict[str, list[float]] = {name: [] for name in took_s}
    for turn in range(TURNS):
        for one in order[turn % len(order) :] + order[: turn % len(order)]:
            before_s = one.cpu_s()
            seconds, waits = send(one, data, numbers, n_associations)
            time.sleep(1.5)  # what comes after the answer is its work too
            took_s[one.name] += seconds
            cpu_s[one.name] += one.cpu_s() - before_s
            waits_ms[one.name] += waits
    for one in order:
        n_sent = len(waits_ms[one.name])
        one.rates.setdefault(n_associations, []).append(n_sent / took_s[one.name])
        one.cpu_ms.setdefault(n_associations, []).append(cpu_s[one.name] * 1e3 / n_sent)
        one.waits_ms.setdefault(n_associations, []).append(statistics.median(waits_ms[one.name]))


def large_bytes() -> bytes:
    """A data set of an enhanced MR object of 210 MB."""
    frames = LARGE_BYTES // (512 * 512 * 2)
    head = mr_dataset(np.zeros((512, 512), dtype=np.uint16), SOPInstanceUID=_PLACE, SOPClassUID=EnhancedMRImageStorage)
    head.NumberOfFrames = frames
    head.PixelData = np.random.default_rng(1).integers(0, 4096, (frames, 512, 512), dtype=np.uint16).tobytes()
    return encode(head)


def measure_large(contender: Contender, data: bytes, numbers: Numbers) -> None:
    uid = numbers.take()
    at = data.index(_PLACE.encode())
    head = data[:at] + uid.encode() + data[at + len(uid) :]
    client = RawClient(contender.port, timeout_s=300).associate(
        called=contender.called, contexts=((1, EnhancedMRImageStorage, EXPLICIT),)
    )
    message = store_message(uid, head, sop_class=EnhancedMRImageStorage, step=client.step)
    del head
    time.sleep(1.0)
    before_mb, peak_mb = contender.rss_mb(), 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak_mb
        while not done.wait(0.02):
            peak_mb = max(peak_mb, contender.rss_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start_s = time.perf_counter()
    status = client.status_of(client.ask(message))
    took_s = time.perf_counter() - start_s
    done.set()
    watcher.join()
    client.release()
    if status != 0:
        raise SystemExit(f"{contender.name}: the large object was answered with 0x{status:04X}")
    contender.large_mb_s.append(len(message) / 1e6 / took_s)
    contender.growth_mb.append(max(0.0, peak_mb - before_mb))


@contextmanager
def contenders(folder: Path) -> Iterator[list[Contender]]:
    for name in ("node", "orthanc", "storescp"):
        (folder / name).mkdir()
    orthanc = Orthanc(folder / "orthanc")
    storescp = Storescp(folder / "storescp", "-pdu", "131072")
    with Node(folder / "node", completion={}) as node, orthanc, storescp:
        yield [
            Contender("discnode", "DISCNODE", node.port, lambda: psutil.Process(node.pid)),
            Contender("Orthanc (SyncStorageArea)", "ORTHANC", orthanc.port, lambda: _process_of(orthanc)),
            Contender("storescp --fork", "ARCHIVE", storescp.port, lambda: _process_of(storescp)),
        ]


def _process_of(peer: Orthanc | Storescp) -> psutil.Process:
    process = peer._process
    assert process is not None
    return psutil.Process(process.pid)


def ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def report(all_of_them: list[Contender]) -> None:
    orthanc = all_of_them[1]
    print(
        "| contender | objects/s, 1 / 8 associations | x Orthanc | CPU ms/object | wait, ms | 210 MB: MB/s, growth MB |"
    )
    print("|---|---|---|---|---|---|")
    for one in all_of_them:
        cells = [
            " / ".join(f"{statistics.median(one.rates[n]):.0f} [{max(one.rates[n]):.0f}]" for n in (1, 8)),
            " / ".join(f"{ratio(one.rates[n], orthanc.rates[n]):.2f}" for n in (1, 8)),
            " / ".join(f"{statistics.median(one.cpu_ms[n]):.2f}" for n in (1, 8)),
            " / ".join(f"{statistics.median(one.waits_ms[n]):.1f}" for n in (1, 8)),
            f"{statistics.median(one.large_mb_s):.0f}, {statistics.median(one.growth_mb):.0f}",
        ]
        print(f"| {one.name} | {' | '.join(cells)} |")
    node = all_of_them[0]
    checks = {
        "1 association >= 1.0 x Orthanc (aim 1.5)": ratio(node.rates[1], orthanc.rates[1]) >= 1.0,
        "8 associations >= 1.0 x Orthanc (aim 2.5)": ratio(node.rates[8], orthanc.rates[8]) >= 1.0,
        "210 MB: growth < 60 MB (aim 20)": statistics.median(node.growth_mb) < 60,
        "210 MB: MB/s >= Orthanc": ratio(node.large_mb_s, orthanc.large_mb_s) >= 1.0,
    }
    for what, holds in checks.items():
        print(f"{'ok ' if holds else 'NOT'} {what}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: that of temporary files")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    numbers, large = Numbers(), large_bytes()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, contenders(Path(folder)) as all_of_them:
        for number in range(options.rounds):
            data = image_bytes(number)
            for n_associations in (1, 8):
                order = random.Random(number * 10 + n_associations).sample(all_of_them, len(all_of_them))
                measure(order, data, numbers, n_associations)
            for one in random.Random(number).sample(all_of_them, len(all_of_them)):
                measure_large(one, large, numbers)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        report(all_of_them)
        if options.json is not None:
            figures = {one.name: {"rates": one.rates, "cpu_ms": one.cpu_ms} for one in all_of_them}
            options.json.write_text(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
