"""A scanner whose exams are four small images, and an archive that counts every object that is sent to it."""

import re
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
from peers import PEER_ENVIRONMENT, acknowledged, free_port, is_listening, wait_until
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from small_mr_exam import mr_dataset

TIMES_MS = (0, 40, 80, 120)
N_IMAGES = len(TIMES_MS)


def study_uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.10.1474.{number}"


def write_small_exam(folder: Path, number: int) -> list[Path]:
    """The images of one single-slice exam, whole and of a known protocol; every exam is of a patient of its own."""
    folder.mkdir(parents=True)
    paths = []
    for index, time_ms in enumerate(TIMES_MS):
        pixels = (np.arange(30).reshape(6, 5) * 7 + number + 100 * index).astype(np.uint16)
        dataset = mr_dataset(
            pixels,
            SOPInstanceUID=f"{study_uid(number)}.1.{index + 1}",
            StudyInstanceUID=study_uid(number),
            SeriesInstanceUID=f"{study_uid(number)}.1",
            FrameOfReferenceUID=f"{study_uid(number)}.9",
            PatientID=f"S-{number}",
            PatientName=f"Soak^Number{number}",
            StudyDate="20260301",
            SeriesDescription="Sag T1rho FSE",
            EchoTime=time_ms,
            EchoNumbers=index + 1,
            InstanceNumber=index + 1,
            ImagesInAcquisition=N_IMAGES,
        )
        path = folder / f"{index}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


class Dcmsend:
    """dcmsend on its way with the files of one exam."""

    def __init__(self, port: int, paths: list[Path], report: Path) -> None:
        self.report = report
        report.unlink(missing_ok=True)
        command = ["dcmsend", "-aet", "SCANNER", "-aec", "DISCNODE", "-to", "5", "-td", "20", "+crf", str(report)]
        self._process = subprocess.Popen(
            [*command, "127.0.0.1", str(port), *map(str, paths)],
            env=PEER_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> set[str]:
        """The SOP Instance UIDs that were answered with Success."""
        self._process.wait(60)
        return acknowledged(self.report)


def abort_in_an_object(port: int) -> None:
    """Begin an object, and cut the connection in the middle of its bytes."""
    ae = AE("SCANNER")
    ae.connection_timeout = ae.acse_timeout = 5
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="DISCNODE")
    if not association.is_established:
        return
    connection: socket.socket = association.dul.socket.socket
    connection.sendall(b"\x04\x00" + (5000).to_bytes(4, "big") + (4996).to_bytes(4, "big") + b"\x01\x02" + b"x" * 900)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    association.abort()


class CountingArchive:
    """storescp; what it has lies in ``folder``, what it was sent stands in its log."""

    ae_title = "ARCHIVE"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "archive"
        self.folder.mkdir()
        self.port = free_port()
        self._log = folder / "archive.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A child of the one before that still serves an association has the port as well.
        wait_until(lambda: not is_listening(self.port), "the port of the archive to be free", 60)
        wait_until(self._has_started, "the archive to listen", 180)

    def _has_started(self) -> bool:
        """Whether it listens; it is started anew where another program had its port while it was away."""
        if self._process is None or self._process.poll() is not None:
            command = ["storescp", "-v", "--fork", "-aet", self.ae_title, "-od", str(self.folder), str(self.port)]
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(command, env=PEER_ENVIRONMENT, stdout=log, stderr=log)
            time.sleep(0.5)
        return self._process.poll() is None and is_listening(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """It is there now, wherever it was."""
        self.stop()
        self.start()

    @property
    def uids(self) -> set[str]:
        """SOP Instance UIDs of what it has."""
        return {path.name.partition(".")[2] for path in self.folder.iterdir() if path.is_file()}

    @property
    def sent(self) -> Counter[str]:
        """How often each object was sent to it whole."""
        return Counter(re.findall(r"storing DICOM file: \S*/[A-Z]+\.([0-9.]+)", self._log.read_text(errors="replace")))
