"""Atlas space in DICOM: a frame of reference of its own, and a series of the atlas in which its maps can be shown.

Nothing in it lies where the patient lies. The discs stand one above the other, each level at a place of its own
(:mod:`processing.atlas_layout`); the frame of reference is the same for all exams registered to the same atlas, so that
the same position is the same place of the same disc in all of them.
"""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage
from pydicom.valuerep import DSfloat

from dicom_io.reference_images import image_uid
from dicom_io.source_attributes import geometry_header
from dicom_io.sources import SourceExam
from dicom_io.uids import derived_uid, result_uid
from processing.atlas_layout import AtlasLayout, alike, lay_out
from processing.results import ExamResult, RegisteredDisc
from processing.volume import spacing_mm


def atlas_layouts(result: ExamResult) -> list[tuple[str, AtlasLayout, Sequence[RegisteredDisc]]]:
    """Role, layout and discs; one layout, with the role ``atlas``, unless the atlas' discs have different grids."""
    discs = {id(one.atlas): one for one in result.registered}
    groups = alike([one.atlas for one in result.registered])
    return [
        ("atlas" if number == 1 else f"atlas{number}", lay_out(group), [discs[id(one)] for one in group])
        for number, group in enumerate(groups, start=1)
    ]


def atlas_frame_uid(result: ExamResult, layout: AtlasLayout) -> UID:
    """The frame of reference of a layout: it follows from the atlas alone, whatever discs and patient.

    Raises:
        KeyError: the result does not say which atlas it was made with.
    """
    axes = " ".join(f"{number:.6f}" for number in layout.affine[:3, :3].ravel())
    return derived_uid("atlas frame", result.versions["atlas_sha256"], f"{_dimension(layout)}d", axes)


def atlas_images(result: ExamResult, source: SourceExam, layout: AtlasLayout, role: str) -> SourceExam:
    """Headers, of geometry and identity alone, of the atlas series, one per slice of the layout."""
    n_slices, n_rows, n_columns = layout.shape
    slices, rows, columns = spacing_mm(layout.affine)
    headers = []
    for index in range(n_slices):
        header = geometry_header(source.grid_instances[0], source)
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, image_uid(result, source, role, index)
        header.SeriesInstanceUID = result_uid(result, source, f"{role}/series")
        header.FrameOfReferenceUID = atlas_frame_uid(result, layout)
        header.PositionReferenceIndicator = None
        header.Rows, header.Columns = n_rows, n_columns
        header.PixelSpacing = [DSfloat(mm, auto_format=True) for mm in (rows, columns)]
        header.SliceThickness = DSfloat(slices, auto_format=True)
        axes = (layout.affine[:3, 2] / columns, layout.affine[:3, 1] / rows)
        header.ImageOrientationPatient = [DSfloat(one, auto_format=True) for one in np.concatenate(axes)]
        place = layout.affine[:3, 3] + index * layout.affine[:3, 0]
        header.ImagePositionPatient = [DSfloat(mm, auto_format=True) for mm in place]
        _forget_losses(header)
        headers.append(header)
    return SourceExam(tuple(headers), tuple(headers), layout.affine)


def _forget_losses(header: Dataset) -> None:
    """The atlas was not compressed, whatever the patient's images were."""
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in header:
            del header[keyword]


def _dimension(layout: AtlasLayout) -> int:
    return 2 if layout.shape[0] == 1 else 3
