"""Real peers for the tests: dcmtk's tools and Orthanc, on free ports of the loopback address."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest

# Without it dcmtk leaves Nagle's algorithm on, and every answer waits 40 ms for a delayed acknowledgement.
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")  # Debian's orthanc-dicomweb
PEER_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def need(*tools: str) -> None:
    """Skip the test where a peer is not installed; with CI=true that is a failure."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        lacking(*missing)


def lacking(*what: str) -> NoReturn:
    """Skip the test for want of a peer; with CI=true that is a failure."""
    text = f"not installed: {', '.join(what)}"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def free_port() -> int:
    """A TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """The condition's first true value; fails the test when it does not come."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s} s for: {what}")


def is_listening(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run_tool(*command: str | Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a peer's tool to its end; its exit status is the caller's to judge."""
    need(str(command[0]))
    return subprocess.run(
        [str(part) for part in command],
        env=PEER_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def echoscu(port: int, *, called: str = "DISCNODE", calling: str = "SCANNER") -> bool:
    """Whether C-ECHO succeeds."""
    return run_tool("echoscu", "-aet", calling, "-aec", called, "-to", "5", "127.0.0.1", str(port)).returncode == 0


def storescu(
    port: int, files: Sequence[Path], *options: str, called: str = "DISCNODE", calling: str = "SCANNER"
) -> subprocess.CompletedProcess[str]:
    """Send files; verbose, so that the answers can be read with :func:`statuses`."""
    return run_tool("storescu", "-v", "-aet", calling, "-aec", called, *options, "127.0.0.1", str(port), *files)


def statuses(result: subprocess.CompletedProcess[str]) -> list[str]:
    """What storescu was answered, one text for each file that got an answer."""
    return re.findall(r"Received Store Response \((.*?)\)", result.stdout + result.stderr)


def dcmsend(
    port: int, files: Sequence[Path], report: Path, *, called: str = "DISCNODE"
) -> subprocess.CompletedProcess[str]:
    """Send files and write dcmsend's report of what was acknowledged."""
    return run_tool(
        "dcmsend", "-aet", "SCANNER", "-aec", called, "+crf", report, "--no-halt", "127.0.0.1", str(port), *files
    )


def acknowledged(report: Path) -> set[str]:
    """SOP Instance UIDs that dcmsend's report says were answered with Success."""
    if not report.exists():
        return set()
    blocks = report.read_text(errors="replace").split("Filename")
    return {
        found.group(1)
        for block in blocks
        if re.search(r"DIMSE Status\s*:\s*0x0000", block)
        and (found := re.search(r"SOP Instance\s*:\s*([0-9.]+)", block))
    }


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, as a daemon has it: the kernel shares time out among sessions."""
    return subprocess.Popen(
        command,
        env=PEER_ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


class Storescp:
    """dcmtk's storage SCP; what it received lies in ``folder``. It can be stopped and started on the same port."""

    def __init__(self, folder: Path, *options: str, ae_title: str = "ARCHIVE") -> None:
        self.folder = folder
        self.port = free_port()
        self.ae_title = ae_title
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        command = ["storescp", "--fork", *self._options, "-aet", self.ae_title, "-od", str(self.folder), str(self.port)]
        self._process = _start(command)
        wait_until(lambda: is_listening(self.port), "storescp to listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def files(self) -> list[Path]:
        """What it received."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Orthanc:
    """Orthanc with its DICOM and HTTP servers, empty, in a folder of its own. ``modalities``: AE title -> port."""

    def __init__(self, folder: Path, ae_title: str = "ORTHANC", modalities: Mapping[str, int] | None = None) -> None:
        self.port, self.http_port = free_port(), free_port()
        self.ae_title = ae_title
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "orthanc.json"
        self._config.write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "index"),
                    "DicomAet": ae_title,
                    "DicomPort": self.port,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowEcho": True,
                    "DicomAlwaysAllowFind": True,
                    "DicomAlwaysAllowGet": True,
                    "DicomModalities": {title: [title, "127.0.0.1", at] for title, at in (modalities or {}).items()},
                    "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = _start(["Orthanc", str(self._config)])
        wait_until(lambda: is_listening(self.http_port) and is_listening(self.port), "Orthanc to listen", 30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str) -> Any:
        """The JSON answer of its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def qido(self, path: str) -> list[dict[str, Any]]:
        """A QIDO-RS search, e.g. ``studies/UID/instances``; attributes by tag, as DICOM JSON."""
        with urllib.request.urlopen(f"{self.dicomweb_url}/{path}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    @property
    def dicomweb_url(self) -> str:
        """Root of its DICOMweb service."""
        if not DICOMWEB_PLUGIN.exists():
            lacking("orthanc-dicomweb")
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def file_of(self, sop_uid: str) -> bytes:
        """The file it holds of an object, as it stores it."""
        (number,) = (
            one["ID"] for one in self.get("/instances?expand") if sop_uid == one["MainDicomTags"]["SOPInstanceUID"]
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/instances/{number}/file", timeout=10) as answer:
            return bytes(answer.read())

    @property
    def sop_instance_uids(self) -> list[str]:
        """UIDs of what it holds."""
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in self.get("/instances?expand"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
