"""Small versions of the benchmarks of error rates and of planted effects: every control in a few null fields."""

import pytest

from processing.cohort.inference import Control, InferenceRules
from tests.benchmarks.cohort_null import ALPHA, CASES, FAMILY_WISE, false_share, interval, said_of
from tests.benchmarks.cohort_planted import one_map

FIELDS = 60


#: Where errors are skewed, as the variable is, only what is exchanged keeps its rate.
EXCHANGED = (Control.MAX_T, Control.CLUSTER_SIZE, Control.CLUSTER_MASS)
ALL = tuple(one for one in FAMILY_WISE if one is not Control.THRESHOLD_FREE)


def case_of(name, fwhm=4.0):
    return next(case for case in CASES if (case.name, case.fwhm) == (name, fwhm))


@pytest.mark.parametrize(
    ("case", "judged"),
    [
        (case_of("regression", 4.0), FAMILY_WISE),
        (case_of("groups 5:11"), ALL),
        (case_of("skewed, variable too"), EXCHANGED),
        (case_of("change"), ALL),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_no_control_says_yes_more_often_than_promised(case, judged):
    enhanced = Control.THRESHOLD_FREE in judged
    said = [
        said_of(case, InferenceRules(n_permutations=39, seed=one, threshold_free=enhanced)) for one in range(FIELDS)
    ]
    assert set(judged) <= said[0].keys()
    for control in judged:
        low, _ = interval(sum(one[control] for one in said), FIELDS, 0.999)
        assert low <= ALPHA, control
    assert sum(one[Control.UNCORRECTED] for one in said) > FIELDS / 2  # it is no test that never says yes


def test_the_false_share_is_that_of_the_rate():
    shares = [false_share(seed) for seed in range(40)]
    assert sum(one[Control.FDR_BH] for one in shares) / 40 <= ALPHA
    assert sum(one[Control.FDR_BH] for one in shares) > 0


def test_a_planted_ball_is_found_where_the_mean_of_the_disc_sees_nothing():
    found = [one_map(5.0, 1.5, seed, 99) for seed in range(4)]
    assert min(one["dice_max_t"] for one in found) >= 0.6
    assert min(one["dice_cluster_mass"] for one in found) >= 0.6
    assert not any(one["elsewhere_max_t"] for one in found)
    assert any(not one["whole_sees"] for one in found)
