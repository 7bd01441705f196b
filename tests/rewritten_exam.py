"""Simulated exams rewritten as sites, scanners and anonymisers change them: other orders, planes and identifiers.

Each function takes the files of :func:`dicom_io.simulated_scanner.write_exam` and writes new ones; the truth of the
exam stays as it was, but for :func:`turned`, which turns the patient.
"""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import UID


def rewrite(paths: Sequence[Path], folder: Path, change: Callable[[Dataset], None]) -> list[Path]:
    """Write each file again after ``change``, with SOP instance UIDs of its own."""
    written = []
    for number, path in enumerate(paths, start=1):
        dataset = dcmread(path)
        dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID, folder.name)
        change(dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        target = folder / f"{number:05d}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target, enforce_file_format=True)
        written.append(target)
    return written


def other_uid(uid: str, *what: object) -> UID:
    """A UID that follows from another one and from ``what``."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, (uid, *what)))).int}")


def a_study_for_each_time(paths: Sequence[Path], folder: Path) -> list[Path]:
    """As anonymised exams come: Study and Series Instance UID differ between the times (GE, classic)."""

    def change(dataset: Dataset) -> None:
        time = dataset.get("EchoTime")
        dataset.StudyInstanceUID = other_uid(dataset.StudyInstanceUID, time)
        dataset.SeriesInstanceUID = other_uid(dataset.SeriesInstanceUID, time)

    return rewrite(paths, folder, change)


def a_series_for_each_image(paths: Sequence[Path], folder: Path) -> list[Path]:
    """As some archives hand images out: each in a series of its own (classic)."""

    def change(dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = other_uid(dataset.SeriesInstanceUID, dataset.SOPInstanceUID)

    return rewrite(paths, folder, change)


def renumbered(paths: Sequence[Path], folder: Path, number: Callable[[int, int], int]) -> list[Path]:
    """InstanceNumber n of a series of N images becomes ``number(n, N)`` (classic)."""
    counts: dict[str, int] = {}
    for path in paths:
        uid = dcmread(path, stop_before_pixels=True).SeriesInstanceUID
        counts[uid] = counts.get(uid, 0) + 1

    def change(dataset: Dataset) -> None:
        dataset.InstanceNumber = number(int(dataset.InstanceNumber), counts[dataset.SeriesInstanceUID])

    return rewrite(paths, folder, change)


def interleaved(number: int, n_images: int) -> int:
    """Odd images first, then the even ones."""
    return (number + 1) // 2 if number % 2 else (n_images + 1) // 2 + number // 2


def backwards(number: int, n_images: int) -> int:
    """The last image first."""
    return n_images + 1 - number


def turned(paths: Sequence[Path], folder: Path, turn: np.ndarray) -> list[Path]:
    """The patient turned by a rotation (3, 3) about the isocentre: planes that are oblique to all axes."""

    def change(dataset: Dataset) -> None:
        groups = dataset.get("PerFrameFunctionalGroupsSequence", [])
        places = [dataset] if not groups else [frame.PlanePositionSequence[0] for frame in groups]
        planes = [dataset] if not groups else [frame.PlaneOrientationSequence[0] for frame in groups]
        for place in places:
            place.ImagePositionPatient = _decimals(turn @ np.array(place.ImagePositionPatient, dtype=float))
        for plane in planes:
            orientation = np.array(plane.ImageOrientationPatient, dtype=float).reshape(2, 3)
            plane.ImageOrientationPatient = _decimals((orientation @ turn.T).ravel())

    return rewrite(paths, folder, change)


def upside_down(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Rows stored from the last to the first, and the header says so: the same image of the same place (classic)."""

    def change(dataset: Dataset) -> None:
        down = np.array(dataset.ImageOrientationPatient, dtype=float)[3:]
        first = np.array(dataset.ImagePositionPatient, dtype=float)
        last = first + (dataset.Rows - 1) * float(dataset.PixelSpacing[0]) * down
        dataset.ImagePositionPatient = _decimals(last)
        dataset.ImageOrientationPatient = [*dataset.ImageOrientationPatient[:3], *_decimals(-down)]
        dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[::-1]).tobytes()

    return rewrite(paths, folder, change)


def _decimals(values: np.ndarray) -> list[str]:
    return [f"{value:.8f}"[:16] for value in values]
