"""The folder of a result read back: maps in atlas space, the discs in the patient's space and a picture of them.

Only what :mod:`service.result_files` wrote is read here; a file that is not as written is an error, never a guess.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset

from dicom_io.map_writer import MapKind, map_name
from dicom_io.raw_header import parse
from dicom_io.segmentation_reader import read_segmentation
from processing.common_voxels import AtlasDiscMaps
from processing.refusal import UnsuitableInput
from processing.results import LUMBAR_LEVELS, Affine, FloatArray, LabelArray, Level, Quantity
from processing.volume import affine_from_orientation, spacing_mm

_OFF_GRID = 0.1  # of a voxel: positions are written with a few decimals


class UnreadableResult(Exception):
    """A result's folder lacks a file or holds one that is not as discnode wrote it."""


@dataclass(frozen=True, slots=True, eq=False)
class NativeDiscs:
    """The discs of an exam where they lie in the patient, and the images they were outlined on.

    ``levels`` (slices, rows, columns) uint8 with values of :class:`Level`; ``background`` the same shape, float32, in
    arbitrary units; ``affine`` index -> LPS mm.
    """

    levels: LabelArray
    background: FloatArray
    affine: Affine


def read_atlas_maps(folder: Path) -> dict[Level, AtlasDiscMaps]:
    """Every registered disc of a result in atlas space; none where nothing was registered.

    Args:
        folder: of the result; the one that holds ``result.json``.

    Raises:
        UnreadableResult: a file is missing or not as written.
    """
    found: dict[Level, AtlasDiscMaps] = {}
    for role in _atlas_roles(folder):
        labels, affine = _read_series(folder, role)
        maps = {kind: _read_maps(folder, role, kind, labels.shape) for kind in (MapKind.TIME, MapKind.STANDARD_ERROR)}
        for level in LUMBAR_LEVELS:
            places = np.argwhere(labels // 10 == level)
            if not len(places):
                continue
            box = tuple(slice(low, high + 1) for low, high in zip(places.min(axis=0), places.max(axis=0), strict=True))
            here = labels[box]
            of_level = here // 10 == level
            times, errors = (
                {
                    quantity: np.where(of_level & (values[box] > 0), values[box], np.nan).astype(np.float32)
                    for quantity, values in of_kind.items()
                }
                for of_kind in maps.values()
            )
            regions = np.where(of_level, here % 10, 0).astype(np.uint8)
            found[level] = AtlasDiscMaps(level, regions, spacing_mm(affine), times, errors)
    return found


def read_native_discs(folder: Path) -> NativeDiscs:
    """The discs of a result in the patient's space, on the grid of the images they were outlined on.

    Raises:
        UnreadableResult: a file is missing or not as written; an exam with one image per slice has no such images.
        UnsuitableInput: the segmentation is broken.
    """
    background, affine = _read_series(folder, "reference")
    levels = np.zeros(background.shape, np.uint8)
    path = folder / "dicom" / "seg.dcm"
    if not path.is_file():
        raise UnreadableResult(f"{path.name} is missing")
    held, held_affine = read_segmentation(path)
    within = np.argwhere(held)
    index = np.linalg.solve(affine, held_affine) @ np.column_stack([within, np.ones(len(within))]).T
    places = np.rint(index[:3]).astype(int)  # the slices of a Segmentation run the other way
    if np.abs(index[:3] - places).max() > _OFF_GRID or not _is_inside(places, levels):
        raise UnreadableResult("the segmentation does not lie on the images it was made on")
    levels[tuple(places)] = held[tuple(within.T)]
    return NativeDiscs(levels, background.astype(np.float32), affine)


@dataclass(frozen=True, slots=True, eq=False)
class NativeMap:
    """A map where it lies in the patient: ``time_ms`` (slices, rows, columns), NaN without a value; LPS ``affine``."""

    time_ms: FloatArray
    affine: Affine


def read_native_maps(folder: Path) -> dict[Quantity, NativeMap]:
    """The relaxation maps of a result in the patient's space, as far as there are any.

    Raises:
        UnreadableResult: a file is not as written.
    """
    maps = {}
    for quantity in Quantity:
        path = folder / "dicom" / f"{map_name(quantity, MapKind.TIME)}.dcm"
        if path.is_file():
            maps[quantity] = _native_map(_open(path), path.name)
    return maps


def _native_map(dataset: Dataset, name: str) -> NativeMap:
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    values = np.frombuffer(dataset.FloatPixelData, np.float32)
    if values.size != np.prod(shape):
        raise UnreadableResult(f"{name} does not hold its frames")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    positions = [
        [float(mm) for mm in group.PlanePositionSequence[0].ImagePositionPatient]
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    affine = affine_from_orientation(
        [float(one) for one in shared.PlaneOrientationSequence[0].ImageOrientationPatient],
        positions,
        [float(one) for one in measures.PixelSpacing],
        single_slice_mm=float(measures.SliceThickness),
    )
    time_ms = values.reshape(shape)
    return NativeMap(np.where(time_ms > 0, time_ms, np.nan).astype(np.float32), affine)


def _is_inside(places: npt.NDArray[np.int_], levels: LabelArray) -> bool:
    return bool((places >= 0).all() and (places < np.array(levels.shape)[:, None]).all())


def _atlas_roles(folder: Path) -> Iterator[str]:
    number = 1
    while (role := "atlas" if number == 1 else f"atlas{number}") and any((folder / "dicom").glob(f"{role}-*.dcm")):
        yield role
        number += 1


def _read_maps(folder: Path, role: str, kind: MapKind, shape: tuple[int, ...]) -> dict[Quantity, FloatArray]:
    """The maps of one kind, (slices, rows, columns), slices ascending along the normal as they are written."""
    maps = {}
    for quantity in Quantity:
        path = folder / "dicom" / f"{map_name(quantity, kind, role)}.dcm"
        if not path.is_file():
            continue
        dataset = _open(path)
        held = tuple(int(dataset.get(keyword) or 0) for keyword in ("NumberOfFrames", "Rows", "Columns"))
        values = dataset.get("FloatPixelData") or b""
        if held != shape or len(values) != 4 * math.prod(shape):
            raise UnreadableResult(f"{path.name} is not on the grid of the atlas")
        maps[quantity] = np.frombuffer(values, np.float32).reshape(shape)
    return maps


def _read_series(folder: Path, role: str) -> tuple[LabelArray, Affine]:
    """A derived series with one image per slice: stored values (slices, rows, columns) and affine."""
    images: list[Dataset] = [_open(path) for path in sorted((folder / "dicom").glob(f"{role}-[0-9]*.dcm"))]
    if not images:
        raise UnreadableResult(f"there is no series of the role {role}")
    images.sort(key=lambda image: int(image.InstanceNumber))
    for image in images:
        if len(image.get("PixelData") or b"") < 2 * int(image.Rows) * int(image.Columns):
            raise UnreadableResult(f"the {role} image {image.InstanceNumber} lacks a part of its pixels")
    arrays = [
        np.frombuffer(image.PixelData, "<u2", int(image.Rows) * int(image.Columns)).reshape(image.Rows, image.Columns)
        for image in images
    ]
    first = images[0]
    affine = affine_from_orientation(
        [float(one) for one in first.ImageOrientationPatient],
        [[float(one) for one in image.ImagePositionPatient] for image in images],
        [float(one) for one in first.PixelSpacing],
        single_slice_mm=float(first.SliceThickness),
    )
    return np.stack(arrays), affine


def _open(path: Path) -> FileDataset:
    try:
        return parse(path.read_bytes())
    except (OSError, UnsuitableInput) as error:
        raise UnreadableResult(f"{path.name} cannot be read ({error})") from error
