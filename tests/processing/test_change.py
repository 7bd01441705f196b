"""Verdicts on a subject's changes: the planted one is found, everything else is said for what it is."""

import math

import numpy as np
import pytest

from config.trial_plans import ChangeRule
from processing.change import assess_changes
from processing.change_limits import log_sd_of_cv, reference_change_values
from processing.change_slopes import weighted_slope
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Cell, ChangeVerdict, Observation, PrecisionProfile
from tests.processing.subject_visits import difference, five_levels, observed, profile

L4L5 = Cell(Level.L4L5, Region.NUCLEUS, Quantity.T2)
RULE = ChangeRule(upper_bound=False)


def assess(observations, **given):
    usual = {"baseline": "BL", "differences": {}, "precision": profile(), "rule": RULE}
    return assess_changes(observations, **(usual | given))


def verdicts(table, cell=L4L5):
    return {one.visit: one.verdict for one in table.changes if one.cell == cell}


def only(table, visit="M12", cell=L4L5):
    (found,) = [one for one in table.changes if (one.cell, one.visit) == (cell, visit)]
    return found


def test_a_change_beyond_the_limits_is_told_with_its_limits_and_one_within_is_within():
    table = assess({L4L5: observed({"BL": 80.0, "M3": 84.0, "M6": 66.0, "M12": 93.0})}, primary={(L4L5, "M12")})
    assert verdicts(table) == {
        "M3": ChangeVerdict.WITHIN,
        "M6": ChangeVerdict.DECREASE,
        "M12": ChangeVerdict.INCREASE,
    }
    found = only(table)
    assert (found.delta_ms, found.delta_percent) == pytest.approx((13.0, 16.25))
    low, high = reference_change_values(log_sd_of_cv(0.05))
    assert (found.lower_limit_ms, found.upper_limit_ms) == pytest.approx((80 * low, 80 * high))
    assert found.is_primary
    assert not only(table, "M3").is_primary
    assert "95% reference change value" in found.basis


def test_limits_are_asymmetric_on_the_log_scale_and_symmetric_in_ms():
    observations = {L4L5: observed({"BL": 80.0, "M12": 91.5})}  # +11.5 ms: between 80 * 12.9 % and 80 * 14.9 %
    assert only(assess(observations)).verdict is ChangeVerdict.WITHIN
    sdc = only(assess(observations, rule=ChangeRule(limit="sdc", upper_bound=False), precision=profile(sd_ms=4.0)))
    assert sdc.upper_limit_ms == -sdc.lower_limit_ms == pytest.approx(11.09, abs=0.01)
    assert sdc.verdict is ChangeVerdict.INCREASE


def test_the_expected_number_of_false_flags_is_that_of_the_judged_cells():
    cells = {
        Cell(level, region, quantity): observed({"BL": 80.0, "M3": 81.0, "M6": 82.0, "M12": 83.0})
        for level in LUMBAR_LEVELS
        for region in Region
        for quantity in Quantity
    }
    table = assess(cells, primary={(L4L5, "M12")})
    assert (table.n_primary, table.n_exploratory) == (1, 119)
    assert table.expected_false_primary == pytest.approx(0.05)
    assert table.expected_false_primary + table.expected_false_exploratory == pytest.approx(6.0)  # of 120 cells
    assert "0.05 of 1 primary, 5.95 of 119 exploratory" in table.notes[0]


def test_a_hard_difference_withholds_the_change_and_says_why():
    hard = difference("t1rho_times_ms", hard=True)
    found = only(assess({L4L5: observed({"BL": 80.0, "M12": 120.0})}, differences={"M12": [hard]}))
    assert found.verdict is ChangeVerdict.NOT_COMPARABLE
    assert (found.delta_ms, found.lower_limit_ms) == (None, None)
    assert (found.baseline_ms, found.value_ms) == (80.0, 120.0)
    assert found.reasons == (hard.text,)


def test_another_scanner_gives_wider_limits_or_none_where_its_part_is_not_known():
    observations = {L4L5: observed({"BL": 80.0, "M12": 93.0})}
    other = {"M12": [difference(widens=True)]}
    found = only(assess(observations, differences=other))
    assert found.verdict is ChangeVerdict.WITHIN
    assert found.upper_limit_ms > 1.8 * only(assess(observations)).upper_limit_ms
    assert found.reasons == ("device_serial: A at the baseline, B here",)
    unknown = only(assess(observations, differences=other, precision=profile(between=None)))
    assert unknown.verdict is ChangeVerdict.NOT_COMPARABLE
    assert unknown.reasons[-1] == "what that adds is not known"


def test_a_soft_difference_leaves_the_verdict_and_stands_beside_it():
    soft = {"M12": [difference("acquired_at")]}
    found = only(assess({L4L5: observed({"BL": 80.0, "M12": 95.0})}, differences=soft))
    assert found.verdict is ChangeVerdict.INCREASE
    assert found.reasons == ("acquired_at: A at the baseline, B here",)


def test_a_visit_without_scan_is_no_scan_and_not_a_value():
    assert verdicts(assess({L4L5: observed({"BL": 80.0, "M3": None, "M12": 81.0})})) == {
        "M3": ChangeVerdict.MISSING,
        "M12": ChangeVerdict.WITHIN,
    }


def test_without_a_baseline_nothing_is_compared():
    table = assess({L4L5: observed({"BL": None, "M3": 80.0, "M12": 120.0})})
    assert set(verdicts(table).values()) == {ChangeVerdict.NOT_COMPARABLE}
    assert only(table).reasons == ("there is no scan of BL yet",)
    assert (table.n_exploratory, table.slopes) == (0, ())


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -4.0])
def test_what_is_no_time_is_not_evaluable_at_the_visit_and_at_the_baseline(value):
    at_visit = only(assess({L4L5: observed({"BL": 80.0, "M12": value})}))
    at_baseline = only(assess({L4L5: observed({"BL": value, "M12": 80.0})}))
    assert at_visit.verdict is at_baseline.verdict is ChangeVerdict.NOT_EVALUABLE
    assert at_visit.value_ms is None
    assert at_baseline.baseline_ms is None
    assert at_baseline.reasons[0].startswith("BL: ")


def test_a_region_that_is_mostly_without_values_is_not_evaluable():
    few = Observation("M12", 365, 84.0, n=20, n_excluded=80)
    found = only(assess({L4L5: (*observed({"BL": 80.0}), few)}))
    assert found.verdict is ChangeVerdict.NOT_EVALUABLE
    assert found.reasons == (
        "80% of the voxels are left out, without a value here or at a visit compared with (at most 50%)",
    )
    some = Observation("M12", 365, 84.0, n=80, n_excluded=20)
    told = only(assess({L4L5: (*observed({"BL": 80.0}), some)}))
    assert (told.verdict, told.reasons) == (
        ChangeVerdict.WITHIN,
        ("20% of the voxels are left out, without a value here or at a visit compared with",),
    )


def test_an_operated_disc_is_not_evaluable_from_then_on_and_never_imputed():
    observations = five_levels({Level.L4L5: {"BL": 80.0, "M3": 81.0, "M6": 120.0, "M12": 120.0}})
    table = assess(observations, not_evaluable={Level.L4L5: "M6"})
    assert verdicts(table) == {
        "M3": ChangeVerdict.WITHIN,
        "M6": ChangeVerdict.NOT_EVALUABLE,
        "M12": ChangeVerdict.NOT_EVALUABLE,
    }
    assert only(table).value_ms is None
    assert only(table, cell=Cell(Level.L3L4, Region.NUCLEUS, Quantity.T2)).verdict is ChangeVerdict.WITHIN
    slope = next(one for one in table.slopes if one.cell == L4L5)
    assert slope.n_visits == 2


def test_a_cell_whose_precision_nobody_knows_is_not_judged():
    known = profile()
    annulus = Cell(Level.L4L5, Region.ANTERIOR_ANNULUS, Quantity.T2)
    without = PrecisionProfile("own", "", tuple(one for one in known.entries if one.region is Region.NUCLEUS))
    found = only(assess({annulus: observed({"BL": 50.0, "M12": 80.0})}, precision=without), cell=annulus)
    assert found.verdict is ChangeVerdict.NOT_EVALUABLE
    assert found.reasons == ("the profile own has no precision of T2 in anterior annulus",)


def test_several_baseline_scans_are_averaged_and_narrow_the_limits():
    twice = (Observation("BL", -7, 76.0, n=50), Observation("BL", 0, 84.0, n=50), *observed({"M12": 80.0}))
    found = only(assess({L4L5: twice}))
    assert found.baseline_ms == pytest.approx(math.sqrt(76 * 84))
    one_scan = only(assess({L4L5: observed({"BL": found.baseline_ms, "M12": 80.0})}))
    ratio = math.log1p(found.upper_limit_ms / found.baseline_ms) / math.log1p(
        one_scan.upper_limit_ms / found.baseline_ms
    )
    assert ratio == pytest.approx(math.sqrt(3) / 2)


def test_a_scan_before_the_baseline_is_no_follow_up():
    early = (Observation("SCR", -30, 120.0, n=50), *observed({"BL": 80.0}))
    assert only(assess({L4L5: early}), "SCR").verdict is ChangeVerdict.NOT_COMPARABLE


def test_few_test_retest_pairs_widen_the_limits_by_the_upper_bound():
    observations = {L4L5: observed({"BL": 80.0, "M12": 93.0})}
    bounded = only(assess(observations, precision=profile(n_pairs=10), rule=ChangeRule(upper_bound=True)))
    assert bounded.verdict is ChangeVerdict.WITHIN
    assert math.log1p(bounded.upper_limit_ms / 80) == pytest.approx(
        1.593 * 1.96 * math.sqrt(2) * log_sd_of_cv(0.05), rel=1e-3
    )


def test_the_untreated_levels_take_out_what_moves_all_discs():
    shift = 0.85  # as from morning to evening
    observations = five_levels(
        {level: {"BL": 80.0, "M12": 80.0 * shift * (1.3 if level is Level.L4L5 else 1.0)} for level in LUMBAR_LEVELS}
    )
    table = assess(observations, treated=Level.L4L5)
    (control,) = table.controls
    assert control.difference_ms == pytest.approx(80 * 0.3)
    assert control.verdict is ChangeVerdict.INCREASE
    assert control.untreated_mean_delta_ms == pytest.approx(-12.0)
    assert control.untreated == tuple(level for level in LUMBAR_LEVELS if level is not Level.L4L5)
    sd = math.sqrt(2) * log_sd_of_cv(0.05) * math.sqrt(1 + 1 / 4)
    assert control.upper_limit_ms == pytest.approx(80 * math.expm1(1.96 * sd), rel=1e-4)
    assert only(table).details["difference_in_differences_ms"] == pytest.approx(24.0)
    assert assess(observations).controls == ()


def test_discs_that_all_moved_together_are_warned_of_and_a_treated_one_alone_is_not():
    together = five_levels({level: {"BL": 80.0, "M12": 68.0 - level} for level in LUMBAR_LEVELS})
    (warning,) = assess(together).warnings
    assert warning.startswith("All 5 levels moved together at M12: T2 of the nucleus -17.0 to -13.0 ms.")
    alone = five_levels({Level.L4L5: {"BL": 80.0, "M12": 120.0}})
    assert assess(alone).warnings == ()
    # the treated one moves most, the others a little the same way, within the error of their mean
    little = five_levels({one: {"BL": 80.0, "M12": 120.0 if one is Level.L4L5 else 81.0} for one in LUMBAR_LEVELS})
    assert assess(little).warnings == ()


def test_the_warning_that_all_moved_comes_in_few_subjects_who_have_not():
    rng = np.random.default_rng(3)
    values = 80 * np.exp(rng.normal(0, log_sd_of_cv(0.05), (400, 5, 2)))
    warned = 0
    for subject in values:
        cells = {
            level: {"BL": float(before), "M12": float(after)}
            for level, (before, after) in zip(LUMBAR_LEVELS, subject, strict=True)
        }
        warned += bool(assess(five_levels(cells)).warnings)
    assert warned / 400 < 0.05


def test_a_slope_over_four_visits_has_the_closed_form_standard_error():
    table = assess(
        {L4L5: observed({"BL": 80.0, "M3": 82.5, "M6": 85.0, "M12": 90.0})},
        rule=ChangeRule(limit="sdc", upper_bound=False),
        precision=profile(sd_ms=4.0),
    )
    (slope,) = table.slopes
    years = np.array([0, 91, 182, 365]) / 365.25
    assert slope.standard_error_ms_per_year == pytest.approx(4.0 / math.sqrt(((years - years.mean()) ** 2).sum()))
    assert slope.ms_per_year == pytest.approx(np.polyfit(years, [80, 82.5, 85, 90], 1)[0])
    assert slope.upper_limit_ms_per_year == pytest.approx(1.96 * slope.standard_error_ms_per_year, rel=1e-4)
    assert slope.verdict is ChangeVerdict.WITHIN


def test_a_change_of_scanner_widens_the_slope_and_ordinary_least_squares_is_its_special_case():
    years = np.array([0.0, 0.25, 0.5, 1.0])
    values = np.array([80.0, 84.0, 83.0, 92.0])
    slope, error = weighted_slope(years, values, 9.0 * np.eye(4) + 25.0 * np.ones((4, 4)))
    assert slope == pytest.approx(np.polyfit(years, values, 1)[0])
    assert error == pytest.approx(3.0 / math.sqrt(((years - years.mean()) ** 2).sum()))
    halves = np.kron(np.eye(2), np.ones((2, 2)))
    _, changed = weighted_slope(years, values, 9.0 * np.eye(4) + 25.0 * halves)
    assert changed > 1.5 * error
    rng = np.random.default_rng(4)
    offsets = np.repeat(rng.normal(0, 5.0, (20_000, 2)), 2, axis=1)
    measured = rng.normal(0, 3.0, (20_000, 4)) + offsets
    covariance = 9.0 * np.eye(4) + 25.0 * halves
    simulated = np.array([weighted_slope(years, one, covariance)[0] for one in measured])
    assert simulated.std() == pytest.approx(changed, rel=0.02)


def test_visits_on_a_changed_scanner_share_its_offset_in_the_slope():
    same = observed({"BL": 80.0, "M3": 81.0, "M6": 96.0, "M12": 98.0})
    other = [difference(widens=True)]
    changed = assess({L4L5: same}, differences={"M6": other, "M12": other}).slopes[0]
    assert changed.standard_error_ms_per_year > 1.5 * assess({L4L5: same}).slopes[0].standard_error_ms_per_year
    assert abs(changed.ms_per_year) < assess({L4L5: same}).slopes[0].ms_per_year


def test_nothing_said_of_a_change_is_better_or_worse():
    words = " ".join(ChangeVerdict).casefold()
    assert not any(word in words for word in ("improve", "worse", "better", "good", "bad", "respon"))


def test_a_borrowed_precision_is_told():
    observations = {L4L5: observed({"BL": 80.0, "M12": 81.0})}
    assert any("borrowed" in note for note in assess(observations, precision=profile(borrowed=True)).notes)
    assert not any("borrowed" in note for note in assess(observations).notes)


@pytest.mark.parametrize("limit", ["rcv", "sdc"])
def test_unchanged_subjects_are_flagged_in_5_percent_of_primary_cells_and_twice_the_limit_is_found(limit):
    rng = np.random.default_rng(11)
    n = 1500
    rule = ChangeRule(limit=limit, upper_bound=False)
    sd = log_sd_of_cv(0.05)
    for factor, expected in ((1.0, "few"), (math.exp(2 * 1.96 * math.sqrt(2) * sd), "most")):
        before = 80 * np.exp(rng.normal(0, sd, n))
        after = 80 * factor * np.exp(rng.normal(0, sd, n))
        flagged = sum(
            only(assess({L4L5: observed({"BL": float(a), "M12": float(b)})}, rule=rule)).verdict
            is not ChangeVerdict.WITHIN
            for a, b in zip(before, after, strict=True)
        )
        if expected == "few":
            assert flagged / n == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / n))
        else:
            assert flagged / n >= 0.9
