"""All DICOM objects of one result, made and written."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from config.settings import ObjectKind
from dicom_io.atlas_images import atlas_layouts
from dicom_io.deformation_writer import deformation_object
from dicom_io.document_writer import ReportPdf, document_object
from dicom_io.map_writer import MapKind, atlas_map_object, map_name, map_object
from dicom_io.mr_writer import atlas_series, reference_series, scaled_map_role, scaled_map_series
from dicom_io.outline_writer import outline_object
from dicom_io.overlay_writer import overlay_object
from dicom_io.reference_images import REFERENCE, needs_reference
from dicom_io.report_writer import report_object
from dicom_io.segmentation_writer import segmentation_object
from dicom_io.sources import SourceExam
from processing.results import ExamResult, Quantity

#: Kinds that refer to the derived series with one image per slice: it goes wherever one of them goes.
_SHOWN_ON_REFERENCE = (ObjectKind.SEG, ObjectKind.PMAP, ObjectKind.SR)
#: Kinds in the frame of reference of the atlas, whose only images are those of its series.
_SHOWN_ON_ATLAS = (ObjectKind.PMAP, ObjectKind.DEFORMATION)


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """A DICOM object on disk. ``path`` is relative to the folder of the result.

    ``needed_by``: kinds of objects that refer to this one and would not be shown without it.
    """

    kind: ObjectKind
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    needed_by: tuple[ObjectKind, ...] = ()

    def goes_with(self, kinds: Collection[ObjectKind]) -> bool:
        """Whether a destination that receives these kinds of objects receives this one."""
        return self.kind in kinds or any(kind in kinds for kind in self.needed_by)


def write_objects(
    result: ExamResult,
    source: SourceExam,
    picture: npt.NDArray[np.uint8],
    folder: Path,
    pdf: ReportPdf | None = None,
) -> tuple[WrittenObject, ...]:
    """Write segmentation, maps, MR series, measurements, overview and report of a result into ``folder / "dicom"``.

    An exam without echoes has no maps; its report holds volumes only. Writing the same result twice gives the same
    bytes.

    Args:
        result: with at least one disc.
        source: the images it was measured from.
        picture: the overview, (rows, columns, 3) uint8 sRGB.
        folder: exists; gets a subfolder ``dicom``.
        pdf: the report for people, if there is one.
    """
    (folder / "dicom").mkdir()
    written = []
    for kind, name, dataset, needed_by in _make(result, source, picture, pdf):
        path = Path("dicom") / f"{name}.dcm"
        dataset.save_as(folder / path, enforce_file_format=True)
        written.append(WrittenObject(kind, path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), needed_by))
    return tuple(written)


def needed_by(kind: ObjectKind, path: Path) -> tuple[ObjectKind, ...]:
    """Kinds that need an object of this kind and file name, as :class:`WrittenObject` has them."""
    if kind is ObjectKind.SEG:
        return (ObjectKind.SR,)
    if kind is ObjectKind.MR and path.name.startswith(f"{REFERENCE}-"):
        return _SHOWN_ON_REFERENCE
    return _SHOWN_ON_ATLAS if kind is ObjectKind.MR and path.name.startswith("atlas") else ()


_Made = tuple[ObjectKind, str, Dataset, tuple[ObjectKind, ...]]


def _make(
    result: ExamResult, source: SourceExam, picture: npt.NDArray[np.uint8], pdf: ReportPdf | None
) -> Iterator[_Made]:
    """Kind, file name and object, and which kinds need it; what others refer to comes first."""
    if needs_reference(source):
        yield from _numbered(REFERENCE, reference_series(result, source), _SHOWN_ON_REFERENCE)
    segmentation = segmentation_object(result, source)
    yield ObjectKind.SEG, "seg", segmentation, (ObjectKind.SR,)  # whose numbers are those of its segments
    quantities = [quantity for quantity in Quantity if quantity in result.maps]
    for quantity in quantities:
        for kind in MapKind:
            yield ObjectKind.PMAP, map_name(quantity, kind), map_object(result, source, quantity, kind), ()
    for quantity in quantities:
        yield from _numbered(scaled_map_role(quantity), scaled_map_series(result, source, quantity))
    if quantities:
        yield from _in_atlas_space(result, source, quantities)
    yield ObjectKind.SR, "sr", report_object(result, source, segmentation), ()
    yield ObjectKind.SR, "sr-outlines", outline_object(result, source), ()
    yield ObjectKind.OVERLAY, "overlay", overlay_object(result, source, picture), ()
    if pdf is not None:
        yield ObjectKind.PDF, "report", document_object(result, source, pdf), ()


def _in_atlas_space(result: ExamResult, source: SourceExam, quantities: Sequence[Quantity]) -> Iterator[_Made]:
    """The maps in atlas space, with the atlas that they are shown on, and how each disc came there."""
    for role, layout, discs in atlas_layouts(result):
        yield from _numbered(role, atlas_series(result, source, layout, role), _SHOWN_ON_ATLAS)
        for quantity in quantities:
            for kind in MapKind:
                made = atlas_map_object(result, source, role, layout, discs, quantity, kind)
                yield ObjectKind.PMAP, map_name(quantity, kind, role), made, ()
        for disc in discs:
            name = f"deformation-{disc.alignment.level.name.lower()}"
            yield ObjectKind.DEFORMATION, name, deformation_object(result, source, layout, disc), ()


def _numbered(role: str, images: Iterator[Dataset], needed_by: tuple[ObjectKind, ...] = ()) -> Iterator[_Made]:
    for image in images:
        yield ObjectKind.MR, f"{role}-{image.InstanceNumber:03d}", image, needed_by
