"""The noise of simulated exams is known; backgrounds that scanners have worked on are refused."""

import re
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from processing.fitting import fit_rules
from processing.noise import estimate_noise, expected_magnitude
from processing.phantom import simulate_exam
from processing.refusal import ReasonCode
from processing.results import EchoStack, Quantity


@cache
def exam(protocol, snr):
    return simulate_exam(3, n_slices=2 if protocol == "mapss" else 1, snr=snr, protocol=protocol)


@pytest.mark.parametrize("snr", [10.0, 40.0])
@pytest.mark.parametrize(
    ("protocol", "quantity"), [("mapss", Quantity.T1RHO), ("mapss", Quantity.T2), ("t1rho-fse", Quantity.T1RHO)]
)
def test_the_noise_of_a_simulated_exam_is_found(protocol, quantity, snr):
    truth = exam(protocol, snr)
    noise = estimate_noise(truth.echoes(quantity)[1])
    assert noise.doubt is None
    assert noise.sd == pytest.approx(truth.noise_sd, rel=0.05)
    assert noise.n_voxels >= 512


@pytest.mark.parametrize("units", [2, 10])
def test_noise_of_few_stored_units_is_found(units):
    truth = exam("mapss", 40.0)
    stored = np.round(truth.echoes(Quantity.T1RHO)[1] / truth.noise_sd * units)
    assert estimate_noise(stored).sd == pytest.approx(units, rel=0.05)


@pytest.mark.parametrize(
    ("spoil", "doubt"),
    [
        (lambda signal, sd: np.where(signal.max(axis=0) < 4 * sd, 0, signal), "decays|are needed"),
        (lambda signal, sd: np.maximum(signal - 0.3 * sd, 0), "off Rayleigh"),
        (lambda signal, sd: gaussian_filter(signal, (0, 0, 0.8, 0.8)), "off Rayleigh"),
        (lambda signal, sd: signal[..., 80:180], "decays|are needed"),
        (lambda signal, sd: np.zeros_like(signal), "hold a signal throughout"),
        (lambda signal, sd: signal[..., :7, :7], "hold a signal throughout"),
        (lambda signal, sd: np.full_like(signal, np.nan), "hold a signal throughout"),
        (lambda signal, sd: np.full_like(signal, 100.0), "off Rayleigh"),
        (lambda signal, sd: np.concatenate([signal[:1], 0 * signal[1:]]), "empty in the later echoes"),
    ],
    ids=[
        "masked",
        "thresholded",
        "smoothed",
        "no air in view",
        "empty",
        "tiny",
        "not numbers",
        "constant",
        "first only",
    ],
)
def test_no_noise_is_made_up_where_the_background_holds_none(spoil, doubt):
    truth = exam("mapss", 40.0)
    times_ms, signal = truth.echoes(Quantity.T1RHO)
    spoilt = spoil(signal, truth.noise_sd).astype(np.float32)
    noise = estimate_noise(spoilt)
    assert np.isnan(noise.sd)
    assert noise.doubt is not None
    assert re.search(doubt, noise.doubt)
    rules, (reason,) = fit_rules((EchoStack(Quantity.T1RHO, spoilt, times_ms, np.eye(4)),), noise_floor=True)
    assert rules[Quantity.T1RHO].noise_sd is None
    assert reason.code is ReasonCode.REVIEW_REQUIRED
    assert "T1rho: fitted without a noise floor" in reason.detail


def test_rules_carry_the_noise():
    truth = exam("mapss", 40.0)
    stacks = [EchoStack(q, truth.echoes(q)[1], truth.echoes(q)[0], truth.affine) for q in Quantity]
    rules, doubts = fit_rules(stacks, noise_floor=True)
    assert doubts == []
    for quantity in Quantity:
        assert rules[quantity].noise_sd == pytest.approx(truth.noise_sd, rel=0.05)
        assert rules[quantity].ceiling_ms is None


def test_the_expected_magnitude_is_the_mean_of_noisy_magnitudes():
    rng = np.random.default_rng(1)
    signal = np.array([0.0, 0.3, 1.0, 3.0, 10.0, 1e4])
    noise = rng.normal(size=(2, 400_000, 1))
    mean, slope = expected_magnitude(signal)
    np.testing.assert_allclose(np.hypot(signal + noise[0], noise[1]).mean(axis=0), mean, atol=0.006)
    step = 1e-5
    numeric = (expected_magnitude(signal + step)[0] - expected_magnitude(np.abs(signal - step))[0]) / (2 * step)
    np.testing.assert_allclose(slope, numeric, atol=1e-4)
    assert mean[0] == pytest.approx(np.sqrt(np.pi / 2))  # Rayleigh
    assert mean[-1] == pytest.approx(1e4)


def test_the_darkest_squares_are_squares_even_where_two_populations_lie_apart():
    """Two hundredths of the squares dark, the rest a hundred times as bright: a quantile between them is no square."""
    signal = np.full((4, 1, 8 * 16, 8 * 16), 100.0, np.float32)
    signal[..., : 8 * 16, :8][..., :40, :] = 1.0
    assert estimate_noise(signal).doubt is not None
