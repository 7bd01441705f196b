"""An assembled exam -> arrays: pixels decoded and scaled, slices in native order, echoes by time."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from config.protocol_cards import ProtocolCard
from dicom_io.acquisition import read_acquisition
from dicom_io.headers import ImageFacts
from dicom_io.pixels import read_images
from dicom_io.series import ExamAssembly
from dicom_io.slice_grid import ImageSeries
from dicom_io.sources import SourceExam
from processing.results import Affine, EchoStack, FloatArray, ImageVolume, Quantity
from processing.visits import Acquisition


@dataclass(frozen=True, slots=True)
class MeasuredScan:
    """One scan of an exam: the name of its protocol card, the series it came in, what is fitted to it."""

    protocol: str
    series_uids: tuple[str, ...]
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ExamImages:
    """What is measured of one exam, on its native grid.

    ``background`` is what is segmented: the image at the shortest time, or the anatomy of an exam without echoes.
    ``stacks`` is empty for such an exam. ``scans``: one, or those of T1rho and T2. ``source``: headers for the writers.
    ``acquisition``: how it was acquired, as far as the headers tell.
    """

    background: ImageVolume
    stacks: tuple[EchoStack, ...]
    scans: tuple[MeasuredScan, ...]
    source: SourceExam
    acquisition: Acquisition = field(default_factory=Acquisition)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of the protocol cards."""
        return tuple(scan.protocol for scan in self.scans)

    @property
    def times_ms(self) -> Mapping[Quantity, tuple[float, ...]]:
        """The spin-lock times of T1rho and the preparation times of T2, as far as there are any."""
        return {stack.role: stack.times_ms for stack in self.stacks}


def read_exam(assembly: ExamAssembly) -> ExamImages:
    """Read the pixels of a complete exam: its relaxometry (one scan, or T1rho and T2 on one grid), else its anatomy.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, naming a transfer syntax that cannot be decoded; UNREADABLE, when pixels
            cannot be decoded or a file is no longer the one that was received.
        ValueError: the assembly is not complete.
        OSError: a file cannot be read.
    """
    if not assembly.measured:
        raise ValueError(f"an exam that is {assembly.state} has nothing to read")
    first = assembly.measured[0]
    stacks: list[EchoStack] = []
    headers: list[Dataset] = []
    background: ImageVolume | None = None
    for series in assembly.measured:
        volumes, of_series = _read_series(series)
        background = background or ImageVolume(volumes[0], first.affine)
        stacks.extend(
            _stack(role, times_ms, series, volumes, first.affine) for role, times_ms in _times_of(series.card).items()
        )
        headers.extend(of_series)
    assert background is not None  # something was measured
    n_slices = len(first.grid[0])
    times_ms = {stack.role: stack.times_ms for stack in stacks}
    return ExamImages(
        background=background,
        stacks=tuple(stacks),
        scans=tuple(
            MeasuredScan(series.card.name, series.series_uids, tuple(_times_of(series.card)))
            for series in assembly.measured
        ),
        source=SourceExam(tuple(headers[:n_slices]), tuple(headers), first.affine, _pixels_digest(assembly.images)),
        acquisition=read_acquisition(assembly.measured, times_ms),
    )


def _times_of(card: ProtocolCard) -> dict[Quantity, tuple[float, ...]]:
    """The card's times of each quantity that it measures."""
    times = {Quantity.T1RHO: card.times.t1rho_ms, Quantity.T2: card.times.t2_ms}
    return {role: times_ms for role, times_ms in times.items() if times_ms}


def _stack(
    role: Quantity, card_times_ms: tuple[float, ...], series: ImageSeries, volumes: FloatArray, affine: Affine
) -> EchoStack:
    """The images of one decay, at the times that the scanner wrote: the card's are nominal, 12.8 ms for 12.847 ms.

    ``affine``: of the exam; another scan's positions may be rounded otherwise.
    """
    rows = [series.times_ms.index(time) for time in card_times_ms]
    written = [[time.written_ms for time in series.image_times[row]] for row in rows]
    times_ms = tuple(round(float(np.mean(of_slices)), 4) for of_slices in written)
    return EchoStack(role, volumes[rows], times_ms, affine)


def _pixels_digest(images: Iterable[ImageFacts]) -> str:
    """SHA-256 over which pixels each image has: two contents under the same UIDs are two exams."""
    lines = sorted(" ".join((*map(str, one.key), one.pixel_sha256)) for one in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_dicom_files(paths: Iterable[Path]) -> list[Path]:
    """Every regular file in ``paths`` (files, or folders searched to any depth), sorted, each once.

    A file's name tells nothing, so all are to be tried, but DICOMDIR is an index and holds no image.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            found.add(path)
        for folder, _, names in os.walk(path):
            found.update(Path(folder) / name for name in names)
    return sorted(path for path in found if path.name.upper() != "DICOMDIR" and path.is_file())


def _read_series(series: ImageSeries) -> tuple[FloatArray, tuple[Dataset, ...]]:
    """Signal (times, slices, rows, columns) and the headers, without pixels, in the same order."""
    images, headers = [], []
    for image, header in read_images(series.instances, series.card.scaling):
        images.append(image)
        headers.append(header)
    shape = (len(series.times_ms), len(series.grid[0]), *images[0].shape)
    return np.stack(images).reshape(shape), tuple(headers)
