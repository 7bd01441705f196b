"""The fit against closed forms and scipy."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from processing.fitting import FitStatus, fit_monoexponential, relaxation_map
from processing.results import EchoStack, Quantity

T1RHO_TIMES = (0.0, 10.0, 40.0, 80.0)
T2_TIMES = (0.0, 12.8, 25.7, 51.4)
FSE_TIMES = (0.0, 40.0, 80.0, 120.0)


def decay(time_ms, times_ms, s0=1000.0):
    return s0 * np.exp(-np.asarray(times_ms)[:, None] / np.asarray(time_ms, dtype=float)[None])


@pytest.mark.parametrize("times_ms", [T1RHO_TIMES, T2_TIMES, FSE_TIMES])
@pytest.mark.parametrize("s0", [1e-6, 1.0, 3e4])
def test_noise_free_decay_is_recovered(times_ms, s0):
    truth = np.geomspace(5, 500, 2000)
    fit = fit_monoexponential(decay(truth, times_ms, s0), times_ms)
    assert (fit.status == FitStatus.FITTED).all()
    assert np.abs(fit.time_ms - truth).max() < 1e-3
    np.testing.assert_allclose(fit.s0, s0, rtol=1e-6)
    assert fit.residual_rms.max() < 1e-8 * s0


def test_long_healthy_t2_is_not_cut():
    truth = np.array([140.0, 200.0, 250.0, 400.0])
    fit = fit_monoexponential(decay(truth, T2_TIMES).astype(np.float32), T2_TIMES)
    np.testing.assert_allclose(fit.time_ms, truth, rtol=1e-4)


@pytest.mark.parametrize("times_ms", [T1RHO_TIMES, T2_TIMES])
def test_rician_voxels_agree_with_curve_fit(times_ms):
    rng = np.random.default_rng(4)
    truth = rng.uniform(30, 160, 400)
    clean = decay(truth, times_ms, 100.0)
    noisy = np.hypot(clean + rng.normal(0, 2.5, clean.shape), rng.normal(0, 2.5, clean.shape))
    fit = fit_monoexponential(noisy, times_ms)
    for voxel in np.flatnonzero(fit.status == FitStatus.FITTED):
        (s0, rate), covariance = curve_fit(
            lambda t, s0, rate: s0 * np.exp(-t * rate),
            times_ms,
            noisy[:, voxel],
            p0=(100, 0.01),
            ftol=1e-13,
            xtol=1e-13,
            gtol=1e-13,
        )
        assert fit.time_ms[voxel] == pytest.approx(1 / rate, abs=0.01)
        assert fit.s0[voxel] == pytest.approx(s0, rel=1e-5)
        assert fit.standard_error_ms[voxel] == pytest.approx(np.sqrt(covariance[1, 1]) / rate**2, rel=1e-3)
    assert (fit.status == FitStatus.FITTED).mean() > 0.98


def test_spread_over_voxels_meets_the_cramer_rao_bound():
    times, truth, sigma = np.array(T1RHO_TIMES), 70.0, 1.0
    rng = np.random.default_rng(2)
    signal = decay(np.full(20_000, truth), T1RHO_TIMES, 50.0) + rng.normal(0, sigma, (4, 20_000))
    fit = fit_monoexponential(signal, T1RHO_TIMES)
    jacobian = np.stack([np.exp(-times / truth), 50.0 * times / truth**2 * np.exp(-times / truth)], axis=1)
    bound = sigma * np.sqrt(np.linalg.inv(jacobian.T @ jacobian)[1, 1])
    assert np.nanstd(fit.time_ms) == pytest.approx(bound, rel=0.05)


def test_a_voxel_that_cannot_be_fitted_is_nan_with_its_reason():
    signal = np.array(
        [
            [100, 90, 60, 35],
            [100, np.nan, 60, 35],
            [100, np.inf, 60, 35],
            [np.nan, np.nan, np.nan, np.nan],
            [0, 0, 0, 0],
            [-5, 3, 2, 1],
            [100, 0, 0, 0],
            [100, 100, 100, 100],
            [50, 60, 70, 80],
            [1000, 999, 996, 992],
            [1000, 0.001, 1e-9, 1e-20],
        ],
        dtype=float,
    ).T
    fit = fit_monoexponential(signal, T1RHO_TIMES)
    S = FitStatus
    assert [S(value) for value in fit.status] == [
        S.FITTED,
        S.NON_FINITE_SIGNAL,
        S.NON_FINITE_SIGNAL,
        S.OUTSIDE_IMAGE,
        S.NO_SIGNAL,
        S.NO_SIGNAL,
        S.NO_SIGNAL,
        S.NO_DECAY,
        S.NO_DECAY,
        S.OUT_OF_RANGE,
        S.OUT_OF_RANGE,
    ]
    for array in (fit.time_ms, fit.standard_error_ms, fit.s0, fit.residual_rms):
        assert np.isfinite(array[0])
        assert np.isnan(array[1:]).all()


def test_only_the_mask_is_fitted_and_the_input_is_left_alone():
    signal = decay(np.full(24, 80.0), T2_TIMES).reshape(4, 2, 3, 4).astype(np.float32)
    before = signal.copy()
    mask = np.zeros((2, 3, 4), dtype=bool)
    mask[1, 2, :2] = True
    result = relaxation_map(EchoStack(Quantity.T2, signal, T2_TIMES, np.eye(4)), mask)
    assert result.quantity is Quantity.T2
    assert result.time_ms.dtype == np.float32
    np.testing.assert_allclose(result.time_ms[mask], 80.0, rtol=1e-4)
    assert np.isnan(result.time_ms[~mask]).all()
    assert (result.status[~mask] == FitStatus.NOT_FITTED).all()
    assert (signal == before).all()


def test_more_voxels_than_a_chunk_give_the_same_as_each_alone():
    truth = np.linspace(20, 200, 70_000)
    rng = np.random.default_rng(1)
    signal = decay(truth, T1RHO_TIMES) + rng.normal(0, 10, (4, truth.size))
    fit = fit_monoexponential(signal, T1RHO_TIMES)
    alone = fit_monoexponential(signal[:, 66_000:66_010], T1RHO_TIMES)
    assert (fit.time_ms[66_000:66_010] == alone.time_ms).all()


@pytest.mark.parametrize(
    ("times_ms", "mask"), [((0.0, 10.0), None), ((0.0, 10.0, 10.0, 80.0), None), (T1RHO_TIMES, np.ones(3, dtype=bool))]
)
def test_unfit_arguments_are_refused(times_ms, mask):
    with pytest.raises(ValueError, match=r"times|mask"):
        fit_monoexponential(np.ones((4, 2)), times_ms, mask=mask)
