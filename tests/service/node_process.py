"""``discnode serve`` as a process for tests, with the analysis of one's choice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from peers import Orthanc, Storescp, free_port, wait_until
from sqlalchemy import select

from config.settings import Settings, load_settings
from service import database as db
from service import jobs, quarantine
from service.database import open_database

TESTS = Path(__file__).parent.parent
SERVE = """
import sys
from pathlib import Path
from config.settings import load_settings
from service.app import run_node
sys.exit(run_node(load_settings(Path(sys.argv[1])), analysis=sys.argv[2]))
"""


class Node:
    """``discnode serve`` as a process, with the analysis of one's choice."""

    def __init__(self, folder: Path, analysis: str = "tiny_analysis:analyse", **settings: Any) -> None:
        self.port = free_port()
        self.folder = folder
        self.analysis = analysis
        self.config = folder / "node.yaml"
        self.log_path = folder / "node.log"
        content = {
            "port": self.port,
            "storage_dir": str(folder / "node"),
            "completion": {"idle_s": 3, "sweep_s": 0.2},
            "jobs": {"lease_s": 5},
            "delivery": {"first_retry_s": 0.5, "timeout_s": 5},
        }
        self.config.write_text(json.dumps(content | settings))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def start(self, ready: str = " ready ") -> None:
        """``ready``: what stands in the receiver's line once it listens."""
        environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS / 'service'}", "OMP_NUM_THREADS": "1"}
        n_before = self.log.count(ready) if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-c", SERVE, str(self.config), self.analysis]
            self._process = subprocess.Popen(command, env=environment, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.log.count(ready) > n_before, "the node's line 'ready'", 240)

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """End it as an operator does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(60)
        self._process = None
        return status

    def ended(self) -> int:
        """Wait for its end, without a second signal, which would hasten it; the exit status."""
        assert self._process is not None
        status = self._process.wait(90)
        self._process = None
        return status

    def kill(self) -> None:
        """kill -9 of the supervisor; returns when its children are gone too."""
        children = psutil.Process(self.pid).children(recursive=True)
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []

    def process(self, kind: str) -> psutil.Process:
        """The receiver or a worker."""
        found: psutil.Process = wait_until(
            lambda: next(
                (one for one in psutil.Process(self.pid).children() if f"service.{kind}" in " ".join(one.cmdline())),
                None,
            ),
            f"the {kind} process",
        )
        return found

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Ask its record."""
        database = open_database(self.settings)
        try:
            return question(database)
        finally:
            database.close()

    @property
    def jobs(self) -> list[jobs.Job]:
        found: list[jobs.Job] = self.ask(jobs.list_jobs)
        return found

    @property
    def cases(self) -> list[str]:
        return [item.code for item in self.ask(quarantine.list_items)]

    @property
    def instances(self) -> dict[str, Path]:
        """Where the received objects lie, by SOP Instance UID."""

        def read(database: Any) -> dict[str, Path]:
            with database.read() as connection:
                rows = connection.execute(select(db.instance.c.sop_uid, db.instance.c.path)).all()
            return {row.sop_uid: database.inbox_dir / row.path for row in rows}

        found: dict[str, Path] = self.ask(read)
        return found

    def __enter__(self) -> "Node":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()


def destination(name: str, scp: Storescp | Orthanc) -> dict[str, Any]:
    return {"name": name, "ae_title": scp.ae_title, "host": "127.0.0.1", "port": scp.port}
