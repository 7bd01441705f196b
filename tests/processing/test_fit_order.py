"""Deforming the echoes and fitting them, against fitting and deforming the map: they differ at edges, and how."""

from dataclasses import replace

import numpy as np
import pytest

from processing.fit_order import compare_orders
from processing.registration import DiscTask, RegisteredSignal, align_disc, deform
from processing.results import AtlasDisc, EchoStack, Level, Quantity

TIMES_MS = (0.0, 12.8, 25.7, 51.4)
SHAPE = (1, 48, 76)


def ellipse(shape, half_height, half_depth, tilt=0.0):
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    y, x = rows - (shape[1] - 1) / 2, columns - (shape[2] - 1) / 2
    x, y = np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x
    return (((x / half_depth) ** 2 + (y / half_height) ** 2) <= 1)[None]


def affine():
    return np.array([[-4.0, 0, 0, 0], [0, 0, 0.8, 0], [0, -0.8, 0, 0], [0, 0, 0, 1]])


def task(disc_ms, around_ms):
    """A tilted disc of signal 1000 in tissue of signal 200."""
    mask = ellipse(SHAPE, 5.5, 20, tilt=0.2)
    s0, time_ms = np.where(mask, 1000.0, 200.0), np.where(mask, disc_ms, around_ms)
    signal = (s0 * np.exp(-np.array(TIMES_MS)[:, None, None, None] / time_ms)).astype(np.float32)
    target = ellipse((1, 22, 54), 6, 21).astype(np.uint8)
    stack = EchoStack(Quantity.T2, signal, TIMES_MS, affine())
    return DiscTask(mask.astype(np.uint8), affine(), (stack,), AtlasDisc(Level.L4L5, target, target, affine()))


def carried_linearly(one, alignment):
    """The echoes by the interpolation that maps are carried by, so that the two orders differ in their order alone."""
    (stack,) = one.stacks
    echoes = [deform(alignment, echo, one.affine, one.atlas, order=1) for echo in stack.signal]
    stacks = {Quantity.T2: replace(stack, signal=np.stack(echoes), affine=one.atlas.affine)}
    return RegisteredSignal(alignment, one.atlas, stacks)


@pytest.fixture(scope="module")
def aligned():
    contrasting = task(150.0, 20.0)
    return contrasting, carried_linearly(contrasting, align_disc(contrasting).alignment)


@pytest.mark.slow  # the first use of elastix in a process loads it
def test_the_orders_differ_at_the_edge_of_the_disc(aligned):
    contrasting, signal = aligned
    compared = compare_orders(contrasting, signal)[Quantity.T2]
    inside = signal.atlas.mask > 0
    assert np.isfinite(compared.fitted_then_deformed_ms[inside]).all()
    assert np.isnan(compared.fitted_then_deformed_ms[~inside]).all()
    assert compared.inner_ms < 0.01
    assert compared.edge_ms > 3
    # the echoes mix by signal, and the disc is brighter than what is around it: its edge keeps more of its time
    ours, other = compared.deformed_then_fitted_ms[inside], compared.fitted_then_deformed_ms[inside]
    assert ours.max() < 150.1
    assert np.mean(150 - ours) < 0.7 * np.mean(150 - other)


@pytest.mark.slow
def test_the_orders_agree_where_nothing_differs(aligned):
    _, signal = aligned
    uniform = task(90.0, 90.0)
    compared = compare_orders(uniform, carried_linearly(uniform, signal.alignment))[Quantity.T2]
    assert compared.edge_ms < 0.01
    assert compared.inner_ms < 0.01
