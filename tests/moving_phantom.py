"""Simulated exams in which single images moved: noise-free on a finer grid, moved there, then measured with noise."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from processing.phantom import PhantomExam, simulate_exam
from processing.phantom_signal import acquire
from processing.results import EchoStack, Quantity

MATRIX = 256
ACQUIRED = (256, 128)


@dataclass(frozen=True)
class Move:
    """Tissue goes down by ``rows_mm``, to the back by ``columns_mm`` and turns about the middle of the discs."""

    rows_mm: float = 0.0
    columns_mm: float = 0.0
    degrees: float = 0.0


def fine_exam(seed: int, *, n_slices: int = 5, slice_spacing_mm: float = 4.0, **options) -> PhantomExam:
    """A noise-free exam on twice the matrix, from which :func:`measured` makes as many exams as wanted."""
    return simulate_exam(
        seed, n_slices=n_slices, slice_spacing_mm=slice_spacing_mm, matrix=2 * MATRIX, snr=np.inf, **options
    )


def measured(
    fine: PhantomExam, *, snr: float, seed: int = 0, moves: Mapping[int, Move] | None = None, acquired=ACQUIRED
) -> PhantomExam:
    """The exam on the usual matrix, with noise; image ``index`` of ``moves`` is moved (0 is the image at time 0)."""
    labels = _halved_labels(fine.labels)
    images = []
    for index, volume in enumerate(fine.signal):
        move = (moves or {}).get(index, Move())
        volume = moved(volume, move, fine.labels > 0, (200.0 / volume.shape[1], 200.0 / volume.shape[2]))
        images.append(volume.reshape(len(volume), MATRIX, 2, MATRIX, 2).mean(axis=(2, 4)))
    noise_sd = float(images[0][labels > 0].mean() / snr)
    rng = np.random.default_rng(seed)
    signal = np.stack([acquire(one, acquired, noise_sd=noise_sd, rng=rng) for one in images])
    affine = fine.affine.copy()
    affine[:3, 3] += (fine.affine[:3, 1] + fine.affine[:3, 2]) / 2
    affine[:3, 1:3] *= 2
    return replace(fine, snr=snr, noise_sd=noise_sd, signal=signal, labels=labels, affine=affine)


def moved(volume: np.ndarray, move: Move, discs: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """A volume (slices, rows, columns) whose tissue has moved in plane."""
    if move == Move():
        return volume
    centre = np.array(np.nonzero(discs.any(axis=0))).mean(axis=1)
    angle = np.deg2rad(move.degrees)
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array([move.rows_mm, move.columns_mm]) / spacing_mm
    offset = centre - back @ (centre + shift)
    return np.stack([ndimage.affine_transform(one, back, offset, order=3, mode="nearest") for one in volume])


def stacks(exam: PhantomExam) -> tuple[EchoStack, ...]:
    """The exam as the pipeline gets it."""
    found = []
    for role in Quantity:
        times_ms, signal = exam.echoes(role)
        if len(times_ms) >= 3:
            found.append(EchoStack(role, signal, times_ms, exam.affine))
    return tuple(found)


def _halved_labels(labels: np.ndarray) -> np.ndarray:
    blocks = labels.reshape(len(labels), MATRIX, 2, MATRIX, 2).transpose(0, 1, 3, 2, 4).reshape(-1, MATRIX, MATRIX, 4)
    return np.where((blocks > 0).sum(axis=-1) >= 2, blocks.max(axis=-1), 0).astype(np.uint8)
