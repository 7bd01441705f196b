"""Simulated slices: a pool to train on, drawn once for a seed, and the frozen set that every model is compared on."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.training.slices import TrainingSlice, from_classes
from processing.phantom import draw_training_slice
from service.training.publish import exclusively

#: Never trained on: the training streams have the seeds 1 to 9000.
FROZEN_SEED = 9001

#: Image and classes.
Drawn = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]

_FEW = 50

#: How much disk one simulated slice of a pool takes.
BYTES_PER_SLICE = 256 * 256 * 3


def phantom_slices(
    count: int, seed: int, folder: Path, processes: int, say: Callable[[str], None] = print
) -> list[TrainingSlice]:
    """``count`` phantom slices, drawn once for a seed and kept in ``folder``; slice i depends on seed and i alone."""
    pool = folder / f"phantoms-{seed}-{count}.npz"
    if not pool.exists():
        with exclusively(pool):
            _draw_pool(pool, count, seed, processes, say)
    with np.load(pool) as held:
        pairs = zip(held["images"], held["classes"], strict=True)
        return [from_classes(image, tissue, f"phantom-{index}") for index, (image, tissue) in enumerate(pairs)]


def _draw_pool(pool: Path, count: int, seed: int, processes: int, say: Callable[[str], None]) -> None:
    images = np.empty((count, 256, 256), np.float16)
    classes = np.empty((count, 256, 256), np.uint8)
    keys = [(seed, index) for index in range(count)]
    with contextlib.ExitStack() as stack:
        if processes == 1 or count < _FEW:  # a process takes seconds to start
            drawn: Iterator[Drawn] = map(draw_phantom, keys)
        else:
            workers = stack.enter_context(multiprocessing.get_context("spawn").Pool(processes))
            drawn = workers.imap(draw_phantom, keys, chunksize=10)
        for index, (image, tissue) in enumerate(drawn):
            images[index], classes[index] = image, tissue
            if (index + 1) % 250 == 0:
                say(f"phantom {index + 1}/{count}")
    temporary = pool.with_suffix(".writing.npz")
    np.savez(temporary, images=images, classes=classes)
    temporary.replace(pool)


def frozen_phantoms(count: int) -> list[TrainingSlice]:
    """The first ``count`` slices of the frozen set."""
    drawn = [draw_phantom((FROZEN_SEED, index)) for index in range(count)]
    return [from_classes(image, tissue, f"frozen-{index}") for index, (image, tissue) in enumerate(drawn)]


def draw_phantom(key: tuple[int, int]) -> Drawn:
    """Slice ``index`` of stream ``seed``: image (256, 256) with greatest value 1, classes (256, 256)."""
    image, classes = draw_training_slice(np.random.default_rng([*key, 7]))
    return image / max(float(np.abs(image).max()), 1e-6), classes  # half precision overflows at 65504
