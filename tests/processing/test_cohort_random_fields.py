"""Random field theory against the table that K. Worsley's program prints, and in null fields."""

import math

import numpy as np
import pytest
from scipy import ndimage, optimize

from processing.cohort.random_fields import (
    Smoothness,
    cluster_p,
    euler_densities,
    expected_euler,
    peak_p,
    peak_p_within_cluster,
    peak_threshold,
    resels_of,
    smoothness,
    threshold_of_resels,
)


def ball(volume: float, fwhm: float) -> tuple[float, ...]:
    r = (3 * volume / (4 * math.pi)) ** (1 / 3) / fwhm
    return 1.0, 4 * r, 2 * math.pi * r**2, 4 / 3 * math.pi * r**3


def box(side: float, fwhm: float) -> tuple[float, ...]:
    a = side / fwhm
    return 1.0, 3 * a, 3 * a * a, a**3


@pytest.mark.parametrize(
    ("t", "df", "expected"),
    [
        (3.0, math.inf, (0.00134990, 0.00294400, 0.00586694, 0.01039282)),
        (3.0, 14, (0.00477576, 0.01051633, 0.02058683, 0.03414121)),
        (3.0, 30, (0.00269498, 0.00590316, 0.01166648, 0.02005767)),
    ],
)
def test_densities_of_the_euler_characteristic(t, df, expected):
    assert euler_densities(t, df) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("resels", "df", "alpha", "published"),
    [
        (ball(1e6, 20), 30, 0.05, 5.0826),
        (ball(1e6, 20), 30, 0.01, 5.7853),
        (box(100, 20), 30, 0.05, 5.0969),
        (box(100, 20), 30, 0.01, 5.7976),
        (ball(1e6, 6), math.inf, 0.05, 5.0038),
    ],
)
def test_published_peak_thresholds(resels, df, alpha, published):
    assert threshold_of_resels(alpha, resels, df) == pytest.approx(published, abs=1e-3)


def test_bonferroni_wins_where_the_field_is_rough():
    field = Smoothness((math.nan,) * 3, ball(1.2e6, 6), round(1.2e6 / 38.4521))
    assert peak_threshold(0.05, field, 113) == pytest.approx(4.9, abs=2e-3)
    assert peak_threshold(0.05, field, 113, with_bonferroni=False) == pytest.approx(5.396, abs=1e-3)


def test_a_peak_chosen_in_advance():
    field = Smoothness((math.nan,) * 3, ball(1e6, 20), 10**6)
    for p, published in ((0.05, 4.8782), (0.01, 5.5955)):
        height = optimize.brentq(lambda t, p=p: float(peak_p_within_cluster(t, 3.3852, field, 30)) - p, 3.4, 9)
        assert height == pytest.approx(published, abs=1e-3)


def test_the_closed_form_of_a_hundred_resels_in_two_dimensions():
    assert float(expected_euler(2.5, (0, 0, 100.0))) == pytest.approx(1.934, abs=1e-3)
    assert float(expected_euler(2.75, (0, 0, 100.0))) == pytest.approx(1.104, abs=1e-3)
    assert threshold_of_resels(0.05, (0, 0, 100.0)) == pytest.approx(3.794, abs=1e-3)
    assert threshold_of_resels(0.05, (1, 4 * math.sqrt(100) / 2, 100.0)) == pytest.approx(3.816, abs=2e-3)


def test_resels_of_a_box_of_voxels_are_those_of_a_box():
    fwhm = (2.0, 3.0, 4.0)
    found = resels_of(np.ones((5, 7, 9), bool), fwhm)
    a, b, c = (4 / 2, 6 / 3, 8 / 4)
    assert found == pytest.approx((1, a + b + c, a * b + a * c + b * c, a * b * c))


def test_resels_of_a_ring_have_no_component_without_hole():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert resels_of(ring, (1.0, 1.0))[0] == 0


def disc_mask() -> np.ndarray:
    rows, columns = np.indices((20, 36))
    return ((rows - 9.5) / 8) ** 2 + ((columns - 17.5) / 16.5) ** 2 <= 1


def null_field(rng: np.random.Generator, mask: np.ndarray, fwhm: float, n: int) -> np.ndarray:
    pad = int(3 * fwhm)
    noise = rng.standard_normal((n, *(side + 2 * pad for side in mask.shape)))
    sigma = fwhm / math.sqrt(8 * math.log(2))
    smooth = ndimage.gaussian_filter(noise, [0, *[sigma] * mask.ndim], mode="wrap")
    inner = (slice(None), *[slice(pad, -pad)] * mask.ndim)
    return smooth[inner][:, mask]


@pytest.mark.parametrize("fwhm", [3.0, 5.0])
def test_smoothness_is_found_again(fwhm):
    mask, rng = disc_mask(), np.random.default_rng(3)
    data = null_field(rng, mask, fwhm, 60)
    found = smoothness(data - data.mean(axis=0), mask)
    assert found.fwhm == pytest.approx((fwhm, fwhm), rel=0.08)


def test_smoothness_of_three_axes_is_found_again_in_a_mask():
    places = np.indices((13, 19, 49))
    mask = sum(((p - m) / h) ** 2 for p, m, h in zip(places, (6, 9, 24), (6.6, 9, 24), strict=True)) <= 1
    rng, fwhm = np.random.default_rng(4), np.array([2.5, 3.5, 5.0])
    noise = ndimage.gaussian_filter(rng.standard_normal((40, 27, 41, 79)), [0, *(fwhm / math.sqrt(8 * math.log(2)))])
    data = noise[:, 7:-7, 11:-11, 15:-15][:, mask]
    found = smoothness(data - data.mean(axis=0), mask)
    assert found.fwhm == pytest.approx(fwhm, rel=0.08)
    assert found.resels == pytest.approx(resels_of(mask, fwhm), rel=0.2)


def test_null_fields_are_called_significant_as_rarely_as_promised():
    mask, rng = disc_mask(), np.random.default_rng(7)
    n, n_fields, forming = 16, 150, 3.787  # p .001 with 15 degrees of freedom
    peaks = clusters = 0
    for _ in range(n_fields):
        data = null_field(rng, mask, 4.0, n)
        rest = data - data.mean(axis=0)
        t = data.mean(axis=0) / (data.std(axis=0, ddof=1) / math.sqrt(n))
        field = smoothness(rest, mask)
        peaks += float(np.min(peak_p(t, field, n - 1))) <= 0.05
        picture = np.zeros(mask.shape)
        picture[mask] = t
        labels, count = ndimage.label(picture > forming, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:].astype(float)
        clusters += count > 0 and float(cluster_p(sizes, forming, field, n - 1).min()) <= 0.05
    limit = 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / n_fields)
    assert peaks / n_fields <= limit
    assert clusters / n_fields <= limit
    assert peaks + clusters > 0  # it is no test that never says yes


def test_a_mask_without_neighbours_is_refused():
    mask = np.zeros((5, 5), bool)
    mask[::2, ::2] = True
    with pytest.raises(ValueError, match="neighbours"):
        smoothness(np.random.default_rng(1).standard_normal((5, int(mask.sum()))), mask)


def test_holes_do_not_make_a_bound_smaller():
    """Where subjects lack voxels the mask has holes; its Euler characteristic falls below 1 then, or below 0."""
    mask, rng = disc_mask(), np.random.default_rng(9)
    pierced = mask.copy()
    pierced[3:-3:2, 6:-6:2] = False
    assert resels_of(pierced, (8.0, 8.0))[0] < 0
    data = null_field(rng, pierced, 8.0, 20)
    whole = null_field(rng, mask, 8.0, 20)
    found = smoothness(data - data.mean(axis=0), pierced)
    assert found.resels[0] == 1
    assert float(expected_euler(4.0, found.resels, 14)) > 0
    filled = smoothness(whole - whole.mean(axis=0), mask)
    assert peak_threshold(0.05, found, 14) == pytest.approx(peak_threshold(0.05, filled, 14), abs=0.6)


@pytest.mark.parametrize("df", [1, 2, 3])
def test_a_t_field_of_as_few_degrees_of_freedom_as_dimensions_is_refused(df):
    with pytest.raises(ValueError, match="too few for a field of 3 dimensions"):
        threshold_of_resels(0.05, (1.0, 5.0, 8.0, 4.0), df)
    assert threshold_of_resels(0.05, (1.0, 5.0, 8.0, 4.0), 4) > 10
