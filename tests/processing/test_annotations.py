from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from processing.annotations import (
    AnnotationError,
    name_from_below,
    read_annotated_folder,
    read_geometry,
    read_volume,
    subject_visit,
)
from processing.results import Level

SHAPE = (3, 40, 20)  # slices, rows, columns
SPACING = (4.0, 2.0, 1.5)

#: Every way to store the canonical grid: which array axis is which, and which of them run backwards.
ORDERS = (((0, 1, 2), (False, False, False)), ((2, 0, 1), (True, False, True)), ((1, 2, 0), (False, True, True)))


def canonical_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) * SPACING
    affine[:3, 3] = (12.0, -7.0, 33.0)
    return affine


def save(array: np.ndarray, path: Path, order=(0, 1, 2), backwards=(False, False, False), shift=0.0) -> None:
    """A canonical array stored with its axes in another order, some of them reversed; the geometry says so."""
    affine = canonical_affine()
    stored = array.transpose(order)
    matrix = affine[:3, :3][:, list(order)].copy()
    origin = affine[:3, 3] + affine[:3, 1] * shift
    for axis, flip in enumerate(backwards):
        if flip:
            stored = np.flip(stored, axis)
            origin = origin + matrix[:, axis] * (stored.shape[axis] - 1)
            matrix[:, axis] *= -1
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(stored))
    itk_order = matrix[:, ::-1]
    spacing = np.linalg.norm(itk_order, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((itk_order / spacing).ravel().tolist())
    image.SetOrigin(origin.tolist())
    SimpleITK.WriteImage(image, str(path))


def numbered(dtype=np.int16) -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE)


def discs(values: list[int]) -> np.ndarray:
    """Flat discs, from below: rows 36-37 hold the first value, rows 28-29 (16 mm above) the next, and so on."""
    mask = np.zeros(SHAPE, np.uint8)
    for index, value in enumerate(values):
        mask[:, 36 - 8 * index : 38 - 8 * index, 5:15] = value
    return mask


@pytest.mark.parametrize(("order", "backwards"), ORDERS)
def test_any_axis_order_is_brought_to_the_canonical_one(tmp_path, order, backwards):
    path = tmp_path / "x.mha"
    save(numbered(), path, order, backwards)
    array, affine = read_volume(path)
    np.testing.assert_array_equal(array, numbered())
    np.testing.assert_allclose(affine, canonical_affine(), atol=1e-9)
    shape, header_affine = read_geometry(path)
    assert shape == SHAPE
    np.testing.assert_array_equal(header_affine, affine)


@pytest.mark.parametrize(("order", "backwards"), ORDERS)
def test_public_spider_release_in_any_axis_order(tmp_path, order, backwards):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = discs([201, 202, 203, 204]).astype(np.uint8)
    mask[:, 2:4, 5:15] = 208  # a disc far above the lumbar spine
    mask[:, 32:34, 5:15] = 1
    mask[:, 24:26, 5:15] = 102
    mask[:, :, 18] = 100
    for series in ("t1", "t2_SPACE"):
        save(numbered(), tmp_path / "images" / f"7_{series}.mha", order, backwards)
        save(mask, tmp_path / "masks" / f"7_{series}.mha")
    first, second = read_annotated_folder(tmp_path)
    assert (first.subject, first.visit, second.subject, second.visit) == ("7", "t1", "7", "t2_SPACE")
    assert first.source == "spider"
    np.testing.assert_array_equal(first.image.array, numbered())
    for level in (1, 2, 3, 4):
        np.testing.assert_array_equal(first.levels == level, mask == 200 + level)
    assert first.missing == (Level.L1L2,)
    assert first.tissue is not None
    np.testing.assert_array_equal(first.tissue == 1, mask > 200)
    np.testing.assert_array_equal(first.tissue == 2, (mask == 1) | (mask == 102))
    np.testing.assert_array_equal(first.tissue == 4, mask == 100)


def test_unnamed_discs_are_named_from_below_and_fragments_join(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    for row in (37, 28, 19, 10):  # 18 mm apart
        mask[:, row, 5:15] = 1
    mask[0, 30, 17] = 1  # 4 mm below the second disc, not connected with it
    save(numbered(), tmp_path / "11_image.nii.gz")
    save(mask, tmp_path / "11_label.nii.gz")
    save(numbered(), tmp_path / "241_image.nii.gz")  # transitional anatomy: never named
    save(mask, tmp_path / "241_label.nii.gz")
    named, unnamed = read_annotated_folder(tmp_path)
    assert named.has_levels
    assert [int(named.levels[1, row, 8]) for row in (37, 28, 19, 10)] == [1, 2, 3, 4]
    assert named.levels[0, 30, 17] == Level.L4L5
    assert not unnamed.has_levels
    assert not unnamed.levels.any()
    assert unnamed.missing == ()
    assert unnamed.tissue is not None
    np.testing.assert_array_equal(unnamed.tissue == 1, mask == 1)


def test_only_six_discs_get_a_level():
    stack = np.zeros((1, 90, 4), bool)
    stack[0, 5:90:10] = True  # nine discs, 10 rows of 2 mm apart
    levels = name_from_below(stack, 2.0)
    assert sorted(set(levels[0, :, 0].tolist())) == [0, 1, 2, 3, 4, 5, 6]
    assert levels[0, 85, 0] == Level.L5S1
    assert levels[0, 35, 0] == Level.T12L1


def test_site_masks_and_simulated_truth(tmp_path):
    save(numbered(np.float32), tmp_path / "A_1_image.nii.gz")
    save(discs([1, 2, 3, 4]), tmp_path / "A_1_mask.nii.gz")
    save(numbered(), tmp_path / "B_image.mha")
    truth = discs([1, 2, 3, 4])
    above = np.zeros(SHAPE, np.uint8)
    above[:, 2:4, 5:15] = 6
    np.savez(
        tmp_path / "B_truth.npz", labels=truth, upper_labels=above, classes=(truth > 0) * 1, affine=canonical_affine()
    )
    a, b = read_annotated_folder(tmp_path)
    assert (a.name, b.name) == ("A_1", "B")
    assert a.tissue is None
    assert a.stacks == ()
    np.testing.assert_array_equal(a.levels, truth)
    np.testing.assert_array_equal(b.levels, truth + above)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: save(discs([1]), d / "A_mask.mha", shift=0.5), "different geometry; voxels lie up to 1.00 mm apart"),
        (lambda d: save(discs([1])[:2], d / "A_mask.mha"), r"the mask has \(2, 40, 20\) voxels, its image \(3, 40"),
        (lambda d: save(discs([]), d / "A_mask.mha"), "A_mask.mha: the mask is empty"),
        (lambda d: save(discs([6]), d / "A_mask.mha"), "no disc from L5S1 to L1L2 is annotated"),
        (lambda d: save(discs([208, 1]), d / "A_mask.mha"), "no disc from L5S1 to L1L2 is annotated"),
        (lambda d: save(discs([1, 9]), d / "A_mask.mha"), "labels 9 are not known"),
        (lambda d: save(discs([1]) * 0.5, d / "A_mask.mha"), "no whole numbers"),
        (lambda d: (d / "A_mask.mha").write_bytes(b"not a volume"), "A_mask.mha: cannot be read"),
        (lambda d: (d / "A_truth.npz").write_bytes(b"not a truth"), "A_truth.npz: is no truth"),
        (lambda d: None, "A_image.mha: there is no mask or truth of it"),
        (lambda d: [save(discs([1]), d / f"A_mask{e}") for e in (".mha", ".nii")], "A: 2 masks for one subject"),
        (lambda d: [save(discs([1]), d / f"{n}_mask.mha") for n in "AB"], "B_mask.mha: there is no image of it"),
    ],
)
def test_bad_pairs_are_refused_before_any_exam_is_given(tmp_path, make, message):
    save(numbered(), tmp_path / "A_image.mha")
    make(tmp_path)
    with pytest.raises(AnnotationError, match=message):
        read_annotated_folder(tmp_path)


def test_two_images_of_one_visit_are_refused(tmp_path):
    for ending in (".mha", ".nii.gz"):
        save(numbered(), tmp_path / f"A_2_image{ending}")
    save(discs([1]), tmp_path / "A_2_mask.mha")
    with pytest.raises(AnnotationError, match="A_2: 2 images for one subject and visit"):
        read_annotated_folder(tmp_path)


def test_axial_files_and_flat_pictures_are_refused(tmp_path):
    picture = tmp_path / "A_image.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((5, 5), np.int16)), str(picture))
    save(discs([1]), tmp_path / "A_mask.nii.gz")
    with pytest.raises(AnnotationError, match="three dimensions"):
        read_annotated_folder(tmp_path)
    turned = np.eye(4)
    angle = np.deg2rad(40)
    turned[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    image = SimpleITK.GetImageFromArray(np.ones((5, 5, 5), np.int16))
    image.SetDirection(turned[:3, :3].ravel().tolist())
    SimpleITK.WriteImage(image, str(picture))
    with pytest.raises(AnnotationError, match="not sagittal"):
        read_annotated_folder(tmp_path)


def test_names_tell_subject_and_visit_or_are_refused():
    assert subject_visit("PH-001_2") == ("PH-001", "2")
    assert subject_visit("PH-001") == ("PH-001", "")
    for unclear in ("a_b_c", "a_", "_2"):
        with pytest.raises(AnnotationError, match="SUBJECT_VISIT expected"):
            subject_visit(unclear)


def test_a_folder_without_pairs_says_so(tmp_path):
    with pytest.raises(AnnotationError, match="holds no pair"):
        read_annotated_folder(tmp_path)
    with pytest.raises(AnnotationError, match="no such folder"):
        read_annotated_folder(tmp_path / "absent")
