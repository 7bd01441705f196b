"""Control charts: closed forms of their limits; false alarms and delays of simulated scanners, in order or not."""

import numpy as np
import pytest
from scipy import stats

from processing.control_chart import (
    Chart,
    ChartRules,
    Limits,
    PhantomVerdict,
    control_chart,
    ewma_half_width,
    shared,
)
from processing.control_chart_figure import draw_chart

KEYS = [(f"V{vial}", quantity) for vial in range(6) for quantity in ("T1rho", "T2")]
NOMINAL_MS = np.array([30, 25, 45, 36, 60, 50, 80, 68, 110, 95, 160, 140.0])
RULES = ChartRules()


def simulated_chart(
    seed: int, n: int, *, own_sd: float = 0.005, common_sd: float = 0.005, drift: float = 0.0, step: float = 0.0
) -> Chart:
    """Scans with noise of each vial and noise common to a quantity; the scanner changes from the eleventh on."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, common_sd, (n, 2))[:, np.arange(12) % 2]
    after = np.maximum(np.arange(n) - 9, 0)[:, None]
    table = NOMINAL_MS * (1 + common + rng.normal(0, own_sd, (n, 12)) + drift * after + step * (after > 0))
    return control_chart([dict(zip(KEYS, row, strict=True)) for row in table.tolist()], RULES)


def first(chart: Chart, *verdicts: PhantomVerdict) -> int:
    """How many scans after the change it took; 99: it was not seen."""
    later = chart.judgements[10:]
    return next((number for number, one in enumerate(later, start=1) if one.verdict in verdicts), 99)


def steady(n: int) -> list[dict[tuple[str, str], float]]:
    """Scans that differ by as little as a chart needs to have an SD: +-0.1 % in turn."""
    signs = [(-1) ** at for at in range(n)]
    return [{("A", "T2"): 50 * (1 + 0.001 * sign), ("B", "T2"): 100 * (1 + 0.001 * sign)} for sign in signs]


def test_limits_are_prediction_intervals() -> None:
    # e.g. Montgomery, or any table of t: t(0.975; 9) = 2.262
    limits = Limits(50.0, 2.0, 10)
    assert limits.half_width(0.05) == pytest.approx(2.262 * 2 * np.sqrt(1.1), rel=1e-4)


def test_a_probability_is_shared_among_charts() -> None:
    each = shared(0.0455, 12)
    assert 1 - (1 - each) ** 12 == pytest.approx(0.0455)


def test_the_weighted_mean_has_the_variance_of_its_weights() -> None:
    n, weight = 4, 0.2
    weights = weight * (1 - weight) ** np.arange(n)
    start = (1 - weight) ** n  # of the mean that it starts from
    variance = (weights**2).sum() + (1 - start) ** 2 / 10
    expected = stats.t.isf(0.0027 / 2, 9) * 3.0 * np.sqrt(variance)
    assert ewma_half_width(Limits(0.0, 3.0, 10), n, 0.0027) == pytest.approx(expected)


def test_coverage_of_the_limits_of_one_vial() -> None:
    """Of scanners in order, 95.45 % of the eleventh scans lie within "2 SD" and 99.73 % within "3 SD"."""
    rng = np.random.default_rng(7)
    values = rng.normal(100, 1, (20_000, 11))
    means, sds = values[:, :10].mean(axis=1), values[:, :10].std(axis=1, ddof=1)
    for two_sided in (2 * stats.norm.sf(2), 2 * stats.norm.sf(3)):
        unit = Limits(0.0, 1.0, 10).half_width(two_sided)
        beyond = (np.abs(values[:, 10] - means) > unit * sds).mean()
        assert beyond == pytest.approx(two_sided, abs=4 * np.sqrt(two_sided / 20_000))


def test_a_scanner_in_order_is_seldom_warned_of_and_hardly_ever_held() -> None:
    """Vials and scanner with SDs of 0.5 % each: what a person has to look into for nothing."""
    later = [one for seed in range(60) for one in simulated_chart(seed, 34).judgements[10:]]
    share = {verdict: np.mean([one.verdict is verdict for one in later]) for verdict in PhantomVerdict}
    assert share[PhantomVerdict.HOLD] <= 0.02
    assert share[PhantomVerdict.WARNING] <= 0.15
    assert share[PhantomVerdict.OK] >= 0.85


@pytest.mark.parametrize(
    ("change", "to_warning", "to_hold"),
    [({"drift": 0.0025}, 8, 10), ({"drift": 0.005}, 4, 6), ({"drift": 0.01}, 3, 4), ({"step": 0.03}, 1, 2)],
)
def test_delay_of_detection(change: dict[str, float], to_warning: int, to_hold: int) -> None:
    """Nine of ten scanners that drift by a quarter, a half, one percent a scan, or jump by three, are seen in time."""
    charts = [simulated_chart(seed, 28, **change) for seed in range(40)]
    warned = [first(chart, PhantomVerdict.WARNING, PhantomVerdict.HOLD) for chart in charts]
    held = [first(chart, PhantomVerdict.HOLD) for chart in charts]
    assert np.percentile(warned, 90) <= to_warning
    assert np.percentile(held, 90) <= to_hold


def test_shares_warn_and_hold_whatever_the_spread() -> None:
    for factor, verdict in ((1.04, PhantomVerdict.WARNING), (1.06, PhantomVerdict.HOLD)):
        # spread so wide that no limit of SD is broken
        scans = [
            {("A", "T2"): 50 * (1 + 0.02 * (-1) ** at), ("B", "T2"): 100 * (1 + 0.02 * (-1) ** at)} for at in range(10)
        ]
        scans.append({("A", "T2"): 50 * factor, ("B", "T2"): 100.0})
        newest = control_chart(scans, RULES).judgements[-1]
        assert newest.verdict is verdict
        assert {finding.rule for finding in newest.findings} == {"share"}


def test_runs_on_one_side_are_noticed() -> None:
    high = {("A", "T2"): 50 * 1.0006, ("B", "T2"): 100 * 1.0006}
    chart = control_chart([*steady(10), *[high] * 10], RULES)
    assert "10_x" in {finding.rule for finding in chart.judgements[-1].findings}
    assert "10_x" not in {finding.rule for finding in chart.judgements[-2].findings}


def test_two_in_a_row_beyond_two_sd_hold_and_on_both_sides_warn() -> None:
    up, down = ({("A", "T2"): 50 * f, ("B", "T2"): 100 * f} for f in (1.0032, 0.9968))
    once = control_chart([*steady(10), up], RULES).judgements[-1]
    twice = control_chart([*steady(10), up, up], RULES).judgements[-1]
    both = control_chart([*steady(10), up, down], RULES).judgements[-1]
    assert once.verdict is PhantomVerdict.WARNING
    assert (twice.verdict, "2_2s" in {one.rule for one in twice.findings}) == (PhantomVerdict.HOLD, True)
    assert (both.verdict, "R_4s" in {one.rule for one in both.findings}) == (PhantomVerdict.WARNING, True)


def test_before_there_are_limits_only_shares_count() -> None:
    scans = steady(3)
    assert [one.verdict for one in control_chart(scans, RULES).judgements] == [PhantomVerdict.OK] * 3
    far = {("A", "T2"): 54.0, ("B", "T2"): 100.0}
    chart = control_chart([*scans, far], RULES)
    assert chart.judgements[-1].verdict is PhantomVerdict.HOLD
    assert chart.judgements[-1].sets_limits
    assert not chart.limits


def test_a_series_has_one_set_of_vials_and_positive_times() -> None:
    with pytest.raises(ValueError, match="same vials"):
        control_chart([*steady(1), {("A", "T2"): 50.0}], RULES)
    with pytest.raises(ValueError, match="positive"):
        control_chart([{("A", "T2"): float("nan")}], RULES)


def test_the_picture_of_a_chart_is_a_png_of_its_size() -> None:
    from datetime import date, timedelta

    chart = simulated_chart(1, 14)
    days = [date(2026, 1, 1) + timedelta(days=30 * at) for at in range(14)]
    png, width, height = draw_chart(chart, days, [(days[12], "software 1 -> 2")])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (width, height)
