"""Decays that are tissue pass; wrong times, order, scale and clipped images are named."""

from dataclasses import replace

import numpy as np
import pytest

from processing.echoes import check_decay, check_stored, check_times_agree, check_voxels_agree
from processing.fitting import relaxation_map
from processing.phantom import simulate_exam
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import DiscMeasurement, EchoStack, Level, Quantity, Region, RelaxationMap

TIMES = {Quantity.T1RHO: (0.0, 10.0, 40.0, 80.0), Quantity.T2: (0.0, 12.8, 25.7, 51.4)}
MASK = np.zeros((3, 20, 20), dtype=bool)
MASK[:, 5:15, 4:16] = True
LEVELS = np.zeros(MASK.shape, np.uint8)
LEVELS[:, 5:15, 4:16] = np.repeat([Level.L5S1, Level.L4L5], 5)[:, None]
NO_BONE = np.where(MASK, 1, 0).astype(np.uint8)


def stack(role=Quantity.T1RHO, *, gains=(1, 1, 1, 1), seed=1, snr=30.0):
    """Nucleus and annulus in equal parts, with Rician noise, and something brighter outside the discs."""
    rng = np.random.default_rng(seed)
    times = np.array(TIMES[role])
    t_ms = np.where(np.arange(MASK.sum()) % 2, 60.0, 140.0)
    signal = rng.uniform(10, 2000, (4, *MASK.shape))
    signal[:, MASK] = 1000 * np.exp(-times[:, None] / t_ms)
    sigma = 1000 / snr
    signal = np.hypot(signal + rng.normal(0, sigma, signal.shape), rng.normal(0, sigma, signal.shape))
    signal *= np.array(gains)[:, None, None, None]
    return EchoStack(role, signal.astype(np.float32), TIMES[role], np.eye(4))


def codes(reasons):
    return [reason.code for reason in reasons]


def doubts(one, levels=LEVELS, tissue=NO_BONE):
    return [*check_stored(one, levels > 0), *check_decay(one, levels, tissue)]


@pytest.mark.parametrize("role", list(Quantity))
@pytest.mark.parametrize("snr", [15, 40])
def test_tissue_passes(role, snr):
    assert doubts(stack(role, snr=snr)) == []


@pytest.mark.parametrize("gains", [(1, 1.25, 1, 1), (1, 0.8, 1, 1), (1, 1, 1.3, 1), (0.8, 1, 1, 1), (1, 1, 1, 2)])
@pytest.mark.parametrize("role", list(Quantity))
def test_without_bone_only_an_echo_of_quite_another_scale_is_doubted(role, gains):
    (reason,) = doubts(stack(role, gains=gains))
    assert reason.code == ReasonCode.DECAY_IMPLAUSIBLE
    assert reason.detail.startswith(role)


def test_echoes_in_the_wrong_order_are_doubted():
    good = stack()
    swapped = EchoStack(good.role, good.signal[[0, 2, 1, 3]], good.times_ms, good.affine)
    (reason,) = doubts(swapped)
    assert reason.code == ReasonCode.DECAY_IMPLAUSIBLE
    assert "the mean signal of L5S1, L4L5 does not fall from echo to echo" in reason.detail


def test_the_disc_that_does_not_decay_is_named():
    odd = stack()
    odd.signal[2, LEVELS == Level.L4L5] = odd.signal[1, LEVELS == Level.L4L5] * 1.02
    (reason,) = doubts(odd)
    assert "the mean signal of L4L5 does not fall" in reason.detail


def test_a_clipped_image_is_doubted():
    good = stack()
    clipped = EchoStack(good.role, np.minimum(good.signal, 900).astype(np.float32), good.times_ms, good.affine)
    assert any("at the highest value of the image at 0 ms" in reason.detail for reason in doubts(clipped))


def test_a_later_image_that_was_clipped_on_its_own_is_doubted():
    odd = stack()
    odd.signal[2] = np.minimum(odd.signal[2], 650)
    assert any("at the highest value of the image at 40 ms" in reason.detail for reason in doubts(odd))


def test_broken_numbers_are_doubted():
    bad = stack()
    bad.signal[2, 1, 8, 8] = np.nan
    (reason,) = doubts(bad)
    assert reason.detail == "T1rho: 1 disc voxels are not numbers"


@pytest.mark.parametrize("value", [0.0, -20.0])
def test_an_image_without_signal_in_a_disc_is_doubted(value):
    bad = stack()
    bad.signal[3, LEVELS == Level.L4L5] = value
    assert check_stored(bad, MASK)[0].detail == "T1rho: 50% of the disc voxels have no signal at 80 ms"


@pytest.mark.parametrize("signal", [np.full((4, 3, 20, 20), 7.0), np.zeros((4, 3, 20, 20))])
def test_echoes_that_are_all_equal_are_doubted(signal):
    flat = EchoStack(Quantity.T2, signal.astype(np.float32), TIMES[Quantity.T2], np.eye(4))
    assert any("does not fall" in reason.detail for reason in check_decay(flat, LEVELS, NO_BONE))


@pytest.mark.parametrize(
    "times_ms", [(0.0, 40.0, 10.0, 80.0), (0.0, 10.0, 10.0, 80.0), (0.0, 10.0, float("nan"), 80.0)]
)
def test_times_that_do_not_ascend_cannot_be_measured(times_ms):
    good = stack()
    with pytest.raises(UnsuitableInput) as caught:
        check_stored(EchoStack(good.role, good.signal, times_ms, good.affine), MASK)
    assert caught.value.reason.code == ReasonCode.ECHO_UNRESOLVED


def test_an_empty_mask_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="empty"):
        check_stored(stack(), np.zeros_like(MASK))


@pytest.fixture(scope="module", params=[(15.0, 4.0), (40.0, 8.0)])
def exam(request):
    snr, spacing_mm = request.param
    return simulate_exam(5, snr=snr, n_slices=4, slice_spacing_mm=spacing_mm)


def decay_of(exam, role):
    times_ms, signal = exam.echoes(role)
    return EchoStack(role, signal.copy(), times_ms, exam.affine)


@pytest.mark.parametrize("role", list(Quantity))
def test_a_simulated_exam_passes(exam, role):
    assert doubts(decay_of(exam, role), exam.labels, exam.classes) == []


@pytest.mark.parametrize("role", list(Quantity))
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("gain", [0.94, 1.06])
def test_an_echo_of_a_slightly_different_scale_is_named(exam, role, index, gain):
    decay = decay_of(exam, role)
    decay.signal[index] *= gain
    (reason,) = doubts(decay, exam.labels, exam.classes)
    assert f"the image at {decay.times_ms[index]:g} ms is " in reason.detail
    assert ("brighter" if gain > 1 else "darker") in reason.detail


def test_discs_of_two_components_are_not_taken_for_another_scale(exam):
    """A sixth of the disc water with a short time: bone decays as before."""
    decay = decay_of(exam, Quantity.T2)
    slow = decay.signal[:, exam.labels > 0]
    fast = slow[0] * np.exp(-np.array(decay.times_ms) / 25.0)[:, None]
    decay.signal[:, exam.labels > 0] = (5 * slow + fast) / 6
    assert not any("another scale" in reason.detail for reason in doubts(decay, exam.labels, exam.classes))


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 4), (4, 5), (5, 6)])
def test_images_swapped_between_the_decays_are_doubted(exam, one, other):
    order = list(range(7))
    order[one], order[other] = other, one
    signal = exam.signal[order]
    found = []
    for role in Quantity:
        chosen = [index for index, what in enumerate(exam.quantities) if what in (None, role)]
        times_ms = tuple(exam.times_ms[index] for index in chosen)
        decay = EchoStack(role, signal[chosen], times_ms, exam.affine)
        found += doubts(decay, exam.labels, exam.classes)
    assert len({reason.detail.split(":")[0] for reason in found}) == 2


def test_one_wrong_slice_is_named():
    exam = simulate_exam(6, snr=30, n_slices=5, slice_spacing_mm=8.0)
    decay = decay_of(exam, Quantity.T1RHO)
    decay.signal[1, 2] = exam.echoes(Quantity.T1RHO)[1][1, 3]
    (reason,) = doubts(decay, exam.labels, exam.classes)
    assert "slice 3" in reason.detail
    assert "seen most at 10 ms" in reason.detail
    assert "an image of another place?" in reason.detail


def test_a_ripple_over_one_image_is_doubted():
    """A spike in k-space: a wave of 8 % of the discs' signal, 19 mm long, in discs and bone with both signs."""
    exam = simulate_exam(6, snr=30, n_slices=3)
    decay = decay_of(exam, Quantity.T1RHO)
    wave = 0.08 * decay.signal[0][exam.labels > 0].mean() * np.sin(2 * np.pi * np.arange(256) / 24)
    decay.signal[1] += wave.astype(np.float32)[:, None]
    (reason,) = doubts(decay, exam.labels, exam.classes)
    assert "a ghost, or motion?" in reason.detail


@pytest.mark.parametrize("strength", [0.5, 0.9])
@pytest.mark.parametrize("slices", [1, 3])
def test_fine_stripes_over_one_image_are_no_noise(slices, strength):
    """A spike far out in k-space: a herringbone of a few voxels in one image."""
    exam = simulate_exam(7, snr=40, n_slices=slices)
    decay = decay_of(exam, Quantity.T2)
    rows, columns = np.indices(exam.labels.shape[1:])
    decay.signal[1] *= 1 + strength * np.sin(2.3 * rows + 1.7 * columns).astype(np.float32)
    found = doubts(decay, exam.labels, exam.classes)
    assert found
    assert {reason.code for reason in found} == {ReasonCode.DECAY_IMPLAUSIBLE}


@pytest.mark.parametrize(("matrix", "fov_mm"), [(128, 200.0), (256, 400.0)])
@pytest.mark.parametrize("snr", [15.0, 40.0])
def test_wide_pixels_and_a_k_space_filled_with_zeros_are_no_pattern(matrix, fov_mm, snr):
    exam = simulate_exam(8, snr=snr, n_slices=3, matrix=matrix, fov_mm=fov_mm)
    for role in Quantity:
        assert doubts(decay_of(exam, role), exam.labels, exam.classes) == []


def test_of_three_images_none_is_named(exam):
    decay = decay_of(exam, Quantity.T1RHO)
    three = replace(decay, signal=decay.signal[[0, 1, 3]], times_ms=tuple(decay.times_ms[k] for k in (0, 1, 3)))
    assert doubts(three, exam.labels, exam.classes) == []
    three.signal[1] *= 0.9
    (reason,) = doubts(three, exam.labels, exam.classes)
    assert "the three images do not lie on one exponential" in reason.detail


def test_discs_without_a_number_in_every_image_are_doubted():
    one = stack()
    one.signal[1] = np.nan
    (reason,) = check_decay(one, LEVELS, NO_BONE)
    assert "no disc voxel is a number" in reason.detail


def maps(exam):
    return {role: relaxation_map(decay_of(exam, role), exam.labels > 0) for role in Quantity}


def test_swapped_roles_are_seen_in_the_voxels_of_every_disc(exam):
    right = maps(exam)
    assert check_voxels_agree(right, exam.labels) == []
    swapped: dict[Quantity, RelaxationMap] = {Quantity.T1RHO: right[Quantity.T2], Quantity.T2: right[Quantity.T1RHO]}
    (reason,) = check_voxels_agree(swapped, exam.labels)
    assert reason.code == ReasonCode.DECAY_IMPLAUSIBLE
    assert all(level in reason.detail for level in ("L5S1", "L4L5", "L3L4", "L2L3", "L1L2"))


def test_without_t2_there_is_nothing_to_compare(exam):
    assert check_voxels_agree({Quantity.T1RHO: maps(exam)[Quantity.T1RHO]}, exam.labels) == []


def disc(quantity, mean_ms, n=100):
    return DiscMeasurement(Level.L4L5, Region.WHOLE_DISC, quantity, mean_ms, 5.0, mean_ms, n, 0)


def test_t1rho_well_below_t2_is_doubted():
    assert codes(check_times_agree([disc(Quantity.T1RHO, 60.0), disc(Quantity.T2, 90.0)])) == [
        ReasonCode.DECAY_IMPLAUSIBLE
    ]
    assert check_times_agree([disc(Quantity.T1RHO, 90.0), disc(Quantity.T2, 60.0)]) == []
    assert check_times_agree([disc(Quantity.T1RHO, 88.0), disc(Quantity.T2, 90.0)]) == []


def test_one_quantity_alone_is_not_compared():
    assert check_times_agree([disc(Quantity.T1RHO, 60.0), disc(Quantity.T2, float("nan"), n=0)]) == []
    assert check_times_agree([disc(Quantity.T2, 60.0)]) == []
