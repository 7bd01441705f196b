"""Which orders and signs are made: all where few differ, each once, the data as they are first."""

import itertools
import math

import numpy as np
import pytest

from processing.cohort.exchange import Signs, orders_of


def every(ways, size=7):
    return np.concatenate(list(ways.chunks(size)))


@pytest.mark.parametrize(
    ("labels", "blocks", "wanted"),
    [
        ([0, 0, 1, 1], None, 6),
        ([1, 0, 0, 0, 1], None, 10),
        ([1.5, 2.5, 3.5, 0.5], None, 24),
        ([0, 1, 0, 1, 2, 2], [0, 0, 1, 1, 1, 1], 2 * 12),
        ([0, 0, 1, 1], [0, 0, 1, 1], 1),
        ([3, 1, 2], [0, 1, 2], 1),
    ],
)
def test_all_orders_that_differ_are_made_once(labels, blocks, wanted):
    given = None if blocks is None else np.array(blocks)
    ways = orders_of(np.array(labels, float)[:, None], 5000, 1, given)
    assert ways.n_distinct == ways.n_made == wanted
    assert ways.is_exact
    orders = every(ways)
    assert (orders[0] == np.arange(len(labels))).all()
    assert (np.sort(orders, axis=1) == np.arange(len(labels))).all()
    seen = {tuple(np.array(labels)[order]) for order in orders}
    assert len(seen) == len(orders) == wanted
    if given is not None:
        assert (given[orders] == given).all()
    brute = {
        tuple(np.array(labels)[list(order)])
        for order in itertools.permutations(range(len(labels)))
        if given is None or (given[list(order)] == given).all()
    }
    assert seen == brute


def test_a_covariate_makes_subjects_of_one_group_differ():
    group, age = [0, 0, 1, 1], [30, 40, 50, 60]
    assert orders_of(np.column_stack([group, age]).astype(float), 100, 1).n_distinct == 24


def test_many_orders_are_drawn_within_blocks():
    blocks = np.repeat([0, 1], 10)
    ways = orders_of(np.arange(20.0)[:, None], 99, 3, blocks)
    assert ways.n_distinct == math.factorial(10) ** 2
    assert not ways.is_exact
    orders = every(ways)
    assert orders.shape == (100, 20)
    assert (orders[0] == np.arange(20)).all()
    assert (blocks[orders] == blocks).all()
    assert len(np.unique(orders, axis=0)) == 100


def test_signs_of_four_subjects_are_sixteen():
    ways = Signs(4, 5000, 1)
    signs = every(ways)
    assert ways.n_distinct == len(signs) == len(np.unique(signs, axis=0)) == 16
    assert (signs[0] == 1).all()
    assert not Signs(13, 5000, 1).is_exact
