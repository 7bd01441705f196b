"""Table 1's tests against scipy and against a published table."""

import math

import numpy as np
import pytest
from scipy import stats

from processing.cohort.descriptives import fisher_exact, summarise_numbers, two_sided_t


@pytest.mark.parametrize("table", [((3, 1), (1, 3)), ((10, 2), (3, 15)), ((0, 6), (4, 6)), ((5, 5), (5, 5))])
def test_two_categories_are_tested_as_scipy_does(table):
    first, second = (["yes"] * yes + ["no"] * no for yes, no in table)
    assert fisher_exact(first, second) == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)


def test_large_groups_are_tested_too():
    table = ((300, 300), (330, 270))
    first, second = (["yes"] * yes + ["no"] * no for yes, no in table)
    assert fisher_exact(first, second) == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)


def test_more_categories_are_summed_over_all_tables_of_their_margins():
    first, second = ["a", "a"], ["b", "c"]
    # tables by the first group's counts of a, b, c: (2,0,0) 1 way, (1,1,0) 2, (1,0,1) 2, (0,1,1) 1; of 6 in all
    assert fisher_exact(first, second) == pytest.approx(2 / 6)
    assert fisher_exact(["a", "b"], ["a", "c"]) == pytest.approx(1.0)


def test_what_cannot_be_tested_is_not_a_number():
    assert math.isnan(fisher_exact([], ["a"]))
    assert math.isnan(fisher_exact(["a"], ["a", "a"]))
    assert math.isnan(two_sided_t([1.0], [2.0, 3.0]))
    assert math.isnan(two_sided_t([1.0, 1.0], [2.0, 2.0]))


def test_numbers_are_tested_and_summarised_without_the_missing_ones():
    first, second = [24.0, 31.5, 28.0, math.nan, 40.0], [22.0, 25.0, 19.5]
    known = [one for one in first if not math.isnan(one)]
    assert two_sided_t(first, second) == pytest.approx(stats.ttest_ind(known, second).pvalue)
    assert 0 < two_sided_t([4.0, 4.0, 4.0], [5.0, 7.0]) < 1
    found = summarise_numbers(first)
    assert (found.n, found.lowest, found.highest) == (4, 24.0, 40.0)
    assert found.mean == pytest.approx(np.mean(known))
    assert found.sd == pytest.approx(np.std(known, ddof=1))
