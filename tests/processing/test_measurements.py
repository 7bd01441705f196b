"""Numbers per disc against values set by hand."""

import numpy as np
import pytest

from processing.fitting import FitStatus
from processing.measurements import measure, volumes_mm3
from processing.results import (
    Alignment,
    AtlasDisc,
    DiscMask,
    Level,
    Quantity,
    Region,
    RegisteredDisc,
    RelaxationMap,
)

AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, 0.5, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]])


def disc_mask(levels):
    empty = np.zeros(levels.shape, np.float32)
    return DiscMask(levels, empty, empty.astype(np.uint8), AFFINE, (), "by hand", "0" * 64)


def relaxation(values, status=None, quantity=Quantity.T2):
    values = np.asarray(values, dtype=np.float32)
    if status is None:
        status = np.full(values.shape, FitStatus.FITTED, dtype=np.uint8)
    time_ms = np.where(status == FitStatus.FITTED, values, np.float32(np.nan))
    return RelaxationMap(quantity, time_ms, time_ms, time_ms, time_ms, status, AFFINE)


def registered(level, regions, maps):
    alignment = Alignment(
        level, (0.0, 0.0, 0.0), (), np.ones(regions.shape, np.float32), 0.99, 0.8, 0.05, 0.8, 0, "fast", 1, 1.0
    )
    mask = (regions > 0).astype(np.uint8)
    return RegisteredDisc(alignment, AtlasDisc(level, mask, regions, AFFINE), maps)


def test_whole_discs_are_measured_on_the_native_map():
    levels = np.zeros((1, 4, 4), np.uint8)
    levels[0, 0] = Level.L5S1
    levels[0, 1, :2] = Level.L4L5
    levels[0, 2] = Level.T12L1
    values = np.zeros((1, 4, 4))
    values[0, 0] = [40, 50, 60, 90]
    values[0, 1, :2] = [100, 200]
    first, second = measure(disc_mask(levels), {Quantity.T2: relaxation(values)}, ())
    assert (first.level, first.region, first.quantity) == (Level.L5S1, Region.WHOLE_DISC, Quantity.T2)
    assert (first.mean_ms, first.median_ms, first.n, first.n_excluded) == (60.0, 55.0, 4, 0)
    assert first.sd_ms == pytest.approx(np.sqrt((20**2 + 10**2 + 0 + 30**2) / 3))
    assert (second.level, second.mean_ms, second.n) == (Level.L4L5, 150.0, 2)


def test_excluded_voxels_are_counted_with_their_reason_and_left_out():
    levels = np.full((1, 1, 5), Level.L3L4, np.uint8)
    status = np.array([[[1, 1, FitStatus.NO_DECAY, FitStatus.NO_DECAY, FitStatus.OUT_OF_RANGE]]], dtype=np.uint8)
    (row,) = measure(disc_mask(levels), {Quantity.T2: relaxation([[[80, 100, 7, 7, 7]]], status)}, ())
    assert (row.mean_ms, row.n, row.n_excluded) == (90.0, 2, 3)
    assert row.excluded == {"NO_DECAY": 2, "OUT_OF_RANGE": 1}


def test_nothing_fitted_is_nan_not_zero():
    levels = np.full((1, 1, 3), Level.L3L4, np.uint8)
    (row,) = measure(disc_mask(levels), {Quantity.T2: relaxation([[[1, 1, 1]]], np.full((1, 1, 3), 3, np.uint8))}, ())
    assert np.isnan([row.mean_ms, row.sd_ms, row.median_ms]).all()
    assert (row.n, row.n_excluded, row.excluded) == (0, 3, {"NO_SIGNAL": 3})


def test_parts_are_measured_in_atlas_space_for_each_quantity():
    levels = np.full((1, 2, 3), Level.L2L3, np.uint8)
    native = {
        Quantity.T1RHO: relaxation(np.full((1, 2, 3), 80.0), quantity=Quantity.T1RHO),
        Quantity.T2: relaxation(np.full((1, 2, 3), 60.0)),
    }
    regions = np.array([[[2, 1, 1, 1, 3, 0]]], dtype=np.uint8)
    atlas_maps = {
        Quantity.T1RHO: relaxation([[[50, 120, 130, 140, 55, 999]]], quantity=Quantity.T1RHO),
        Quantity.T2: relaxation([[[45, 100, 110, 120, 40, 999]]]),
    }
    rows = measure(disc_mask(levels), native, [registered(Level.L2L3, regions, atlas_maps)])
    found = {(row.region, row.quantity): (row.mean_ms, row.n) for row in rows}
    assert found == {
        (Region.WHOLE_DISC, Quantity.T1RHO): (80.0, 6),
        (Region.WHOLE_DISC, Quantity.T2): (60.0, 6),
        (Region.NUCLEUS, Quantity.T1RHO): (130.0, 3),
        (Region.NUCLEUS, Quantity.T2): (110.0, 3),
        (Region.ANTERIOR_ANNULUS, Quantity.T1RHO): (50.0, 1),
        (Region.ANTERIOR_ANNULUS, Quantity.T2): (45.0, 1),
        (Region.POSTERIOR_ANNULUS, Quantity.T1RHO): (55.0, 1),
        (Region.POSTERIOR_ANNULUS, Quantity.T2): (40.0, 1),
    }


def test_volume_is_voxels_times_voxel_volume():
    levels = np.zeros((2, 3, 3), np.uint8)
    levels[0] = Level.L5S1
    levels[1, 0] = Level.L1L2
    levels[1, 1] = Level.T12L1
    assert volumes_mm3(disc_mask(levels)) == pytest.approx({Level.L5S1: 9.0, Level.L1L2: 3.0})
    assert list(measure(disc_mask(levels), {}, ())) == []
