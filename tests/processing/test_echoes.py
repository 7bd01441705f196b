"""Decays that are tissue pass; wrong times, order, scale and clipped images are named."""

import numpy as np
import pytest

from processing.echoes import check_decay, check_times_agree
from processing.phantom import simulate_exam
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import DiscMeasurement, EchoStack, Level, Quantity, Region

TIMES = {Quantity.T1RHO: (0.0, 10.0, 40.0, 80.0), Quantity.T2: (0.0, 12.8, 25.7, 51.4)}
MASK = np.zeros((3, 20, 20), dtype=bool)
MASK[:, 5:15, 4:16] = True


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


@pytest.mark.parametrize("role", list(Quantity))
@pytest.mark.parametrize("snr", [15, 40])
def test_tissue_passes(role, snr):
    assert check_decay(stack(role, snr=snr), MASK) == []


@pytest.mark.parametrize("snr", [15.0, 40.0])
def test_a_simulated_exam_passes(snr):
    exam = simulate_exam(5, snr=snr, n_slices=3, slice_spacing_mm=8.0)
    for role in Quantity:
        times_ms, signal = exam.echoes(role)
        assert check_decay(EchoStack(role, signal, times_ms, exam.affine), exam.labels > 0) == []


@pytest.mark.parametrize("gains", [(1, 1.25, 1, 1), (1, 0.8, 1, 1), (1, 1, 1.3, 1), (0.8, 1, 1, 1), (1, 1, 1, 2)])
@pytest.mark.parametrize("role", list(Quantity))
def test_an_echo_of_another_scale_is_doubted(role, gains):
    (reason,) = check_decay(stack(role, gains=gains), MASK)
    assert reason.code == ReasonCode.DECAY_IMPLAUSIBLE
    assert reason.detail.startswith(role)


def test_echoes_in_the_wrong_order_are_doubted():
    good = stack()
    swapped = EchoStack(good.role, good.signal[[0, 2, 1, 3]], good.times_ms, good.affine)
    (reason,) = check_decay(swapped, MASK)
    assert reason.code == ReasonCode.DECAY_IMPLAUSIBLE
    assert "does not fall" in reason.detail


def test_a_clipped_image_is_doubted():
    good = stack()
    clipped = EchoStack(good.role, np.minimum(good.signal, 900).astype(np.float32), good.times_ms, good.affine)
    assert any("clipped" in reason.detail for reason in check_decay(clipped, MASK))


def test_broken_numbers_are_doubted():
    bad = stack()
    bad.signal[2, 1, 8, 8] = np.nan
    (reason,) = check_decay(bad, MASK)
    assert reason.detail == "T1rho: 1 disc voxels are not numbers"


@pytest.mark.parametrize(
    "times_ms", [(0.0, 40.0, 10.0, 80.0), (0.0, 10.0, 10.0, 80.0), (0.0, 10.0, float("nan"), 80.0)]
)
def test_times_that_do_not_ascend_cannot_be_measured(times_ms):
    good = stack()
    with pytest.raises(UnsuitableInput) as caught:
        check_decay(EchoStack(good.role, good.signal, times_ms, good.affine), MASK)
    assert caught.value.reason.code == ReasonCode.ECHO_UNRESOLVED


def test_an_empty_mask_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="empty"):
        check_decay(stack(), np.zeros_like(MASK))


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
