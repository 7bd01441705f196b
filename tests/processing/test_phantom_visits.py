"""What changes between the visits of a simulated subject is what was asked for, and its truth is exact."""

import numpy as np
import pytest

from processing.fitting import relaxation_map
from processing.phantom import PhantomExam, VisitChange, anatomy_of, simulate_exam
from processing.phantom_visits import UNCHANGED, at_visit
from processing.results import LUMBAR_LEVELS, EchoStack, Level, Quantity


def _exam(change: VisitChange = UNCHANGED, **more: object) -> PhantomExam:
    return simulate_exam(11, n_slices=1, anatomy_matrix=32, snr=np.inf, change=change, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def usual() -> PhantomExam:
    return simulate_exam(11, n_slices=1, anatomy_matrix=32, snr=np.inf)


def test_no_change_is_bit_for_bit_the_exam_as_it_always_was(usual: PhantomExam) -> None:
    same = _exam(VisitChange())
    np.testing.assert_array_equal(same.signal, usual.signal)
    np.testing.assert_array_equal(same.t2_ms, usual.t2_ms)
    assert same.anatomy == usual.anatomy
    assert at_visit(usual.anatomy, VisitChange(gain=2.0)) is usual.anatomy


def test_a_changed_nucleus_changes_its_own_disc_alone(usual: PhantomExam) -> None:
    changed = _exam(VisitChange(level=2, nucleus_factor=(1.2, 1.3)))
    np.testing.assert_array_equal(changed.labels, usual.labels)
    np.testing.assert_array_equal(changed.nucleus, usual.nucleus)
    for level in LUMBAR_LEVELS:
        disc = usual.labels == level
        ratio = changed.t2_ms[disc] / usual.t2_ms[disc]
        if level != Level.L4L5:
            np.testing.assert_array_equal(ratio, 1.0)
        else:
            assert ratio[usual.nucleus[disc] > 0.98].mean() == pytest.approx(1.3, abs=0.01)
            assert ratio[usual.nucleus[disc] < 0.02].mean() == pytest.approx(1.0, abs=0.01)


def test_the_truth_of_a_changed_exam_is_what_a_fit_of_its_clean_signal_finds() -> None:
    change = VisitChange(2, (1.25, 1.25), diurnal_ms=(-6.0, -6.0), diurnal_annulus_ms=(3.0, 3.0), time_factor=1.04)
    exam = _exam(change)
    for quantity, truth in ((Quantity.T1RHO, exam.t1rho_ms), (Quantity.T2, exam.t2_ms)):
        times_ms, signal = exam.echoes(quantity)
        core = (exam.labels == Level.L4L5) & (np.nan_to_num(exam.nucleus) > 0.9)
        fitted = relaxation_map(EchoStack(quantity, signal, times_ms, exam.affine), core)
        assert np.nanmean(fitted.time_ms[core]) == pytest.approx(float(truth[core].mean()), rel=0.02)


def test_the_time_of_day_moves_all_nuclei_alike(usual: PhantomExam) -> None:
    evening = at_visit(usual.anatomy, VisitChange(diurnal_ms=(-9.0, -9.0), diurnal_annulus_ms=(4.0, 4.0)))
    for before, after in zip(usual.anatomy.discs, evening.discs, strict=True):
        assert after.nucleus_ms[1] == pytest.approx(before.nucleus_ms[1] - 9.0)
        assert after.posterior_annulus_ms[1] == pytest.approx(before.posterior_annulus_ms[1] + 4.0)
        assert after.anterior_annulus_ms == before.anterior_annulus_ms


def test_gain_moves_the_signal_and_no_time(usual: PhantomExam) -> None:
    louder = _exam(VisitChange(gain=1.5))
    np.testing.assert_allclose(louder.signal, 1.5 * usual.signal, rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(louder.t2_ms, usual.t2_ms)


def test_a_fused_disc_is_bone_and_has_no_truth(usual: PhantomExam) -> None:
    fused = _exam(VisitChange(fused_level=3))
    assert not (fused.labels == Level.L3L4).any()
    np.testing.assert_array_equal(fused.labels == Level.L4L5, usual.labels == Level.L4L5)


def test_no_change_leaves_a_t1rho_below_its_t2() -> None:
    anatomy = anatomy_of(3, "A")
    for disc in at_visit(anatomy, VisitChange(level=1, nucleus_factor=(0.5, 1.5))).discs:
        for t1rho_ms, t2_ms in (disc.nucleus_ms, disc.anterior_annulus_ms, disc.posterior_annulus_ms):
            assert t1rho_ms > t2_ms


def test_spin_lock_times_of_ones_choice_are_those_of_the_signal(usual: PhantomExam) -> None:
    exam = _exam(spin_lock_ms=(15.0, 30.0, 60.0))
    times_ms, signal = exam.echoes(Quantity.T1RHO)
    assert times_ms == (0.0, 15.0, 30.0, 60.0)
    assert exam.echoes(Quantity.T2)[0] == usual.echoes(Quantity.T2)[0]
    np.testing.assert_array_equal(signal[0], usual.echoes(Quantity.T1RHO)[1][0])
    core = np.nan_to_num(exam.nucleus) > 0.9
    fitted = relaxation_map(EchoStack(Quantity.T1RHO, signal, times_ms, exam.affine), core)
    assert np.nanmean(fitted.time_ms[core]) == pytest.approx(float(usual.t1rho_ms[core].mean()), rel=0.02)


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="level and fused_level"):
        VisitChange(level=6)
    with pytest.raises(ValueError, match="factors: above 0"):
        VisitChange(time_factor=0.0)
    with pytest.raises(ValueError, match="leaves level 1 a T2"):
        at_visit(anatomy_of(3, "A"), VisitChange(diurnal_ms=(-300.0, -300.0)))
    with pytest.raises(ValueError, match="3 times above 0"):
        _exam(spin_lock_ms=(10.0, 40.0))
