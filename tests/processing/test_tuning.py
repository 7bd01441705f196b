"""What the tuning varies stays registrable, and what it scores is the paper's loss."""

from dataclasses import replace

import numpy as np
import pytest

from processing.atlas import load_atlas
from processing.disc_pairs import hard_pairs
from processing.elastix_parameters import registration_parameters
from processing.registration import RegisteredSignal, RegistrationFailed
from processing.results import Alignment, Level
from processing.tuning import (
    FAILED_LOSS,
    RANGES,
    candidate_from,
    candidate_of,
    pairs_of_exam,
    score,
    stages_of,
    tasks_of,
)


def signal(dice, sd_jacobian, *, n_folded=0, cpu_s=2.0):
    atlas = load_atlas(2)[Level.L4L5]
    jacobian = np.ones(atlas.mask.shape, np.float32)
    alignment = Alignment(
        *(Level.L4L5, (0.0, 0.0, 0.0), (), jacobian, dice, 0.7, sd_jacobian, 0.5, n_folded, "tuned", 1, cpu_s)
    )
    return RegisteredSignal(alignment, atlas, {})


def test_the_loss_is_the_papers():
    found = score([signal(0.98, 0.05), signal(0.94, 0.07, n_folded=3, cpu_s=4.0)])
    assert found.loss == pytest.approx((0.02 + 0.05 + 0.06 + 0.07) / 2)
    assert (found.mean_dice, found.min_dice, found.mean_sd_jacobian) == pytest.approx((0.96, 0.94, 0.06))
    assert (found.n_folded, found.n_failed, found.cpu_s) == (1, 0, 3.0)


def test_a_disc_that_fails_counts_as_worse_than_any_other():
    failure = RegistrationFailed(Level.L4L5, "elastix gave up")
    assert score([signal(0.98, 0.05), failure]).loss == pytest.approx((0.07 + FAILED_LOSS) / 2)
    assert score([failure]).loss == FAILED_LOSS


@pytest.mark.parametrize("dimension", [2, 3])
def test_every_candidate_keeps_four_voxels_at_every_resolution(dimension):
    base = registration_parameters(dimension, "fast", 1)
    grids = np.array([disc.mask.shape[-dimension:][::-1] for disc in load_atlas(dimension).values()])
    for end in (0, 1):
        affine, bspline = stages_of(candidate_from({name: values[end] for name, values in RANGES.items()}), base)
        levels = int(bspline["NumberOfResolutions"][0])
        factors = np.array(bspline["ImagePyramidSchedule"], int).reshape(levels, dimension)
        assert len(bspline["GridSpacingSchedule"]) == levels * dimension
        assert (grids[:, None] // factors).min() >= 4
        assert (factors[-1] == 1).all()
        assert float(bspline["Metric1Weight"][0]) == RANGES["rigidity_weight"][end]
        assert affine["RandomSeed"] == bspline["RandomSeed"] == ("1",)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_candidate_of_a_preset_is_that_preset(dimension):
    base = registration_parameters(dimension, "fast", 1)
    affine, bspline = stages_of(candidate_of(base), base)
    assert bspline == base[1] | {"NumberOfHistogramBins": bspline["NumberOfHistogramBins"]}
    assert affine == base[0]


def test_discs_of_an_exam_find_their_atlas_disc():
    levels = np.zeros((5, 60, 80), np.uint8)
    levels[1:4, 10:18, 20:60] = Level.L3L4
    levels[3, 40:50, 20:60] = Level.L4L5
    levels[2, 1:3, 3:6] = Level.T12L1  # is not measured
    affine = np.array([[-4.0, 0, 0, 9], [0, 0, 0.8, -20], [0, -0.8, 0, 30], [0, 0, 0, 1]])
    lower, upper = pairs_of_exam("S1", levels, affine, load_atlas(3))
    assert (lower.name, upper.name) == ("S1 L4L5", "S1 L3L4")
    assert (lower.mask.sum(), upper.mask.sum()) == (400, 960)
    single, _ = pairs_of_exam("S1", levels, affine, load_atlas(2))
    assert single.mask.shape[0] == 1
    index = np.argwhere(single.mask)[0]
    np.testing.assert_allclose((single.affine @ [*index, 1])[:3], (affine @ [3, 40, 20, 1])[:3])


def test_tasks_carry_the_parameters_and_no_echoes():
    base = registration_parameters(2, "fast", 1)
    (task,) = tasks_of(hard_pairs(load_atlas(2), 1), base)
    assert (task.stages, task.stacks) == (base, ())
    assert replace(task, stages=None).stages is None
