"""The native images of a result read back from its own DICOM objects: segmented image, discs, maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from dicom_io.map_writer import map_name
from dicom_io.reference_images import REFERENCE
from dicom_io.segmentation_reader import read_segmentation
from processing.results import Affine, FloatArray, ImageVolume, LabelArray, Quantity
from processing.visit_images import VisitImages
from processing.volume import affine_from_orientation


class ResultIncomplete(Exception):
    """A result folder lacks an object that its pictures are made from."""


def read_visit_images(folder: Path) -> VisitImages:
    """The images of one result, from its folder ``dicom``.

    Raises:
        ResultIncomplete: retention has taken the objects, or the result never had them.
        UnsuitableInput: the segmentation cannot be read.
    """
    places = sorted((folder / "dicom").glob(f"{REFERENCE}-*.dcm"))
    segmentation = folder / "dicom" / "seg.dcm"
    if not places or not segmentation.is_file():
        raise ResultIncomplete("the result has no images any more")
    images = [pydicom.dcmread(path) for path in places]
    affine = _affine(images)
    pixels = np.stack([image.pixel_array for image in images]).astype(np.float32)
    levels = _on_grid(*read_segmentation(segmentation), affine, pixels.shape)
    maps = {}
    for quantity in Quantity:
        path = folder / "dicom" / f"{map_name(quantity)}.dcm"
        if path.is_file():
            maps[quantity] = _map_values(pydicom.dcmread(path), affine, pixels.shape)
    return VisitImages(ImageVolume(pixels, affine), levels, maps)


def _affine(images: Sequence[Dataset]) -> Affine:
    """Of a series of ours, whose images are numbered along the slices."""
    return affine_from_orientation(
        [float(one) for one in images[0].ImageOrientationPatient],
        [[float(mm) for mm in image.ImagePositionPatient] for image in images],
        [float(one) for one in images[0].PixelSpacing],
        single_slice_mm=float(images[0].SliceThickness),
    )


def _on_grid(array: LabelArray, own: Affine, affine: Affine, shape: tuple[int, ...]) -> LabelArray:
    """Labels of some slices put where they lie in the whole grid."""
    whole = np.zeros(shape, np.uint8)
    inverse = np.linalg.inv(affine)
    for index, labels in enumerate(array):
        place = inverse @ own @ np.array([index, 0, 0, 1.0])
        whole[round(float(place[0]))] = labels
    return whole


def _map_values(dataset: Dataset, affine: Affine, shape: tuple[int, ...]) -> FloatArray:
    """A Parametric Map of ours; its 0 is no value."""
    frames = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(-1, dataset.Rows, dataset.Columns)
    values = np.full(shape, np.nan, np.float32)
    inverse = np.linalg.inv(affine)
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(mm) for mm in group.PlanePositionSequence[0].ImagePositionPatient]
        place = inverse @ np.array([*position, 1.0])
        values[round(float(place[0]))] = np.where(frame > 0, frame, np.nan)
    return values
