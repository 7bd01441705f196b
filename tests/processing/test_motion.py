"""Known motions of single images are found, told in words and taken back; exams at rest raise no alarm."""

import math
from dataclasses import replace

import numpy as np
import pytest
from moving_phantom import ACQUIRED, Move, fine_exam, measured, stacks

from processing.fitting import fit_monoexponential
from processing.motion import MIN_CORRECTION_MM, correct_motion, estimate_motion, judge_motion
from processing.refusal import ReasonCode
from processing.results import EchoMotion, EchoStack, Quantity

STEP_MM = 200 / 256


@pytest.fixture(scope="module")
def fine():
    return fine_exam(1, n_slices=3)


def worst_error_mm(found: EchoMotion, move: Move, discs: np.ndarray) -> float:
    """The largest distance, over the discs, of where ``found`` puts a pixel from where it was moved to."""
    y, x = ((np.argwhere(discs.any(axis=0)) - found.centre) * STEP_MM).T

    def goes(degrees, down, right):
        angle = math.radians(degrees)
        return math.cos(angle) * y + math.sin(angle) * x + down, math.cos(angle) * x - math.sin(angle) * y + right

    told = goes(found.rotation_deg, found.rows_mm, found.columns_mm)
    true = goes(move.degrees, move.rows_mm, move.columns_mm)
    return float(np.hypot(told[0] - true[0], told[1] - true[1]).max())


@pytest.mark.parametrize(
    ("move", "snr"),
    [
        (Move(), 15),
        (Move(0.9, 0, 0), 15),
        (Move(0, -0.5, 0), 40),
        (Move(0.3, 0.4, 1.2), 40),
        (Move(-7, 3, 0), 15),
        (Move(1, 1, -3), 15),
    ],
)
def test_motion_is_found_to_a_fraction_of_a_pixel(fine, move, snr):
    exam = measured(fine, snr=snr, seed=3, moves=dict.fromkeys(range(1, 7), move))
    found = estimate_motion(stacks(exam), exam.labels > 0)
    assert [(one.role, one.time_ms) for one in found] == [
        *((Quantity.T1RHO, time) for time in (10, 40, 80)),
        *((Quantity.T2, time) for time in (12.8, 25.7, 51.4)),
    ]
    for one in found:
        assert worst_error_mm(one, move, exam.labels > 0) < 0.2
        assert abs(one.rotation_deg - move.degrees) < 0.15


def test_only_the_image_that_moved_is_named(fine):
    exam = measured(fine, snr=30, moves={4: Move(1.5, 0.0, 0.5)})
    found = estimate_motion(stacks(exam), exam.labels > 0)
    (reason,) = judge_motion(found, max_motion_mm=0.8)
    assert reason.code == ReasonCode.MOTION
    assert reason.detail.startswith("T1rho: the image at 40 ms lies up to ")
    assert "the patient moved" in reason.detail


def test_a_moved_first_image_is_seen_in_all_others(fine):
    exam = measured(fine, snr=30, moves={0: Move(2.0, 0.0, 0.0)})
    found = estimate_motion(stacks(exam), exam.labels > 0)
    assert all(abs(one.rows_mm + 2.0) < 0.3 for one in found)


def test_a_second_scan_after_the_patient_moved_is_compared_with_the_first(fine):
    move = Move(1.5, -0.5, 0.0)
    at_rest, moved = (
        measured(fine, snr=30, seed=seed, moves=moves) for seed, moves in ((1, {}), (2, dict.fromkeys(range(7), move)))
    )
    scans = (stacks(at_rest)[0], stacks(moved)[1])  # T1rho, and T2 with an image at time 0 of its own
    found = estimate_motion(scans, at_rest.labels > 0)
    of_t2 = [one for one in found if one.role is Quantity.T2]
    assert [one.time_ms for one in of_t2] == [0, 12.8, 25.7, 51.4]
    assert all(worst_error_mm(one, move, at_rest.labels > 0) < 0.2 for one in of_t2)
    still, corrected = correct_motion(scans, found, max_correction_mm=5)
    assert [one.time_ms for one in corrected if one.corrected] == [0, 12.8, 25.7, 51.4]
    assert not np.array_equal(still[1].signal[0], scans[1].signal[0])


def test_one_slice_is_enough():
    exam = measured(fine_exam(2, n_slices=1), snr=30, moves={5: Move(-1.0, 0.5, 0.0)})
    found = estimate_motion(stacks(exam), exam.labels > 0)
    moved = [one for one in found if one.displacement_mm > 0.5]
    assert [one.time_ms for one in moved] == [51.4]
    assert worst_error_mm(moved[0], Move(-1.0, 0.5, 0.0), exam.labels > 0) < 0.2


def test_rows_and_columns_of_another_size(fine):
    """Every second column left out: millimetres stay millimetres."""
    exam = measured(fine, snr=40, moves={4: Move(1.0, -1.2, 1.0)})
    affine = exam.affine.copy()
    affine[:3, 2] *= 2
    (first, *_), discs = stacks(exam), exam.labels[..., ::2] > 0
    (_, at_40, _) = estimate_motion([replace(first, signal=first.signal[..., ::2], affine=affine)], discs)
    assert at_40.rows_mm == pytest.approx(1.0, abs=0.2)
    assert at_40.columns_mm == pytest.approx(-1.2, abs=0.3)
    assert at_40.rotation_deg == pytest.approx(1.0, abs=0.3)


def t1rho_ms(exam, decays):
    """T1rho of the disc voxels."""
    decay = decays[0]
    fit = fit_monoexponential(decay.signal, decay.times_ms, mask=exam.labels > 0)
    return fit.time_ms[exam.labels > 0]


def test_correction_takes_the_error_of_the_times_back(fine):
    rest = measured(fine, snr=1e4)
    exam = measured(fine, snr=1e4, moves={4: Move(2.0, 0.5, 1.0), 6: Move(-1.5, 0.0, 0.0)})
    discs = exam.labels > 0
    decays, told = correct_motion(stacks(exam), estimate_motion(stacks(exam), discs), max_correction_mm=5.0)
    assert {one.time_ms for one in told if one.corrected} == {40.0, 80.0}
    assert judge_motion(told, max_motion_mm=0.8) == []
    true = t1rho_ms(rest, stacks(rest))
    before = np.nanmean(np.abs(t1rho_ms(exam, stacks(exam)) - true))
    after = np.nanmean(np.abs(t1rho_ms(exam, decays) - true))
    assert before > 10
    assert after < 0.2 * before


def test_images_that_did_not_move_stay_as_they_are(fine):
    exam = measured(fine, snr=40)
    motions = [replace(one, displacement_mm=MIN_CORRECTION_MM / 2) for one in estimate(exam)]
    decays, told = correct_motion(stacks(exam), motions, max_correction_mm=5.0)
    assert not any(one.corrected for one in told)
    for still, given in zip(decays, stacks(exam), strict=True):
        assert np.array_equal(still.signal, given.signal)


def estimate(exam):
    return estimate_motion(stacks(exam), exam.labels > 0)


def test_beyond_the_cap_nothing_is_corrected_and_it_is_told(fine):
    exam = measured(fine, snr=40, moves={4: Move(7.0, 0.0, 0.0)})
    decays, told = correct_motion(stacks(exam), estimate(exam), max_correction_mm=5.0)
    assert np.array_equal(decays[0].signal, exam.echoes(Quantity.T1RHO)[1])
    (reason,) = judge_motion(told, max_motion_mm=0.8)
    assert "7." in reason.detail or "6.9" in reason.detail


@pytest.mark.parametrize("value", [0.0, np.nan, 500.0])
def test_an_image_without_edges_cannot_be_compared(fine, value):
    exam = measured(fine, snr=40)
    signal = exam.signal.copy()
    signal[4] = value
    found = estimate(replace(exam, signal=signal))
    assert [one.time_ms for one in found if math.isnan(one.displacement_mm)] == [40.0]
    (reason,) = judge_motion(found, max_motion_mm=0.8)
    assert reason.detail == "T1rho: the image at 40 ms cannot be compared with the first image at the discs"


def test_the_same_twice(fine):
    exam = measured(fine, snr=20, acquired=ACQUIRED)
    assert estimate(exam) == estimate(exam)


def test_an_empty_mask_is_a_mistake_of_the_caller():
    stack = EchoStack(Quantity.T2, np.ones((4, 2, 30, 30), np.float32), (0.0, 10.0, 20.0, 30.0), np.eye(4))
    with pytest.raises(ValueError, match="empty"):
        estimate_motion([stack], np.zeros((2, 30, 30), dtype=bool))
