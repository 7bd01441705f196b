"""Child processes of the node: told what to do on stdin, killed with their parent and with all that they started."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from config.settings import Settings

_PR_SET_PDEATHSIG = 1
#: Exit status of a child that cannot start because of its settings (address in use); starting it again is no use.
EXIT_CANNOT_START = 78


@dataclass(frozen=True, slots=True)
class ChildMessage:
    """What a child is told when it starts."""

    name: str
    settings: Settings
    analysis: str = ""

    def to_json(self) -> str:
        """For the child's stdin."""
        return json.dumps(
            {
                "name": self.name,
                "analysis": self.analysis,
                "parent": os.getpid(),
                "settings": self.settings.model_dump(mode="json"),
            }
        )


def receive_message() -> ChildMessage:
    """In the child: bind its life to the parent's and read what it is told."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    content: dict[str, Any] = json.loads(sys.stdin.read())
    if os.getppid() != content["parent"]:  # the parent died before the line above
        sys.exit(1)
    return ChildMessage(content["name"], Settings.model_validate(content["settings"]), content["analysis"])


class Child:
    """A running child process, in a session of its own. Start it from the main thread: it dies with that thread."""

    def __init__(self, module: str, message: ChildMessage) -> None:
        self.name = message.name
        self.started_at_s = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, start_new_session=True)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(message.to_json().encode())

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs, else its exit status (negative: the signal that killed it)."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        if self.exit_status() is None:
            self._process.terminate()

    def kill(self, wait_s: float = 0.0) -> None:
        """Wait up to ``wait_s``, then kill it and whatever it started."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
