"""The deformation of a disc, applied as PS3.3 C.20.3.1.1 says, leads where the registration leads."""

import dataclasses
from io import BytesIO

import example_exam
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from scipy import ndimage
from simulated_disc_exam import registered_exam

from dicom_io.atlas_images import atlas_frame_uid, atlas_layouts
from dicom_io.deformation_writer import deformation_object
from dicom_io.sources import SourceExam
from processing.deformation_field import deformation_field
from processing.registration import deform
from processing.results import Level
from processing.transform_points import patient_index


@pytest.fixture(scope="module")
def flat():
    """Two discs of an exam of one slice, as elastix registered them."""
    return registered_exam(3, n_slices=1, levels=(Level.L5S1, Level.L2L3))


@pytest.fixture(scope="module")
def deep():
    """One disc of an exam of 12 slices."""
    return registered_exam(3, n_slices=12, levels=(Level.L4L5,))


def stored(dataset: Dataset) -> Dataset:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def objects_of(registered, affine):
    """(layout, disc, object) of each disc, of an exam whose native grid is ``affine``."""
    source = example_exam.source_exam()
    source = SourceExam(source.grid_instances[:1], source.all_instances, affine)
    result = dataclasses.replace(example_exam.exam_result(), registered=registered)
    ((_, layout, discs),) = atlas_layouts(result)
    return [(layout, disc, stored(deformation_object(result, source, layout, disc))) for disc in discs]


def applied(registration: Dataset, points_mm: np.ndarray) -> np.ndarray:
    """Points (3, n) of the registered frame of reference in the source's; offsets are interpolated linearly."""
    (item,) = registration.DeformableRegistrationSequence
    (grid,) = item.DeformableRegistrationGridSequence
    x, y, z = grid.GridDimensions
    offsets = np.frombuffer(grid.VectorGridData, "<f4").reshape(z, y, x, 3)
    orientation = np.array(grid.ImageOrientationPatient, float)
    axes = np.column_stack([orientation[:3], orientation[3:], np.cross(orientation[:3], orientation[3:])])
    at = np.linalg.solve(axes * grid.GridResolution, points_mm - np.array(grid.ImagePositionPatient, float)[:, None])
    moved = np.stack([ndimage.map_coordinates(offsets[..., k], at[::-1], order=1, mode="nearest") for k in range(3)])
    (pre,) = item.PreDeformationMatrixRegistrationSequence
    matrix = np.array(pre.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
    assert "PostDeformationMatrixRegistrationSequence" not in item
    return matrix[:3, :3] @ points_mm + matrix[:3, 3:] + moved


@pytest.mark.slow  # registers discs
@pytest.mark.parametrize("name", ["flat", "deep"])
def test_the_object_leads_from_the_atlas_to_the_place_in_the_patient(name, request):
    exam = request.getfixturevalue(name)
    affine = exam.mask.affine
    for layout, disc, made in objects_of(exam.registered, affine):
        index = np.argwhere(disc.atlas.mask).T.astype(float)
        own = layout.affine_of(disc.alignment.level)
        found = applied(made, own[:3, :3] @ index + own[:3, 3:])
        place = patient_index(disc.alignment, disc.atlas, affine, index)
        np.testing.assert_allclose(found, affine[:3, :3] @ place + affine[:3, 3:], atol=2e-3)


@pytest.mark.slow  # registers discs
@pytest.mark.parametrize("name", ["flat", "deep"])
def test_sampling_the_patient_by_the_object_gives_what_elastix_gives(name, request):
    exam = request.getfixturevalue(name)
    affine, image = exam.mask.affine, exam.stacks[0].signal[0]
    for layout, disc, made in objects_of(exam.registered, affine):
        index = np.argwhere(disc.atlas.mask).T
        own = layout.affine_of(disc.alignment.level)
        found_mm = applied(made, own[:3, :3] @ index + own[:3, 3:])
        at = np.linalg.solve(affine[:3, :3], found_mm - affine[:3, 3:])
        ours = ndimage.map_coordinates(image.astype(float), at, order=1, mode="nearest")
        theirs = deform(disc.alignment, image, affine, disc.atlas, order=1)[tuple(index)]
        np.testing.assert_allclose(ours, theirs, atol=0.5)  # of a signal of some hundreds


@pytest.mark.slow
def test_the_matrix_leaves_little_to_the_displacements(flat):
    for disc in flat.registered:
        field = deformation_field(disc, flat.mask.affine)
        inside = field.displacements_mm[disc.atlas.mask > 0]
        np.testing.assert_allclose(inside.mean(axis=0), 0, atol=1e-3)
        assert np.linalg.norm(inside, axis=1).max() < 5
        assert 0.3 < np.linalg.det(field.matrix[:3, :3]) < 3


def test_frames_of_reference_are_those_of_atlas_and_patient():
    result = example_exam.exam_result()
    for layout, disc, made in objects_of(result.registered, example_exam.affine()):
        (item,) = made.DeformableRegistrationSequence
        assert made.FrameOfReferenceUID == atlas_frame_uid(result, layout)
        assert item.SourceFrameOfReferenceUID == example_exam.FRAME_UID
        assert disc.alignment.level.name[:2] in made.SeriesDescription
        assert "Research use only" in made.SeriesDescription


def test_on_a_grid_whose_slices_descend_the_field_is_turned_round():
    """PS3.3 C.20.3.1.1: z is x cross y, which slices of an atlas need not follow."""
    exam = example_exam.exam_result()
    registered = []
    for disc in exam.registered:
        affine = disc.atlas.affine.copy()
        affine[:3, 0] *= -1
        registered.append(dataclasses.replace(disc, atlas=dataclasses.replace(disc.atlas, affine=affine)))
    bend = {
        "Transform": ("AffineTransform",),
        "TransformParameters": ("1.1", "0.2", "0", "0", "0.9", "0", "0.3", "0", "1", "4", "-5", "6"),
        "CenterOfRotationPoint": ("0", "0", "0"),
    }
    for disc in registered:
        alignment = dataclasses.replace(disc.alignment, transforms=(bend,))
        bent = dataclasses.replace(disc, alignment=alignment)
        ((layout, _, made),) = objects_of((bent,), example_exam.affine())
        index = np.argwhere(disc.atlas.mask).T.astype(float)
        own = layout.affine_of(disc.alignment.level)
        place = patient_index(alignment, disc.atlas, example_exam.affine(), index)
        truth = example_exam.affine()[:3, :3] @ place + example_exam.affine()[:3, 3:]
        np.testing.assert_allclose(applied(made, own[:3, :3] @ index + own[:3, 3:]), truth, atol=1e-3)
