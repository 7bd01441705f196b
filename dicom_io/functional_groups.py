"""The native grid as DICOM functional groups, from the affine rather than from headers that may omit spacings."""

from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.enum import CoordinateSystemNames

from dicom_io.sources import SourceExam
from processing.volume import spacing_mm


def pixel_measures(source: SourceExam) -> PixelMeasuresSequence:
    """Spacings in mm; the slice thickness is the source's where it tells one, else the slice spacing."""
    slices, rows, columns = spacing_mm(source.affine)
    thickness = source.grid_instances[0].get("SliceThickness")
    return PixelMeasuresSequence(
        pixel_spacing=(rows, columns),
        slice_thickness=float(thickness) if thickness else slices,
        spacing_between_slices=slices,
    )


def plane_orientation(source: SourceExam) -> PlaneOrientationSequence:
    """The direction cosines of rows and columns, as the source writes them (the same in all slices)."""
    orientation = [float(cosine) for cosine in source.grid_instances[0].ImageOrientationPatient]
    return PlaneOrientationSequence(CoordinateSystemNames.PATIENT, orientation)


def plane_positions(source: SourceExam) -> list[PlanePositionSequence]:
    """The position of each slice, in the order of the native grid, as the source writes it."""
    return [
        PlanePositionSequence(CoordinateSystemNames.PATIENT, [float(mm) for mm in instance.ImagePositionPatient])
        for instance in source.grid_instances
    ]
