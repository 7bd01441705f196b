"""Maps in atlas space: their own frame of reference, the values of each disc at the place of its level."""

import dataclasses

import example_exam
import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from dicom_io.atlas_images import atlas_frame_uid, atlas_layouts
from dicom_io.result_objects import write_objects
from processing.results import Level, Quantity

PICTURE = np.zeros((20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """(result, written, {file name: object})"""
    folder = tmp_path_factory.mktemp("atlas")
    result = example_exam.exam_result()
    written = write_objects(result, example_exam.source_exam(), PICTURE, folder)
    return result, written, {path.stem: dcmread(path) for path in (folder / "dicom").glob("*atlas*")}


@pytest.mark.parametrize("name", ["t1rho-atlas", "t2-atlas", "t1rho-se-atlas", "t2-residual-atlas"])
def test_each_disc_has_its_values_at_its_place(exam, name):
    result, _, objects = exam
    ((_, layout, discs),) = atlas_layouts(result)
    volume = highdicom.pm.ParametricMap.from_dataset(objects[name]).get_volume()
    quantity = Quantity.T1RHO if name.startswith("t1rho") else Quantity.T2
    attribute = {"se": "standard_error_ms", "residual": "residual_rms"}.get(name.split("-")[1], "time_ms")
    for disc, first in zip(discs, layout.first, strict=True):
        truth = np.nan_to_num(getattr(disc.maps[quantity], attribute))
        index = np.argwhere(disc.atlas.mask)
        place_mm = (index + first) @ layout.affine[:3, :3].T + layout.affine[:3, 3]
        at = np.rint(np.linalg.solve(volume.affine[:3, :3], (place_mm - volume.affine[:3, 3]).T)).astype(int)
        np.testing.assert_array_equal(volume.array[tuple(at)], truth[tuple(index.T)])
    n_values = sum(np.isfinite(getattr(disc.maps[quantity], attribute)).sum() for disc in discs)
    assert (volume.array > 0).sum() == n_values


def test_atlas_objects_do_not_pretend_to_lie_in_the_patient(exam):
    assert len(exam[2]) == 6 + 2
    frames = {one.FrameOfReferenceUID for one in exam[2].values()}
    assert len(frames) == 1
    assert frames != {example_exam.FRAME_UID}
    for one in exam[2].values():
        assert "atlas" in one.SeriesDescription


def test_maps_refer_to_the_atlas_series_and_name_the_images_they_come_from(exam):
    _, written, objects = exam
    series = {str(one.SOPInstanceUID) for name, one in objects.items() if name.startswith("atlas-")}
    shown_on, made_from = objects["t2-atlas"].ReferencedSeriesSequence
    assert {str(one.ReferencedSOPInstanceUID) for one in shown_on.ReferencedInstanceSequence} == series
    named = {str(one.ReferencedSOPInstanceUID) for one in made_from.ReferencedInstanceSequence}
    assert named == set(example_exam.source_exam().sop_instance_uids)
    assert {one.needed_by for one in written if one.path.stem.startswith("atlas-")} == {("pmap", "deformation")}


def test_the_frame_of_reference_is_that_of_the_atlas_whatever_discs_and_patient(exam):
    result = exam[0]
    fewer = dataclasses.replace(result, registered=result.registered[1:3])
    other = dataclasses.replace(result, versions={**result.versions, "atlas_sha256": "ef" * 32})
    uids = [atlas_frame_uid(one, layout) for one in (result, fewer, other) for _, layout, _ in atlas_layouts(one)]
    assert uids[0] == uids[1] != uids[2]


def test_an_exam_of_which_no_disc_was_registered_has_no_maps_in_atlas_space(tmp_path):
    result = dataclasses.replace(example_exam.exam_result(), registered=())
    write_objects(result, example_exam.source_exam(), PICTURE, tmp_path)
    assert not list((tmp_path / "dicom").glob("*atlas*"))


def test_an_atlas_of_several_grids_gives_a_series_for_each(tmp_path):
    result = example_exam.exam_result()
    first = result.registered[0]
    stretched = dataclasses.replace(first.atlas, affine=first.atlas.affine * (1, 1, 2, 1))
    changed = dataclasses.replace(
        result, registered=(dataclasses.replace(first, atlas=stretched), *result.registered[1:])
    )
    write_objects(changed, example_exam.source_exam(), PICTURE, tmp_path)
    one, two = (dcmread(tmp_path / "dicom" / f"t2-{name}.dcm") for name in ("atlas", "atlas2"))
    assert one.FrameOfReferenceUID != two.FrameOfReferenceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    first_values = np.nan_to_num(first.maps[Quantity.T2].time_ms)
    assert sorted(one.pixel_array[one.pixel_array > 0]) == sorted(first_values[first_values > 0])
    assert first.alignment.level is Level.L5S1
