"""The received images an exam was measured from, as the writers need them: headers by native slice."""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from dicom_io.raw_header import quiet_pydicom
from processing.results import Affine


def frame_number_of(instance: Dataset) -> int | None:
    """Which frame of its SOP instance a header is of, from 1; None when the instance is one image."""
    number = instance.get("ReferencedFrameNumber")
    return None if number is None else int(number)


def text_of(instance: Dataset, keyword: str) -> str:
    """The value as text, empty where there is none; pydicom says nothing of odd values, which may name the patient."""
    with quiet_pydicom():
        return str(instance.get(keyword) or "")


@dataclass(frozen=True, slots=True, eq=False)
class SourceExam:
    """Headers of one exam's images; PixelData may be absent.

    ``grid_instances``: one header per slice of the native grid, in its order (time 0 or first echo of a relaxometry
    series, or the images of the FSE series). ``all_instances``: every image that was used, the grid's among them.
    A frame of a multi-frame object has a header of its own, as :mod:`dicom_io.frame_view` makes it.
    ``affine`` (4, 4) maps (slice, row, column) indices to LPS mm, as in :mod:`processing.results`.
    ``pixels_sha256`` tells two contents under the same UIDs apart.
    """

    grid_instances: tuple[Dataset, ...]
    all_instances: tuple[Dataset, ...]
    affine: Affine
    pixels_sha256: str = ""

    def __post_init__(self) -> None:
        if not self.grid_instances:
            raise ValueError("an exam has at least one slice")

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """UIDs of all images used, sorted and each once."""
        return tuple(sorted({str(instance.SOPInstanceUID) for instance in self.all_instances}))

    @property
    def series_uids(self) -> tuple[str, ...]:
        """UIDs of all series used, sorted and each once."""
        return tuple(sorted({str(instance.SeriesInstanceUID) for instance in self.all_instances}))

    @property
    def slice_indices(self) -> tuple[int, ...]:
        """For each of ``all_instances``, the slice of the native grid that lies nearest."""
        places = np.array([[float(mm) for mm in image.ImagePositionPatient] for image in self.all_instances])
        nearest = np.rint(np.linalg.solve(self.affine[:3, :3], (places - self.affine[:3, 3]).T)[0])
        return tuple(np.clip(nearest, 0, len(self.grid_instances) - 1).astype(int).tolist())
