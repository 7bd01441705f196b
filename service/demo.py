"""The main job on one machine: a simulated scanner sends, the node measures, a receiving node gets the results."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from config.settings import USUAL_OBJECTS
from dicom_io.receiving_folder import ReceivingFolder
from dicom_io.sender import Peer, PeerUnavailable, echo, send_files
from dicom_io.simulated_scanner import write_exam, write_truth
from processing.phantom import PhantomExam, simulate_exam
from processing.results import LUMBAR_LEVELS, Level
from service.progress import show_progress

_START_TIMEOUT_S = 90.0
_RESULT_TIMEOUT_S = 900.0


class DemonstrationFailed(Exception):
    """The demonstration did not come to its end; the message says where to look."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measured against true, one disc: means over the whole disc in ms."""

    level: Level
    t1rho_ms: float
    true_t1rho_ms: float
    t2_ms: float
    true_t2_ms: float

    @property
    def is_close(self) -> bool:
        """Whether both means lie within 5 % or 3 ms of the truth."""
        pairs = ((self.t1rho_ms, self.true_t1rho_ms), (self.t2_ms, self.true_t2_ms))
        return all(abs(measured - true) <= max(3.0, 0.05 * true) for measured, true in pairs)


def run_demo(out: Path, *, seed: int = 1) -> int:
    """Run the demonstration in ``out`` and print measured against true; returns 0 when every disc is close to it.

    The folder then holds ``scanner/`` (what was sent), ``truth.npz``, ``node/`` (the node's storage), ``received/``
    (the objects as the receiving node got them) and ``results/`` (report.pdf, report.html, qc.png,
    qc_registration.png, discs.csv, result.json, dicom/).
    """
    _empty(out)
    try:
        exam = _send_through_node(out, seed)
    except DemonstrationFailed as failure:
        print(f"The demonstration failed: {failure}", file=sys.stderr)  # noqa: T201
        return 1
    return _report(exam, out)


def _send_through_node(out: Path, seed: int) -> PhantomExam:
    with (
        show_progress("demo") as progress,
        ReceivingFolder(out / "received") as archive,
        (out / "node.log").open("wb") as log,
    ):
        progress("simulate an exam", 0.02)
        exam = simulate_exam(seed)
        images = write_exam(exam, out / "scanner")
        write_truth(exam, out / "truth.npz")
        progress("start the node", 0.10)
        config, port = _write_config(out, archive)
        command = [sys.executable, "-m", "service.cli", "serve", "--config", str(config)]
        node = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            peer = Peer("127.0.0.1", port, called_ae_title="DISCNODE", calling_ae_title="SCANNER")
            _wait(lambda: _answers(peer), node, out, _START_TIMEOUT_S, "the node did not start")
            progress(f"send {len(images)} images by C-STORE", 0.15)
            refused = [outcome for outcome in send_files(images, peer) if not outcome.stored]
            if refused:
                raise DemonstrationFailed(f"the node refused {len(refused)} images: {refused[0].detail}")
            progress("the node segments, registers and fits", 0.25)
            _wait(lambda: _newest_result(out) is not None, node, out, _RESULT_TIMEOUT_S, "the node made no result")
            result = _newest_result(out)
            assert result is not None
            document = json.loads((result / "result.json").read_text())
            if document["status"] == "refused":
                raise DemonstrationFailed(f"the node refused the exam: {document['reasons']}")
            progress("the results go to the receiving node", 0.95)
            expected = sum(one["kind"] in USUAL_OBJECTS for one in document["objects"])
            _wait(lambda: len(archive.files) >= expected, node, out, 60.0, "the results were not delivered")
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(timeout=60)
        shutil.copytree(result, out / "results")
        progress("done", 1.0)
    return exam


def _empty(out: Path) -> None:
    """Make room, but only where an earlier demonstration lies."""
    if out.exists() and any(out.iterdir()):
        if not (out / "demo.yaml").exists():
            raise SystemExit(f"{out}: is not empty and no earlier demonstration; choose another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo.yaml").touch()


def _write_config(out: Path, archive: ReceivingFolder) -> tuple[Path, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = {
        "port": port,
        "storage_dir": "node",
        "completion": {"idle_s": 10, "sweep_s": 1},
        "peers": [{"ae_title": "SCANNER", "host": "127.0.0.1"}],
        "destinations": [{"name": "archive", "ae_title": archive.ae_title, "host": "127.0.0.1", "port": archive.port}],
    }
    config = out / "demo.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return config, port


def _wait(done: Callable[[], bool], node: subprocess.Popen[bytes], out: Path, timeout_s: float, complaint: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if node.poll() is not None:
            raise DemonstrationFailed(f"the node ended with status {node.returncode}; see {out / 'node.log'}")
        if time.monotonic() > deadline:
            raise DemonstrationFailed(f"{complaint} within {timeout_s:.0f} s; see {out / 'node.log'}")
        time.sleep(0.5)


def _answers(peer: Peer) -> bool:
    try:
        echo(peer)
    except PeerUnavailable:
        return False
    return True


def _newest_result(out: Path) -> Path | None:
    """The folder with the result (or the refusal) of the one exam that was sent; it appears whole."""
    results = out / "node" / "results"
    found = sorted(results.glob("*/v*/result.json")) or sorted(results.glob("*/result.json"))
    return found[-1].parent if found else None


def _report(exam: PhantomExam, out: Path) -> int:
    """Print measured against true and where to look."""
    result = json.loads((out / "results" / "result.json").read_text())
    rows = compare(exam, result)
    lines = [
        "",
        "mean over the disc, ms      T1rho                      T2",
        "level   measured   true  difference   measured   true  difference",
    ]
    for row in rows:
        t1rho = f"{row.t1rho_ms:8.1f} {row.true_t1rho_ms:6.1f}  {row.t1rho_ms - row.true_t1rho_ms:+10.1f}"
        t2 = f"{row.t2_ms:8.1f} {row.true_t2_ms:6.1f}  {row.t2_ms - row.true_t2_ms:+10.1f}"
        lines.append(f"{row.level.name:6s}  {t1rho}   {t2}{'' if row.is_close else '   beyond 5 % and 3 ms'}")
    lines += [
        "",
        f"verdict: {result['status']}"
        + "".join(f"\n  {reason['code']}: {reason['detail']}" for reason in result["reasons"]),
        f"look at {out / 'results' / 'report.pdf'}, with report.html, pictures, discs.csv and result.json beside it;",
        f"the DICOM objects, as the receiving node got them, are in {out / 'received'}",
        "For research use only.",
    ]
    print("\n".join(lines))  # noqa: T201
    return 0 if len(rows) == len(LUMBAR_LEVELS) and all(row.is_close for row in rows) else 1


def compare(exam: PhantomExam, result: dict[str, Any]) -> tuple[Comparison, ...]:
    """Per disc of ``result`` (a read ``result.json``): the measured means and the truth's, in ms."""
    rows = []
    for disc in result["discs"]:
        level = Level[disc["level"]]
        where = exam.labels == level
        if level not in LUMBAR_LEVELS or not where.any():
            continue
        rows.append(
            Comparison(
                level=level,
                t1rho_ms=disc["t1rho_ms"]["mean"],
                true_t1rho_ms=float(np.nanmean(exam.t1rho_ms[where])),
                t2_ms=disc["t2_ms"]["mean"],
                true_t2_ms=float(np.nanmean(exam.t2_ms[where])),
            )
        )
    return tuple(rows)
