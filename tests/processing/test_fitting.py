"""The fit against closed forms and scipy."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from processing.fitting import FitRules, FitStatus, fit_monoexponential, fit_rules, relaxation_map, rules_text
from processing.noise import expected_magnitude
from processing.results import EchoStack, Quantity

T1RHO_TIMES = (0.0, 10.0, 40.0, 80.0)
T2_TIMES = (0.0, 12.8, 25.7, 51.4)
FSE_TIMES = (0.0, 40.0, 80.0, 120.0)


def decay(time_ms, times_ms, s0=1000.0):
    return s0 * np.exp(-np.asarray(times_ms)[:, None] / np.asarray(time_ms, dtype=float)[None])


@pytest.mark.parametrize(
    "times_ms", [T1RHO_TIMES, T2_TIMES, FSE_TIMES, (8.0, 16.0, 24.0), (5.0, 9.0, 30.0, 41.0, 90.0)]
)
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


@pytest.mark.parametrize("times_ms", [T1RHO_TIMES, T2_TIMES, FSE_TIMES])
@pytest.mark.parametrize("sigma", [2.5, 10.0])
def test_rician_voxels_agree_with_curve_fit(times_ms, sigma):
    rng = np.random.default_rng(4)
    truth = rng.uniform(30, 160, 800)
    clean = decay(truth, times_ms, 100.0)
    noisy = np.hypot(clean + rng.normal(0, sigma, clean.shape), rng.normal(0, sigma, clean.shape))
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
    assert (fit.status == FitStatus.FITTED).mean() > (0.98 if sigma < 5 else 0.9)


@pytest.mark.parametrize("times_ms", [T1RHO_TIMES, FSE_TIMES])
@pytest.mark.parametrize(("truth", "snr"), [(40.0, 20.0), (70.0, 20.0), (70.0, 50.0), (110.0, 50.0)])
def test_spread_over_voxels_meets_the_cramer_rao_bound(times_ms, truth, snr):
    times = np.array(times_ms)
    rng = np.random.default_rng(2)
    signal = decay(np.full(20_000, truth), times_ms, snr) + rng.normal(size=(4, 20_000))
    fit = fit_monoexponential(signal, times_ms)
    jacobian = np.stack([np.exp(-times / truth), snr * times / truth**2 * np.exp(-times / truth)], axis=1)
    bound = np.sqrt(np.linalg.inv(jacobian.T @ jacobian)[1, 1])
    spread = np.nanstd(fit.time_ms)
    assert spread == pytest.approx(bound, rel=0.05)
    # the standard error is right on average of its square; with two degrees of freedom its median is lower
    assert np.sqrt(np.nanmean(fit.standard_error_ms**2)) == pytest.approx(spread, rel=0.05)
    assert np.nanmedian(fit.standard_error_ms) == pytest.approx(0.83 * spread, rel=0.05)


@pytest.mark.parametrize("times_ms", [T1RHO_TIMES, T2_TIMES, FSE_TIMES])
@pytest.mark.parametrize("noise_sd", [None, 1.0])
def test_pure_noise_gets_a_status_in_every_voxel(times_ms, noise_sd):
    rng = np.random.default_rng(5)
    signal = np.hypot(*rng.normal(size=(2, 4, 2000)))
    fit = fit_monoexponential(signal, times_ms, rules=FitRules(noise_sd=noise_sd))
    fitted = fit.status == FitStatus.FITTED
    assert (np.isfinite(fit.time_ms) == fitted).all()
    assert ((fit.time_ms[fitted] >= 1) & (fit.time_ms[fitted] <= 1000)).all()
    assert (fit.status == FitStatus.NOT_CONVERGED).mean() < (0.002 if noise_sd is None else 0.05)


@pytest.mark.parametrize(
    ("times_ms", "truth"),
    [(times, truth) for times in (T1RHO_TIMES, T2_TIMES, FSE_TIMES) for truth in (20.0, 50.0, 80.0, 110.0)],
)
def test_the_noise_floor_takes_the_bias_out(times_ms, truth):
    """Bias of the median over all voxels: that of the mean is larger, as T = 1/R is skewed whatever is fitted.

    Voxels whose best fit is shorter than 1 ms count as short: in the times of the FSE, the signal of a T of 20 ms has
    sunk into the noise in all echoes but the first for three in ten voxels at this SNR.
    """
    rng = np.random.default_rng(3)
    clean = decay(np.full(8000, truth), times_ms, 500.0)
    signal = np.hypot(clean + rng.normal(0, 50, clean.shape), rng.normal(0, 50, clean.shape))
    bias = {}
    for noise_sd in (None, 50.0):
        fit = fit_monoexponential(signal, times_ms, rules=FitRules(noise_sd=noise_sd))
        lost = fit.status != FitStatus.FITTED
        assert lost.mean() < (0.32 if times_ms == FSE_TIMES and truth == 20 else 0.02)
        bias[noise_sd] = np.median(np.where(lost & (truth < 50), 0, fit.time_ms)[~lost | (truth < 50)]) - truth
    assert abs(bias[50.0]) < 1
    assert bias[None] > 1


def test_the_noise_floor_changes_nothing_where_there_is_none():
    truth = np.geomspace(10, 400, 500)
    signal = decay(truth, T1RHO_TIMES)
    fit = fit_monoexponential(signal, T1RHO_TIMES, rules=FitRules(noise_sd=1e-3))
    np.testing.assert_allclose(fit.time_ms, truth, rtol=1e-5)
    np.testing.assert_allclose(fit.s0, 1000, rtol=1e-5)


def test_expected_magnitudes_are_fitted_exactly():
    truth = np.geomspace(10, 400, 500)
    mean, _ = expected_magnitude(decay(truth, FSE_TIMES, 10.0))
    fit = fit_monoexponential(7 * mean, FSE_TIMES, rules=FitRules(noise_sd=7.0))
    assert (fit.status == FitStatus.FITTED).all()
    np.testing.assert_allclose(fit.time_ms, truth, rtol=1e-4)
    np.testing.assert_allclose(fit.s0, 70, rtol=1e-4)
    assert fit.residual_rms.max() < 1e-4


def test_ceilings_apply_only_when_asked_for():
    truth = np.array([100.0, 140, 160, 199, 201, 249, 251, 400])
    stacks = {
        quantity: EchoStack(quantity, decay(truth, times).reshape(4, 1, 1, 8).astype(np.float32), times, np.eye(4))
        for quantity, times in ((Quantity.T1RHO, T1RHO_TIMES), (Quantity.T2, T2_TIMES))
    }
    everywhere = np.ones((1, 1, 8), dtype=bool)
    both, alone = tuple(stacks.values()), (stacks[Quantity.T1RHO],)
    for asked, chosen, ceilings in (
        (False, both, {Quantity.T1RHO: 1000, Quantity.T2: 1000}),
        (True, both, {Quantity.T1RHO: 200, Quantity.T2: 150}),
        (True, alone, {Quantity.T1RHO: 250}),
    ):
        rules, doubts = fit_rules(chosen, paper_ceilings=asked)
        assert doubts == []
        for quantity, ceiling in ceilings.items():
            one = relaxation_map(stacks[quantity], everywhere, rules[quantity])
            expected = np.where(truth < ceiling, FitStatus.FITTED, FitStatus.ABOVE_CEILING)
            assert (one.status.ravel() == expected).all()
            assert (np.isnan(one.time_ms.ravel()) == (truth >= ceiling)).all()
    assert rules_text(rules) == "T1rho plain, below 250 ms"


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
    for few in (1, 10):  # to rounding: the linear algebra library may sum a single voxel in another order
        alone = fit_monoexponential(signal[:, 66_000 : 66_000 + few], T1RHO_TIMES)
        np.testing.assert_allclose(fit.time_ms[66_000 : 66_000 + few], alone.time_ms, rtol=1e-12)
        assert (fit.status[66_000 : 66_000 + few] == alone.status).all()


@pytest.mark.parametrize(
    ("times_ms", "mask", "noise_sd"),
    [
        ((0.0,), None, None),
        ((0.0, 10.0), None, None),
        ((0.0, 10.0, 40.0), None, None),
        ((0.0, 10.0, 10.0, 80.0), None, None),
        ((80.0, 40.0, 10.0, 0.0), None, None),
        ((0.0, 10.0, np.nan, 80.0), None, None),
        ((0.0, 10.0, 40.0, np.inf), None, None),
        (T1RHO_TIMES, np.ones(3, dtype=bool), None),
        (T1RHO_TIMES, None, 0.0),
        (T1RHO_TIMES, None, np.nan),
    ],
)
def test_unfit_arguments_are_refused(times_ms, mask, noise_sd):
    with pytest.raises(ValueError, match=r"times|mask|noise"):
        fit_monoexponential(np.ones((4, 2)), times_ms, mask=mask, rules=FitRules(noise_sd=noise_sd))


@pytest.mark.parametrize("noise_sd", [None, 2.0])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_nothing_to_fit_and_any_number_type(dtype, noise_sd):
    signal = np.array([[100, 90, 60, 35], [7, 7, 7, 7], [0, 0, 0, 0]]).T.astype(dtype)
    rules = FitRules(noise_sd=noise_sd)
    fit = fit_monoexponential(signal, T1RHO_TIMES, rules=rules)
    assert fit.status.tolist() == [FitStatus.FITTED, FitStatus.NO_DECAY, FitStatus.NO_SIGNAL]
    nothing = fit_monoexponential(signal, T1RHO_TIMES, mask=np.zeros(3, dtype=bool), rules=rules)
    assert (nothing.status == FitStatus.NOT_FITTED).all()
    assert fit_monoexponential(signal[:, :0], T1RHO_TIMES, rules=rules).time_ms.shape == (0,)


@pytest.mark.parametrize("echoes", [1, 2])
def test_too_few_echoes_are_refused(echoes):
    with pytest.raises(ValueError, match="at least three ascending times"):
        fit_monoexponential(np.ones((echoes, 2)), T1RHO_TIMES[:echoes])
