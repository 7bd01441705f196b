"""How a disc was brought into the atlas, as a Deformable Spatial Registration (PS3.3 A.39.2, C.20.3), one per disc.

The registered frame of reference is the atlas', the source's the patient's: PS3.3 C.20.3.1.1 leads from a point of the
former to the point of the latter where its value is to be sampled, as the transform of the registration does.
"""

import numpy as np
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import DeformableSpatialRegistrationStorage, ExplicitVRLittleEndian

from dicom_io.atlas_images import atlas_frame_uid
from dicom_io.codes import IMAGE_CONTENT_ALIGNMENT, code_item
from dicom_io.source_attributes import complete, equipment, identity, mark_lumbar_spine
from dicom_io.source_references import image_references, name_source_images
from dicom_io.sources import SourceExam
from processing.atlas_layout import AtlasLayout
from processing.deformation_field import DeformationField, deformation_field
from processing.display import LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import ExamResult, RegisteredDisc
from processing.volume import spacing_mm

#: The number of a level is added: 9041 is that of L5/S1.
SERIES_NUMBER = 9040


def deformation_object(result: ExamResult, source: SourceExam, layout: AtlasLayout, disc: RegisteredDisc) -> Dataset:
    """The deformation of one disc of a layout: matrix and displacements (mm) on the disc's atlas grid."""
    level = disc.alignment.level
    role = f"deformation-{level.name.lower()}"
    dataset = SOPClass(
        study_instance_uid=source.grid_instances[0].StudyInstanceUID,
        sop_class_uid=DeformableSpatialRegistrationStorage,
        modality="REG",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identity(result, source, role, SERIES_NUMBER + level.value),
        **equipment(result),
    )
    name = f"{LEVEL_NAMES[level]} disc"
    dataset.ContentLabel = "DEFORMATION"
    dataset.ContentDescription = f"Atlas to patient, {name}. {RESEARCH_USE_ONLY}"
    dataset.FrameOfReferenceUID = atlas_frame_uid(result, layout)
    dataset.PositionReferenceIndicator = None
    item = _registration(deformation_field(disc, source.affine, layout.affine_of(level)))
    item.SourceFrameOfReferenceUID = source.grid_instances[0].FrameOfReferenceUID
    item.FrameOfReferenceTransformationComment = f"{name}: affine, then B-spline with rigidity penalty"
    item.ReferencedImageSequence = image_references(source.grid_instances)
    dataset.DeformableRegistrationSequence = [item]
    complete(dataset, result, source, role=role, description=f"Deformation, {name}")
    mark_lumbar_spine(dataset)
    name_source_images(dataset, source.grid_instances)
    del dataset.SourceImageSequence  # of images only
    return dataset


def _registration(field: DeformationField) -> Dataset:
    """An item of Deformable Registration Sequence; x runs along rows, y along columns, z across slices."""
    slices, rows, columns = spacing_mm(field.affine)
    displacements = field.displacements_mm
    first = field.affine[:3, 3]
    axes = field.affine[:3, 2] / columns, field.affine[:3, 1] / rows
    if np.cross(*axes) @ field.affine[:3, 0] < 0:  # z ascends along x cross y
        first, displacements = first + (len(displacements) - 1) * field.affine[:3, 0], displacements[::-1]
    grid = Dataset()
    grid.ImageOrientationPatient = [round(float(cosine), 10) for cosine in np.concatenate(axes)]
    grid.ImagePositionPatient = [round(float(mm), 6) for mm in first]
    grid.GridDimensions = list(displacements.shape[2::-1])
    grid.GridResolution = [columns, rows, slices]
    grid.VectorGridData = np.ascontiguousarray(displacements, dtype="<f4").tobytes()
    matrix = Dataset()
    matrix.FrameOfReferenceTransformationMatrixType = "AFFINE"
    matrix.FrameOfReferenceTransformationMatrix = [round(float(number), 9) for number in field.matrix.ravel()]
    item = Dataset()
    item.RegistrationTypeCodeSequence = [code_item(IMAGE_CONTENT_ALIGNMENT)]
    item.PreDeformationMatrixRegistrationSequence = [matrix]
    item.DeformableRegistrationGridSequence = [grid]
    return item
