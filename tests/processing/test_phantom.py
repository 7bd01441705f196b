"""The simulated exam: what it claims to be true is true, and nothing about it is symmetrical by accident."""

from dataclasses import replace

import numpy as np
import pytest

from processing.phantom import (
    CLASS_OF_TISSUE,
    PhantomExam,
    SamplingPlane,
    Tissue,
    draw_anatomy,
    draw_training_slice,
    mean_anatomy,
    rasterise,
    rasterise_volume,
    simulate_exam,
)
from processing.phantom_signal import acquire
from processing.results import LUMBAR_LEVELS, Quantity


@pytest.fixture(scope="module")
def clean() -> PhantomExam:
    """An exam without noise, four slices over the middle of the spine."""
    return simulate_exam(5, n_slices=4, snr=np.inf)


def _midline(anatomy, *, size=(320, 256), spacing_mm=0.78125):
    top = anatomy.discs[6].centre_mm[2] + 20
    plane = SamplingPlane(
        np.array([0.0, -90.0, top]), np.array([0.0, 0.0, -spacing_mm]), np.array([0.0, spacing_mm, 0.0]), size
    )
    return rasterise(anatomy, plane)


def test_the_same_seed_makes_the_same_exam_and_another_seed_another() -> None:
    first, second, other = (simulate_exam(seed, n_slices=1) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.signal, second.signal)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.affine, second.affine)
    assert first.anatomy == second.anatomy
    assert other.anatomy != first.anatomy
    assert not np.array_equal(first.signal, other.signal)


def test_a_second_visit_keeps_the_anatomy_and_changes_position_and_noise() -> None:
    first, second = (simulate_exam(3, n_slices=1, subject="A", visit=visit) for visit in (1, 2))
    assert first.anatomy == second.anatomy
    assert not np.allclose(first.affine, second.affine)
    assert not np.array_equal(first.signal, second.signal)
    assert simulate_exam(3, n_slices=1, subject="B").anatomy != first.anatomy


def test_every_disc_is_inside_the_default_field_of_view_with_the_sacrum_below() -> None:
    for seed in range(6):
        exam = simulate_exam(seed, n_slices=1)
        for level in LUMBAR_LEVELS:
            rows, columns = np.nonzero(exam.labels[0] == level)
            assert rows.size > 60, (seed, level)
            assert rows.min() >= 4, (seed, level)
            assert columns.min() > 10
            assert columns.max() < 245
        below = np.nonzero(exam.labels[0] == 1)[0].max()
        assert below < 256 - 24  # at least 19 mm of sacrum
        sacrum_mm2 = np.count_nonzero(exam.classes[0] == 3) * (200 / 256) ** 2
        assert sacrum_mm2 > 550


def test_the_grid_is_standard_sagittal_and_its_affine_is_right_handed(clean: PhantomExam) -> None:
    slices, rows, columns = clean.affine[:3, :3].T
    np.testing.assert_allclose(slices, (-4, 0, 0))
    np.testing.assert_allclose(rows, (0, 0, -200 / 256))
    np.testing.assert_allclose(columns, (0, 200 / 256, 0))
    np.testing.assert_allclose(
        np.cross(columns, rows) / (200 / 256) ** 2, slices / 4
    )  # n = row direction x column direction


def test_labels_count_from_below_and_run_up(clean: PhantomExam) -> None:
    heights = [np.mean(np.nonzero(clean.labels == level)[1]) for level in LUMBAR_LEVELS]
    assert heights == sorted(heights, reverse=True)  # row numbers grow downwards
    canal = np.nonzero(clean.classes == 4)[2].mean()
    bodies = np.nonzero(clean.classes == 2)[2].mean()
    assert canal > bodies + 10  # posterior is to the right
    assert np.nonzero(clean.classes == 3)[1].mean() > heights[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_flip_goes_unseen(clean: PhantomExam, axis: int) -> None:
    exam = clean
    flipped = np.flip(exam.labels, axis)
    overlap = 2 * np.count_nonzero((flipped > 0) & (flipped == exam.labels))
    dice = overlap / (np.count_nonzero(exam.labels) + np.count_nonzero(flipped))
    image, mirrored = exam.signal[0], np.flip(exam.signal[0], axis)
    assert np.abs(image - mirrored).mean() > 0.1 * image.mean()
    assert dice < 0.97


def test_left_is_left(clean: PhantomExam) -> None:
    anatomy = mean_anatomy()
    found = {}
    for x in (9.0, -13.0):
        plane = SamplingPlane(
            np.array([x, -90.0, 60.0]), np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0]), (80, 120)
        )
        found[x] = set(np.unique(rasterise(anatomy, plane).tissue).tolist())
    assert Tissue.VESSEL in found[9.0]
    assert Tissue.VENOUS not in found[9.0]
    assert Tissue.VENOUS in found[-13.0]
    assert Tissue.VESSEL not in found[-13.0]


def test_times_are_physical_and_healthy_nuclei_are_long() -> None:
    exam = simulate_exam(2, n_slices=3, healthy=True, snr=np.inf)
    inside = exam.labels > 0
    assert np.isnan(exam.t2_ms[~inside]).all()
    assert np.isnan(exam.t1rho_ms[~inside]).all()
    assert (exam.t1rho_ms[inside] >= exam.t2_ms[inside]).all()
    assert exam.t2_ms[inside].max() > 150
    assert exam.t2_ms[inside].min() > 30
    assert set(exam.grades) <= {1, 2}


def test_a_fit_of_the_clean_signal_finds_the_truth(clean: PhantomExam) -> None:
    for quantity, truth in ((Quantity.T1RHO, clean.t1rho_ms), (Quantity.T2, clean.t2_ms)):
        times, signal = clean.echoes(quantity)
        for level in LUMBAR_LEVELS:
            inside = clean.labels == level
            fitted = _weighted_log_fit_ms(np.array(times), signal[:, inside])
            true = float(truth[inside].mean())
            assert abs(float(fitted.mean()) - true) <= max(3.0, 0.05 * true), (quantity, level)


def _weighted_log_fit_ms(times, signal):
    weight = signal.astype(np.float64) ** 2
    times = times[:, None]
    mean_time = (weight * times).sum(0) / weight.sum(0)
    slope = (weight * (times - mean_time) * np.log(signal)).sum(0) / (weight * (times - mean_time) ** 2).sum(0)
    return -1 / slope


def test_t1rho_and_t2_share_the_image_without_preparation(clean: PhantomExam) -> None:
    t1rho, t2 = clean.echoes(Quantity.T1RHO), clean.echoes(Quantity.T2)
    assert t1rho[0] == (0, 10, 40, 80)
    assert t2[0] == (0, 12.8, 25.7, 51.4)
    np.testing.assert_array_equal(t1rho[1][0], t2[1][0])


def test_snr_is_mean_disc_signal_over_the_noise() -> None:
    noisy, clean = (simulate_exam(6, n_slices=2, snr=snr) for snr in (20.0, np.inf))
    inside = noisy.labels > 0
    assert clean.noise_sd == 0
    difference = (noisy.signal[0] - clean.signal[0])[inside]
    assert difference.std() == pytest.approx(noisy.noise_sd, rel=0.1)
    assert clean.signal[0][inside].mean() / difference.std() == pytest.approx(20, rel=0.1)


def test_discs_are_brighter_than_marrow_in_the_first_mapss_image(clean: PhantomExam) -> None:
    first = clean.signal[0]
    assert first[clean.labels > 0].mean() > 1.4 * first[clean.classes == 2].mean()


def test_limited_k_space_keeps_the_mean_and_removes_high_frequencies_along_phase_only() -> None:
    image = np.ones((64, 64), np.float32)
    image[:, ::2] += 0.5  # Nyquist along columns (phase)
    flat = acquire(image, (64, 32), noise_sd=0, rng=None)
    np.testing.assert_allclose(flat, 1.25, atol=1e-5)
    np.testing.assert_allclose(acquire(image.T, (64, 32), noise_sd=0, rng=None), image.T, atol=1e-5)


def test_noise_without_signal_is_rayleigh() -> None:
    noise = acquire(np.zeros((256, 256), np.float32), (256, 128), noise_sd=3.0, rng=np.random.default_rng(0))
    assert noise.mean() == pytest.approx(3.0 * np.sqrt(np.pi / 2), rel=0.02)


def test_t1rho_fse_exam_has_four_times_and_no_t2() -> None:
    exam = simulate_exam(1, protocol="t1rho-fse", n_slices=1)
    assert exam.times_ms == (0, 40, 80, 120)
    assert exam.signal.shape == (4, 1, 256, 256)
    assert set(exam.quantities) == {Quantity.T1RHO}


def test_an_oblique_scan_shows_the_same_spine() -> None:
    straight, oblique = (simulate_exam(8, n_slices=1, snr=np.inf, oblique_deg=angle) for angle in (0.0, 20.0))
    assert abs(oblique.affine[1, 0]) > 1
    differing = np.count_nonzero((straight.labels > 0) != (oblique.labels > 0))
    assert differing < 0.002 * np.count_nonzero(straight.labels)  # rounding of the scan's centre


def test_bad_requests_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mapss, t1rho-fse"):
        simulate_exam(1, protocol="dixon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one slice"):
        simulate_exam(1, n_slices=0)


def test_the_mean_subject_is_symmetrical_deterministic_and_healthy() -> None:
    anatomy = mean_anatomy()
    assert anatomy == mean_anatomy()
    assert anatomy.grades == (2,) * 5
    affine = np.diag([-2.0, 1, 1, 1])
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = (0, 0, -1), (0, 1, 0), (21, -40, 60)
    levels = np.stack([one.level for one in rasterise_volume(anatomy, affine, (22, 180, 90))])
    np.testing.assert_array_equal(levels, levels[::-1])  # x = +21 .. -21
    assert set(range(1, 6)) <= set(np.unique(levels).tolist())


def test_end_plates_and_sacral_discs_are_not_discs() -> None:
    assert CLASS_OF_TISSUE[Tissue.DISC] == 1
    assert CLASS_OF_TISSUE[Tissue.END_PLATE] == 2
    assert CLASS_OF_TISSUE[Tissue.SACRAL_DISC] == 3
    assert CLASS_OF_TISSUE[Tissue.SACRAL_END_PLATE] == 3
    remnants = [len(draw_anatomy(np.random.default_rng(seed)).sacral_discs) > 0 for seed in range(60)]
    assert np.mean(remnants) >= 0.6


def test_midline_disc_areas_are_those_of_real_discs() -> None:
    areas = []
    for seed in range(20):
        level = _midline(draw_anatomy(np.random.default_rng(seed))).level
        areas += [np.count_nonzero(level == value) for value in LUMBAR_LEVELS]
    low, middle, high = np.percentile(areas, (5, 50, 95))
    assert 150 <= low <= 300  # real discs at this spacing: 208 .. 529 px between the 5th and 95th percentile
    assert 300 <= middle <= 430
    assert 430 <= high <= 640


def test_a_disc_is_smaller_to_the_side_and_gone_beyond_its_width() -> None:
    anatomy = mean_anatomy()
    areas = []
    for x in (0.0, 12.0, 18.0, 26.0):
        plane = SamplingPlane(
            np.array([x, -60.0, 60.0]), np.array([0.0, 0.0, -0.5]), np.array([0.0, 0.5, 0.0]), (400, 240)
        )
        areas.append(np.count_nonzero(rasterise(anatomy, plane).level == 3))
    assert areas[0] > areas[1] > areas[2] > areas[3] == 0


def test_training_slices_are_varied_and_cheap_to_check() -> None:
    rng = np.random.default_rng(11)
    slices = [draw_training_slice(rng) for _ in range(12)]
    again = draw_training_slice(np.random.default_rng(11))
    np.testing.assert_array_equal(slices[0][0], again[0])
    for image, classes in slices:
        assert image.shape == classes.shape == (256, 256)
        assert image.dtype == np.float32
        assert classes.dtype == np.uint8
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert classes.max() <= 4
    assert np.mean([np.count_nonzero(classes == 1) > 300 for _, classes in slices]) > 0.7
    assert any(np.count_nonzero(classes == 4) == 0 for _, classes in slices) or any(
        np.count_nonzero(classes == 3) == 0 for _, classes in slices
    )
    small, _ = draw_training_slice(rng, size=64, spacing_mm=3.125)
    assert small.shape == (64, 64)


def test_a_grade_five_disc_is_thin_and_a_vacuum_has_no_signal() -> None:
    anatomies = [draw_anatomy(np.random.default_rng(seed), severe=1.0, vacuum=1.0) for seed in range(4)]
    heights = [disc.height_mm for anatomy in anatomies for disc in anatomy.discs[:5]]
    assert min(heights) < 4.0
    assert any(Tissue.VACUUM in _midline(anatomy).tissue for anatomy in anatomies)
    without = replace(anatomies[0], discs=tuple(replace(disc, vacuum=False) for disc in anatomies[0].discs))
    assert Tissue.VACUUM not in _midline(without).tissue
