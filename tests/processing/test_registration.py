"""Discs of known shape onto an atlas disc of known shape: overlap, no folding, same bits, any orientation."""

from dataclasses import replace

import numpy as np
import pytest

from processing import registration
from processing.atlas import load_atlas
from processing.deformation_quality import registration_loss, summarise_in_patient
from processing.disc_frame import disc_frame, grid_axes
from processing.disc_pairs import hard_pairs
from processing.elastix import ElastixFailed, interpolator
from processing.elastix_parameters import registration_parameters
from processing.fitting import FitStatus
from processing.registration import (
    RegistrationFailed,
    align_disc,
    deform,
    disc_task,
    fit_registered,
    register_disc,
)
from processing.results import AtlasDisc, DiscMask, EchoStack, Level, Quantity

SPACING_MM = (4.0, 0.78, 0.78)
AXES = np.array(
    [[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]
)  # slices to the right, rows to inferior, columns to posterior


def disc(shape, *, depth_mm=33.0, height_mm=9.0, wedge=0.2, tilt_deg=0.0, half_width_mm=23.0, power=2.6, sub=3):
    """A wedge-shaped superellipse, tilted in the sagittal plane, sampled on (slices, rows, columns)."""
    fine = [(np.arange(n * sub) - (n * sub - 1) / 2) * mm / sub for n, mm in zip(shape, SPACING_MM, strict=True)]
    if shape[0] == 1:
        fine[0] = np.zeros(sub)
    z, y, x = np.meshgrid(*fine, indexing="ij")
    tilt = np.radians(tilt_deg)
    x, y = np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x
    half = height_mm / 2 * np.maximum(1 - wedge * x / (depth_mm / 2), 0.25)
    inside = np.abs(x / (depth_mm / 2)) ** power + np.abs(z / half_width_mm) ** 2.6 + np.abs(y / half) ** 3 <= 1
    s, r, c = shape
    return (inside.reshape(s, sub, r, sub, c, sub).mean(axis=(1, 3, 5)) >= 0.5).astype(np.uint8)


def affine_of(shape, centre_mm=(12.0, -30.0, 55.0), turn=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ AXES * SPACING_MM
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def atlas_of(mask):
    return AtlasDisc(Level.L4L5, mask, mask, affine_of(mask.shape, centre_mm=(0, 0, 0)))


def turned(degrees, axis):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = [n for n in range(3) if n != axis]
    turn = np.eye(3)
    turn[first, first], turn[first, second], turn[second, first], turn[second, second] = c, -s, s, c
    return turn


FLAT_ATLAS = atlas_of(disc((1, 22, 54), height_mm=10.0))


@pytest.fixture(scope="module")
def pair():
    """A 2-D disc and its alignment."""
    mask = disc((1, 60, 76), depth_mm=30, height_mm=7, wedge=0.35, tilt_deg=14)
    return mask, affine_of(mask.shape), register_disc(mask, affine_of(mask.shape), FLAT_ATLAS)


@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_ten_hard_discs_reach_the_atlas_evenly_and_without_folding(preset):
    found = [register_disc(one.mask, one.affine, one.atlas, preset=preset) for one in hard_pairs(load_atlas(2), 10)]
    dice = np.array([one.dice for one in found])
    assert np.mean([one.dice_after_centroid for one in found]) < 0.85
    assert dice.mean() >= 0.96
    assert dice.min() >= 0.94
    assert all(one.n_folded == 0 and one.min_jacobian > 0 for one in found)
    assert max(one.sd_jacobian for one in found) < 0.10
    assert registration_loss(found) <= 0.07


def test_without_the_rigidity_penalty_the_same_discs_fold():
    affine, bspline = registration_parameters(2, "paper", 1)
    free = (affine, bspline | {"Metric1Weight": ("0",)})
    found = [register_disc(one.mask, one.affine, one.atlas, stages=free) for one in hard_pairs(load_atlas(2), 3)]
    assert all(one.n_folded > 0 and one.min_jacobian < 0 for one in found)
    assert all(np.isnan(one.sd_jacobian_patient) for one in found)  # it has no inverse
    assert registration_loss(found) > 0.3


def test_hard_pairs_are_the_same_for_a_seed_and_hard_in_both_dimensions():
    for dimension in (2, 3):
        first, again, other = (hard_pairs(load_atlas(dimension), 3, seed=seed) for seed in (1, 1, 2))
        assert all((a.mask == b.mask).all() and (a.affine == b.affine).all() for a, b in zip(first, again, strict=True))
        assert any(a.mask.shape != b.mask.shape or (a.mask != b.mask).any() for a, b in zip(first, other, strict=True))
        assert len({one.name for one in first}) == 3
    thick = hard_pairs(load_atlas(3), 1, slices=5, slice_mm=8.0)[0]
    assert np.any(thick.mask, axis=(1, 2)).sum() in (4, 5)
    assert np.linalg.norm(thick.affine[:3, 0]) == 8.0


def test_the_same_disc_twice_gives_the_same_bits(pair):
    mask, affine, first = pair
    second = register_disc(mask, affine, FLAT_ATLAS)
    assert (second.jacobian == first.jacobian).all()
    assert second.transforms == first.transforms
    assert second.dice == first.dice


@pytest.mark.parametrize(("axis", "degrees"), [(0, 30), (1, -30), (2, 30)])
def test_an_oblique_scan_plane_registers_as_an_upright_one(pair, axis, degrees):
    mask, _, upright = pair
    turn = turned(degrees, axis)
    oblique = register_disc(mask, affine_of(mask.shape, turn=turn), FLAT_ATLAS)
    assert oblique.dice == pytest.approx(upright.dice, abs=0.01)
    assert oblique.sd_jacobian == pytest.approx(upright.sd_jacobian, abs=0.01)


def test_a_mirrored_grid_registers_as_the_usual_one(pair):
    mask, affine, usual = pair
    flipped = affine.copy()
    flipped[:3, 2] *= -1
    flipped[:3, 3] += affine[:3, 2] * (mask.shape[2] - 1)
    mirrored = register_disc(mask[:, :, ::-1], flipped, FLAT_ATLAS)
    assert mirrored.dice == pytest.approx(usual.dice, abs=0.01)


@pytest.mark.parametrize("turn_deg", [-50, -45, -40, 0, 40, 45, 50])
@pytest.mark.parametrize("slices", [1, 7])
def test_a_grid_turned_in_its_plane_does_not_swap_the_front_and_back_of_a_steep_disc(turn_deg, slices):
    mask = disc((slices, 80, 80), tilt_deg=turn_deg + 50)  # 50 degrees in the patient, as L5S1 may be
    turn = turned(turn_deg, axis=0)
    affine = affine_of(mask.shape, turn=turn)
    steep = turn @ AXES @ [0, np.sin(np.radians(turn_deg + 50)), np.cos(np.radians(turn_deg + 50))]
    atlas = atlas_of(disc((slices, 22, 54), height_mm=10.0))
    frame = disc_frame(mask, affine, atlas)
    if slices > 1:
        posterior = frame.rotation @ [0, 1, 0]
        np.testing.assert_allclose(np.linalg.det(frame.rotation), 1, atol=1e-9)
    else:  # the plane's coordinates are millimetres along columns and rows
        posterior = grid_axes(affine)[:, :2] @ frame.rotation @ [1, 0]
    assert steep[1] > 0  # towards posterior
    assert posterior @ steep > np.cos(np.radians(10))


def test_a_disc_that_is_the_atlas_stays_where_it_is():
    moved = affine_of(FLAT_ATLAS.mask.shape, centre_mm=(5.0, 40.0, -80.0))
    alignment = register_disc(FLAT_ATLAS.mask, moved, FLAT_ATLAS)
    assert alignment.dice_after_centroid == 1.0
    assert alignment.dice > 0.98
    assert alignment.centroid_shift_mm == pytest.approx((5.0, 40.0, -80.0))
    np.testing.assert_allclose(alignment.jacobian[FLAT_ATLAS.mask > 0], 1.0, atol=0.1)


def test_jacobian_is_the_volume_change():
    mask = disc((1, 60, 76), depth_mm=26.4, height_mm=7.2)  # 0.8 of the atlas both ways
    alignment = register_disc(mask, affine_of(mask.shape), atlas_of(disc((1, 22, 54), height_mm=9.0)))
    inside = disc((1, 22, 54), height_mm=9.0) > 0
    assert alignment.jacobian[inside].mean() == pytest.approx(0.64, rel=0.05)
    affine_part = alignment.sd_jacobian / alignment.sd_jacobian_bspline
    assert affine_part == pytest.approx(0.64, rel=0.1)
    assert alignment.min_jacobian_bspline == pytest.approx(alignment.min_jacobian / affine_part)
    assert alignment.min_jacobian_patient == pytest.approx(1 / alignment.jacobian[inside].max())
    assert 0 < alignment.sd_jacobian_patient < 0.2


def test_det_j_in_the_patient_is_that_of_the_inverse():
    """An atlas voxel of J = 3 is three patient voxels, each of which shrinks to a third."""
    jacobian = np.array([[[1, 1, 3, 2, 9]]], np.float32)
    disc = np.array([[[1, 1, 1, 1, 0]]], bool)
    in_patient = np.array([1, 1] + [1 / 3] * 3 + [1 / 2] * 2)
    found = summarise_in_patient(jacobian, disc)
    assert (found.sd, found.minimum) == pytest.approx((in_patient.std(), 1 / 3))
    folded = summarise_in_patient(np.where(jacobian == 2, -1, jacobian), disc)
    assert folded.n_folded == 1
    assert np.isnan(folded.sd)


def test_grey_images_take_the_place_of_the_masks_only_when_asked(pair):
    mask, affine, by_mask = pair
    grey = (FLAT_ATLAS.mask * np.float32(1), mask * np.float32(1))
    same = register_disc(mask, affine, FLAT_ATLAS, images=grey)
    assert same.transforms == by_mask.transforms
    noise = np.random.default_rng(3).normal(size=mask.shape).astype(np.float32)
    lost = register_disc(mask, affine, FLAT_ATLAS, images=(grey[0], noise))
    assert lost.dice < by_mask.dice - 0.05  # the masks still tell how well the disc was found


def test_a_ramp_lands_where_the_stored_transforms_say(pair):
    """A ramp along the patient's columns, deformed, runs along the atlas' columns at the scale of the two discs."""
    mask, affine, alignment = pair
    columns = np.broadcast_to(np.arange(mask.shape[2], dtype=np.float32), mask.shape)
    deformed = deform(alignment, columns, affine, FLAT_ATLAS, order=1)
    inside = FLAT_ATLAS.mask > 0
    position = np.argwhere(inside)[:, 2]
    slope, _ = np.polyfit(position, deformed[inside], 1)
    assert slope == pytest.approx(30 / 33 * np.cos(np.radians(14)), rel=0.1)


def test_deforming_twice_with_other_crops_gives_the_same(pair):
    mask, affine, alignment = pair
    image = np.random.default_rng(1).normal(size=mask.shape).astype(np.float32)
    crop = affine.copy()
    crop[:3, 3] += affine[:3, :3] @ np.array([0, 10, 8])
    whole = deform(alignment, image, affine, FLAT_ATLAS, order=1)
    part = deform(alignment, image[:, 10:-10, 8:-8], crop, FLAT_ATLAS, order=1)
    inside = FLAT_ATLAS.mask > 0
    np.testing.assert_allclose(part[inside], whole[inside], atol=1e-4)


@pytest.fixture(scope="module")
def exam():
    """A whole 3-D exam with one disc: T1rho rises by 1 ms per mm to posterior, T2 is 200 ms in front, 50 behind."""
    mask = disc((12, 96, 110), depth_mm=34, height_mm=8, wedge=0.3, tilt_deg=20, half_width_mm=21)
    affine = affine_of(mask.shape)
    columns = np.broadcast_to(np.arange(110), mask.shape)
    t1rho_ms = 100 + (columns - 54.5) * 0.78
    t2_ms = np.where(columns < 54.5, 200.0, 50.0)
    stacks = tuple(
        EchoStack(
            quantity,
            (1000 * np.exp(-np.array(times_ms)[:, None, None, None] / truth)).astype(np.float32),
            times_ms,
            affine,
        )
        for quantity, times_ms, truth in (
            (Quantity.T1RHO, (0.0, 10.0, 40.0, 80.0), t1rho_ms),
            (Quantity.T2, (0.0, 12.8, 25.7, 51.4), t2_ms),
        )
    )
    levels = mask * np.uint8(Level.L4L5)
    zeros = np.zeros(mask.shape, np.float32)
    found = DiscMask(levels, zeros, levels, affine, (), "by hand", "0" * 64)
    return found, stacks


def test_a_whole_disc_in_three_dimensions(exam, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, stacks = exam
    atlas = load_atlas(3)[Level.L4L5]
    task = disc_task(found, Level.L4L5, stacks, atlas)
    assert task.mask.sum() == (found.levels > 0).sum()
    assert task.mask.shape[1] < 70  # cropped
    signal = align_disc(task)
    alignment = signal.alignment
    assert alignment.dice >= 0.95
    assert alignment.n_folded == 0
    assert alignment.sd_jacobian < 0.10
    assert alignment.jacobian.shape == atlas.mask.shape
    assert list(tmp_path.iterdir()) == []  # nothing written where we happen to be

    registered = fit_registered(signal)
    inside = atlas.mask > 0
    t1rho, t2 = registered.maps[Quantity.T1RHO], registered.maps[Quantity.T2]
    assert (t1rho.status[inside] != FitStatus.NOT_FITTED).all()
    assert (t1rho.status[~inside] == FitStatus.NOT_FITTED).all()
    fitted = t1rho.status == FitStatus.FITTED
    assert fitted.sum() > 0.9 * inside.sum()
    assert set(t1rho.status[inside & ~fitted].tolist()) <= {FitStatus.OUTSIDE_IMAGE}
    # the ramp is still a ramp, and healthy T2 is not cut
    position_mm = np.broadcast_to(np.arange(inside.shape[2]) * 0.78125 + atlas.affine[1, 3], inside.shape)
    assert np.corrcoef(position_mm[fitted], t1rho.time_ms[fitted])[0, 1] > 0.98
    assert t1rho.time_ms[fitted].mean() == pytest.approx(100, abs=2)
    front, back = fitted & (position_mm < -6), fitted & (position_mm > 6)
    np.testing.assert_allclose(t2.time_ms[front], 200.0, rtol=0.01)
    np.testing.assert_allclose(t2.time_ms[back], 50.0, rtol=0.01)


def test_same_bits_and_any_orientation_in_three_dimensions(exam, monkeypatch):
    """With few iterations, to be quick: what is tested is the path, not the fit."""
    found, _ = exam
    atlas = load_atlas(3)[Level.L4L5]
    full = registration.registration_parameters

    def short(*wanted):
        affine, bspline = full(*wanted)
        few = {"MaximumNumberOfIterations": ("4",), "FinalGridSpacingInVoxels": ("4", "4", "2")}
        return affine | {"MaximumNumberOfIterations": ("50",)}, bspline | few

    monkeypatch.setattr(registration, "registration_parameters", short)
    task = disc_task(found, Level.L4L5, (), atlas)
    first, second = (register_disc(task.mask, task.affine, atlas) for _ in range(2))
    assert (first.jacobian == second.jacobian).all()
    assert first.transforms == second.transforms
    turn = np.eye(4)
    turn[:3, :3] = turned(30, 2) @ turned(-20, 0)
    oblique = register_disc(task.mask, turn @ task.affine, atlas)
    assert oblique.dice == pytest.approx(first.dice, abs=0.01)


def test_voxels_that_were_not_imaged_are_marked(exam):
    found, stacks = exam
    atlas = FLAT_ATLAS
    single = replace(found, levels=found.levels[6:7, :, :58], affine=found.affine)  # the image ends within the disc
    cut = tuple(replace(stack, signal=stack.signal[:, 6:7, :, :58]) for stack in stacks)
    signal = align_disc(disc_task(single, Level.L4L5, cut, atlas))
    registered = fit_registered(signal)
    counts = np.bincount(registered.maps[Quantity.T2].status[atlas.mask > 0], minlength=len(FitStatus))
    assert counts[FitStatus.OUTSIDE_IMAGE] > 0
    assert counts[FitStatus.NON_FINITE_SIGNAL] == counts[FitStatus.NO_SIGNAL] == 0


def test_a_failure_carries_the_end_of_elastix_log(monkeypatch):
    full = registration.registration_parameters

    def impossible(*wanted):
        affine, bspline = full(*wanted)
        return affine | {"Metric": ("NoSuchMetric",)}, bspline

    monkeypatch.setattr(registration, "registration_parameters", impossible)
    with pytest.raises(RegistrationFailed) as caught:
        register_disc(FLAT_ATLAS.mask, FLAT_ATLAS.affine, FLAT_ATLAS)
    assert caught.value.level is Level.L4L5
    assert "NoSuchMetric" in caught.value.log


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("empty", "L4L5: the mask is empty"),
        ("one slice", "L4L5: the mask covers 1 of 7 slices, too few for 3-D"),
        ("one row", "L4L5: the mask is only 1 rows x 40 columns large"),
        ("singular", "L4L5: the geometry of the images is singular"),
        ("not a number", "L4L5: the geometry of the images is singular"),
    ],
)
def test_a_disc_that_cannot_be_registered_is_its_own_failure(change, said):
    mask = np.zeros((7, 30, 60), np.uint8)
    affine = affine_of(mask.shape)
    if change == "one slice":
        mask[3, 10:20, 10:50] = 1
    elif change != "empty":
        mask[2:5, 10 : 11 if change == "one row" else 20, 10:50] = 1
    if change == "singular":
        affine[:3, 2] = affine[:3, 1]
    elif change == "not a number":
        affine[0, 3] = np.nan
    with pytest.raises(RegistrationFailed) as caught:
        register_disc(mask, affine, load_atlas(3)[Level.L4L5])
    assert str(caught.value) == said


def test_a_touching_disc_changes_nothing(pair):
    mask, affine, alone = pair
    levels = mask * np.uint8(Level.L4L5)
    levels[0, :, :][(np.roll(mask[0], -7, axis=0) > 0) & (mask[0] == 0)] = Level.L3L4
    zeros = np.zeros(mask.shape, np.float32)
    both = DiscMask(levels, zeros, levels, affine, (), "by hand", "0" * 64)
    assert (levels == Level.L3L4).sum() > 100
    signal = align_disc(disc_task(both, Level.L4L5, (), FLAT_ATLAS))
    assert signal.alignment.dice == pytest.approx(alone.dice, abs=0.005)
    only = replace(both, levels=np.where(levels == Level.L4L5, levels, 0).astype(np.uint8))
    assert signal.alignment.transforms == align_disc(disc_task(only, Level.L4L5, (), FLAT_ATLAS)).alignment.transforms


def test_a_disc_cut_by_the_edge_is_judged_where_it_was_imaged(pair):
    mask, affine, whole = pair
    cut = mask[:, :, : int(np.argwhere(mask)[:, 2].max()) - 7]  # 8 of 38 columns are missing
    alignment = register_disc(cut, affine, FLAT_ATLAS)
    assert alignment.n_folded == 0
    assert alignment.dice > 0.9
    assert whole.dice > 0.9


def test_unfit_arguments_are_refused(exam):
    found, stacks = exam
    with pytest.raises(ValueError, match="single slices"):
        register_disc(found.levels, found.affine, FLAT_ATLAS)
    with pytest.raises(ValueError, match="no voxel"):
        disc_task(found, Level.L1L2, stacks, load_atlas(3)[Level.L1L2])
    with pytest.raises(ValueError, match="order"):
        interpolator(2)


def test_a_transformix_that_gives_up_is_the_failure_of_its_disc(monkeypatch):
    def gives_up(*_):
        raise ElastixFailed("transformix: no memory", "the end of the log")

    atlas = load_atlas(2)[Level.L4L5]
    monkeypatch.setattr(registration, "run_elastix", gives_up)
    with pytest.raises(RegistrationFailed, match="L4L5: transformix: no memory") as caught:
        register_disc(atlas.mask, atlas.affine, atlas)
    assert caught.value.log == "the end of the log"


def test_one_voxel_that_is_no_number_stays_one_in_the_atlas(flat_alignment):
    task, alignment = flat_alignment
    echo = np.full(task.mask.shape, 100.0, np.float32)
    row, column = np.argwhere(task.mask[0]).mean(axis=0).astype(int)
    echo[0, row, column] = np.nan
    carried = registration._carried(alignment, echo, task)
    lost = np.isnan(carried)
    assert 1 <= lost.sum() <= 9
    assert lost[task.atlas.mask > 0].any()


@pytest.fixture(scope="module")
def flat_alignment():
    atlas = load_atlas(2)[Level.L3L4]
    task = registration.DiscTask(atlas.mask, atlas.affine, (), atlas)
    return task, register_disc(atlas.mask, atlas.affine, atlas)
