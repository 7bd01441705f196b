"""Every exam of the zoo ends in the right result or the right reason code."""

from pathlib import Path

import numpy as np
import pytest
from exam_zoo import ZOO, Specimen, Verdict, judge
from zoo_material import phantom

from processing.results import Quantity


@pytest.mark.parametrize("specimen", ZOO, ids=lambda one: one.name)
def test_the_verdict_is_right(specimen: Specimen, tmp_path: Path) -> None:
    folder = tmp_path / "exam"
    specimen.build(folder)
    verdict = judge(folder, specimen)
    assert (verdict.measured, set(verdict.codes)) == (specimen.measured, set(specimen.codes)), verdict.text
    assert specimen.says in verdict.text
    if specimen.has_truth:
        check_truth(verdict, specimen)


def check_truth(verdict: Verdict, specimen: Specimen) -> None:
    """Signal within 0.5 % of the brightest, times within 0.05 ms and places within 0.01 mm of the simulated exam."""
    assert verdict.exam is not None
    exam = phantom()
    to_measured = np.linalg.inv(verdict.exam.background.affine) @ exam.affine
    size = np.array(exam.signal.shape[1:])
    corners = np.array(np.meshgrid(*((0, n - 1) for n in size))).reshape(3, -1)
    indices = to_measured[:3, :3] @ corners + to_measured[:3, 3:]
    assert np.allclose(indices, indices.round(), atol=1e-3)  # of a voxel
    assert indices.min() > -0.5
    assert (indices.max(axis=1) < size - 0.5).all()
    assert {stack.role for stack in verdict.exam.stacks} == {Quantity.T1RHO, Quantity.T2}
    flipped = [axis for axis in range(3) if to_measured[axis, axis] < 0]
    assert bool({1, 2} & set(flipped)) == specimen.flip
    for stack in verdict.exam.stacks:
        times_ms, truth = exam.echoes(stack.role)
        assert stack.times_ms == pytest.approx(times_ms, abs=0.06)
        signal = np.flip(stack.signal, [1 + axis for axis in flipped])
        factor = truth[0].mean() / signal[0].mean()
        assert np.abs(signal * factor - truth).max() < 0.005 * truth.max()


def test_the_zoo_is_as_large_as_promised() -> None:
    assert len(ZOO) >= 40
    assert len({one.name for one in ZOO}) == len(ZOO)
