"""An assembled exam -> arrays: pixels decoded and scaled, slices in native order, echoes by time."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from dicom_io.pixels import read_image
from dicom_io.series import ExamAssembly
from dicom_io.slice_grid import ImageSeries
from dicom_io.sources import SourceExam
from processing.results import EchoStack, FloatArray, ImageVolume, Quantity


@dataclass(frozen=True, slots=True, eq=False)
class ExamImages:
    """What is measured of one exam, on its native grid.

    ``background`` is what is segmented: the image at the shortest time, or the anatomy of an exam without echoes.
    ``stacks`` is empty for such an exam. ``protocols``: names of the cards. ``source``: headers for the writers.
    """

    background: ImageVolume
    stacks: tuple[EchoStack, ...]
    protocols: tuple[str, ...]
    source: SourceExam

    @property
    def times_ms(self) -> Mapping[Quantity, tuple[float, ...]]:
        """The spin-lock times of T1rho and the preparation times of T2, as far as there are any."""
        return {stack.role: stack.times_ms for stack in self.stacks}


def read_exam(assembly: ExamAssembly) -> ExamImages:
    """Read the pixels of a complete exam: its relaxometry series, else its anatomy.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, naming a transfer syntax that cannot be decoded; UNREADABLE, when pixels
            cannot be decoded or a file is no longer the one that was received.
        ValueError: the assembly is not complete.
        OSError: a file cannot be read.
    """
    series = next(iter(assembly.measured), None)
    if series is None:
        raise ValueError(f"an exam that is {assembly.state} has nothing to read")
    volumes, headers = _read_series(series)
    times = series.card.times
    stacks = tuple(
        _stack(role, times_ms, series, volumes)
        for role, times_ms in ((Quantity.T1RHO, times.t1rho_ms), (Quantity.T2, times.t2_ms))
        if times_ms
    )
    n_slices = len(series.grid[0])
    return ExamImages(
        background=ImageVolume(volumes[0], series.affine),
        stacks=stacks,
        protocols=(series.card.name,),
        source=SourceExam(headers[:n_slices], headers, series.affine, _pixels_digest(series)),
    )


def _stack(role: Quantity, card_times_ms: tuple[float, ...], series: ImageSeries, volumes: FloatArray) -> EchoStack:
    """The images of one decay, at the times that the scanner wrote: the card's are nominal, 12.8 ms for 12.847 ms."""
    rows = [series.times_ms.index(time) for time in card_times_ms]
    written = [[time.written_ms for time in series.image_times[row]] for row in rows]
    times_ms = tuple(round(float(np.mean(of_slices)), 4) for of_slices in written)
    return EchoStack(role, volumes[rows], times_ms, series.affine)


def _pixels_digest(series: ImageSeries) -> str:
    """SHA-256 over which pixels each image has: two contents under the same UIDs are two exams."""
    lines = sorted(f"{facts.sop_instance_uid} {facts.pixel_sha256}" for facts in series.instances)
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


def _read_series(series: ImageSeries) -> tuple[FloatArray, tuple[FileDataset, ...]]:
    """Signal (times, slices, rows, columns) and the headers, without pixels, in the same order."""
    images, headers = [], []
    for facts in series.instances:
        image, header = read_image(facts, series.card.scaling)
        images.append(image)
        headers.append(header)
    shape = (len(series.times_ms), len(series.grid[0]), *images[0].shape)
    return np.stack(images).reshape(shape), tuple(headers)
