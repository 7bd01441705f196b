"""A result's folder read back: every voxel where it was, whichever discs an exam has."""

from pathlib import Path

import numpy as np
import pytest

from dicom_io.result_objects import write_objects
from dicom_io.result_reader import UnreadableResult, read_atlas_maps, read_native_discs
from processing.results import Level, Quantity
from tests import example_exam

LEVELS = tuple(Level)[:5]
PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same subject with all discs, and with two of them."""
    made = {}
    for name, levels in (("all", LEVELS), ("two", (Level.L4L5, Level.L2L3))):
        folder = tmp_path_factory.mktemp(name)
        result = example_exam.exam_result(levels)
        write_objects(result, example_exam.source_exam(), PICTURE, folder)
        made[name] = result, folder
    return made


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    places = np.argwhere(mask)
    return tuple(slice(a, b + 1) for a, b in zip(places.min(axis=0), places.max(axis=0), strict=True))


@pytest.mark.parametrize("name", ["all", "two"])
def test_maps_in_atlas_space_come_back_with_their_regions_and_nan(written, name):
    result, folder = written[name]
    found = read_atlas_maps(folder)
    assert set(found) == {one.alignment.level for one in result.registered}
    for one in result.registered:
        box = box_of(one.atlas.mask)
        disc = found[one.alignment.level]
        np.testing.assert_array_equal(disc.regions, one.atlas.regions[box])
        assert disc.spacing_mm == pytest.approx((4.0, 0.78125, 0.78125))
        for quantity in Quantity:
            np.testing.assert_array_equal(disc.times_ms[quantity], one.maps[quantity].time_ms[box])
            np.testing.assert_array_equal(disc.standard_errors_ms[quantity], one.maps[quantity].standard_error_ms[box])
            assert np.isnan(disc.times_ms[quantity][one.atlas.mask[box] > 0]).sum() == 1


def test_a_disc_s_voxels_are_the_same_whichever_other_discs_there_are(written):
    all_discs, two = (read_atlas_maps(written[name][1]) for name in ("all", "two"))
    for level in two:
        np.testing.assert_array_equal(all_discs[level].regions, two[level].regions)
        np.testing.assert_array_equal(all_discs[level].times_ms[Quantity.T2], two[level].times_ms[Quantity.T2])


def test_discs_and_images_in_the_patient_s_space_come_back(written):
    result, folder = written["all"]
    found = read_native_discs(folder)
    np.testing.assert_array_equal(found.levels, result.mask.levels)
    np.testing.assert_allclose(found.affine, result.mask.affine, atol=1e-5)
    background = result.background.array
    step = float(background.max()) / 4095  # it was stretched from zero
    np.testing.assert_allclose(found.background * step, background, atol=step)


def test_a_folder_that_lacks_something_is_an_error_that_names_it(written, tmp_path):
    assert read_atlas_maps(tmp_path) == {}
    with pytest.raises(UnreadableResult, match="no series of the role reference"):
        read_native_discs(tmp_path)
    _copy(written["all"][1], tmp_path, leave="seg.dcm")
    with pytest.raises(UnreadableResult, match=r"seg\.dcm is missing"):
        read_native_discs(tmp_path)
    (tmp_path / "dicom" / "t2-atlas.dcm").write_bytes(b"\0" * 200)
    with pytest.raises(UnreadableResult, match=r"t2-atlas\.dcm cannot be read"):
        read_atlas_maps(tmp_path)


def _copy(source: Path, target: Path, *, leave: str) -> None:
    (target / "dicom").mkdir()
    for path in (source / "dicom").iterdir():
        if path.name != leave:
            (target / "dicom" / path.name).write_bytes(path.read_bytes())
