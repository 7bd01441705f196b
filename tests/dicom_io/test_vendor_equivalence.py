"""One exam through every vendor's headers: the same maps, on the same grid."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rewritten_exam import (
    a_series_for_each_image,
    a_study_for_each_time,
    backwards,
    interleaved,
    renumbered,
    turned,
    upside_down,
)
from scipy.spatial.transform import Rotation

import config.protocol_cards
from config.protocol_cards import ProtocolCard, load_cards
from dicom_io.headers import read_facts
from dicom_io.series import AssemblyState, assemble_exam
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import ExamImages, read_exam
from processing.fitting import fit_monoexponential
from processing.phantom import PhantomExam, simulate_exam
from processing.results import Quantity

EXAMPLES = Path(config.protocol_cards.__file__).parent / "protocols" / "examples"
MAP_TOLERANCE = 0.005  # median absolute difference, relative
GEOMETRY_TOLERANCE_MM = 0.01


class Flavour(NamedTuple):
    how: dict[str, object]
    cards: tuple[ProtocolCard, ...]
    protocols: tuple[str, ...]


PHILIPS = ("philips-mapss-t1rho", "philips-mapss-t2")
FLAVOURS = {
    "ge": Flavour({}, load_cards(), ("ge-mapss",)),
    "ge, one EchoTime": Flavour({"one_echo_time": True}, load_cards(EXAMPLES), ("ge-mapss-one-echo-time",)),
    "siemens": Flavour({"vendor": "siemens"}, load_cards(), ("siemens-mapss",)),
    "siemens, enhanced": Flavour({"vendor": "siemens", "enhanced": True}, load_cards(), ("siemens-mapss",)),
    "philips": Flavour({"vendor": "philips"}, load_cards(), PHILIPS),
    "philips, enhanced": Flavour({"vendor": "philips", "enhanced": True}, load_cards(), PHILIPS),
    "philips, one scan": Flavour({"vendor": "philips", "one_scan": True}, load_cards(), ("philips-mapss",)),
    "philips, enhanced, one scan": Flavour(
        {"vendor": "philips", "enhanced": True, "one_scan": True}, load_cards(), ("philips-mapss",)
    ),
    "philips, phase": Flavour({"vendor": "philips", "phase_images": True}, load_cards(), PHILIPS),
    "philips, enhanced, phase": Flavour(
        {"vendor": "philips", "enhanced": True, "phase_images": True}, load_cards(), PHILIPS
    ),
}


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(7, n_slices=3, matrix=96, oblique_deg=8.0)


@pytest.fixture(scope="module")
def voxels(exam: PhantomExam) -> np.ndarray:
    """Where there is signal enough for any map to be worth comparing."""
    there = exam.signal[0] > 10 * exam.noise_sd
    assert there.mean() > 0.2
    return there


@pytest.fixture(scope="module")
def maps(exam: PhantomExam, voxels: np.ndarray) -> dict[Quantity, np.ndarray]:
    """Times in ms fitted to the exam itself, as it was before any scanner wrote it."""
    return {quantity: _fitted(exam.echoes(quantity)[1], exam.echoes(quantity)[0], voxels) for quantity in Quantity}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_gives_the_maps_and_the_grid_of_the_exam(
    exam: PhantomExam, voxels: np.ndarray, maps: dict[Quantity, np.ndarray], flavour: str, tmp_path: Path
) -> None:
    how, cards, protocols = FLAVOURS[flavour]
    images = _read(write_exam(exam, tmp_path, **how), cards)
    assert images.protocols == protocols
    assert set(images.times_ms) == set(Quantity)
    for stack in images.stacks:
        times_ms, _ = exam.echoes(stack.role)
        assert stack.times_ms == pytest.approx(times_ms)
        assert _farthest_corner_mm(stack.affine, exam.affine, voxels.shape) < GEOMETRY_TOLERANCE_MM
        found = _fitted(stack.signal, stack.times_ms, voxels)
        both = np.isfinite(found) & np.isfinite(maps[stack.role])
        assert both.mean() > 0.95
        difference = np.median(np.abs(found[both] / maps[stack.role][both] - 1))
        assert difference < MAP_TOLERANCE
    assert _farthest_corner_mm(images.background.affine, exam.affine, voxels.shape) < GEOMETRY_TOLERANCE_MM


TURN = Rotation.from_euler("xyz", (6, -8, 11), degrees=True).as_matrix()


@pytest.mark.parametrize("flavour", ["ge", "siemens", "philips", "philips, enhanced", "siemens, enhanced"])
def test_oblique_planes_give_the_same_maps_on_the_turned_grid(
    exam: PhantomExam, voxels: np.ndarray, maps: dict[Quantity, np.ndarray], flavour: str, tmp_path: Path
) -> None:
    how, cards, _ = FLAVOURS[flavour]
    images = _read(turned(write_exam(exam, tmp_path, **how), tmp_path / "turned", TURN), cards)
    expected = exam.affine.copy()
    expected[:3] = TURN @ exam.affine[:3]
    for stack in images.stacks:
        assert _farthest_corner_mm(stack.affine, expected, voxels.shape) < GEOMETRY_TOLERANCE_MM
        found = _fitted(stack.signal, stack.times_ms, voxels)
        assert np.nanmedian(np.abs(found / maps[stack.role] - 1)) < MAP_TOLERANCE


@pytest.mark.parametrize("flavour", ["ge", "siemens", "philips"])
@pytest.mark.parametrize("order", [interleaved, backwards])
def test_the_order_of_numbers_and_files_changes_nothing(
    exam: PhantomExam, flavour: str, order: Callable[[int, int], int], tmp_path: Path
) -> None:
    how, cards, _ = FLAVOURS[flavour]
    plain = write_exam(exam, tmp_path / "plain", **how)
    images = _read(plain, cards)
    shuffled = renumbered(plain, tmp_path / "renumbered", order)
    np.random.default_rng(1).shuffle(shuffled)
    again = _read(shuffled, cards)
    _assert_same_places(images, again)


def test_rows_from_the_last_to_the_first_are_the_same_places(exam: PhantomExam, tmp_path: Path) -> None:
    plain = write_exam(exam, tmp_path / "plain")
    images, mirrored = (_read(paths, load_cards()) for paths in (plain, upside_down(plain, tmp_path / "upside down")))
    assert mirrored.background.affine[:3, 1] == pytest.approx(-images.background.affine[:3, 1])
    _assert_same_places(images, mirrored)


def test_a_study_for_each_time_is_one_exam(exam: PhantomExam, tmp_path: Path) -> None:
    plain = write_exam(exam, tmp_path / "plain")
    images, apart = (
        _read(paths, load_cards()) for paths in (plain, a_study_for_each_time(plain, tmp_path / "studies"))
    )
    _assert_same_places(images, apart)


@pytest.mark.parametrize("flavour", ["ge", "siemens", "philips"])
def test_a_series_for_each_image_is_one_exam(exam: PhantomExam, flavour: str, tmp_path: Path) -> None:
    how, cards, _ = FLAVOURS[flavour]
    plain = write_exam(exam, tmp_path / "plain", **how)
    apart = a_series_for_each_image(plain, tmp_path / "series")
    _assert_same_places(_read(plain, cards), _read(apart, cards))
    one_is_lost = assemble_exam([facts for path in apart[:-1] for facts in read_facts(path)], cards)
    assert one_is_lost.state is AssemblyState.INCOMPLETE


def test_the_comparison_would_see_a_wrong_scale_or_time(
    exam: PhantomExam, voxels: np.ndarray, maps: dict[Quantity, np.ndarray]
) -> None:
    times_ms, signal = exam.echoes(Quantity.T1RHO)
    last_weaker = signal * np.array([1, 1, 1, 0.97])[:, None, None, None]  # the last image off by 3 %
    for wrong in (_fitted(last_weaker, times_ms, voxels), _fitted(signal, (0.0, 10.0, 40.0, 82.0), voxels)):
        assert np.nanmedian(np.abs(wrong / maps[Quantity.T1RHO] - 1)) > MAP_TOLERANCE


def _read(paths: list[Path], cards: tuple[ProtocolCard, ...]) -> ExamImages:
    assembly = assemble_exam([facts for path in paths for facts in read_facts(path)], cards)
    assert assembly.state in (AssemblyState.COMPLETE, AssemblyState.COMPLETE_WITHOUT_EVIDENCE), assembly.reasons
    return read_exam(assembly)


def _fitted(signal: np.ndarray, times_ms: tuple[float, ...], voxels: np.ndarray) -> np.ndarray:
    return fit_monoexponential(signal[:, voxels], times_ms).time_ms


def _assert_same_places(images: ExamImages, others: ExamImages) -> None:
    """Same signal at the same place and time, whichever end of a stack or column an exam begins at."""
    assert [(one.role, one.times_ms) for one in images.stacks] == [(one.role, one.times_ms) for one in others.stacks]
    for stack, other in zip(images.stacks, others.stacks, strict=True):
        steps = np.linalg.solve(other.affine[:3, :3], stack.affine[:3, :3])  # of one grid in steps of the other
        np.testing.assert_allclose(np.abs(steps), np.eye(3), atol=1e-4)
        backwards_along = [axis for axis in range(3) if steps[axis, axis] < 0]
        signal = np.flip(other.signal, [axis + 1 for axis in backwards_along])
        np.testing.assert_array_equal(stack.signal, signal)
        corner = np.array([*((n - 1) * (axis in backwards_along) for axis, n in enumerate(signal.shape[1:])), 1.0])
        assert np.linalg.norm(other.affine @ corner - stack.affine[:, 3]) < GEOMETRY_TOLERANCE_MM


def _farthest_corner_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two grids place their corners, at most."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    return float(np.linalg.norm(corners @ (affine - other).T, axis=1).max())
