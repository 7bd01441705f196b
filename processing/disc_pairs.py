"""Seeded pairs of a disc and its atlas disc, hard to register: flat and bulging, wedged and tilted, degenerated.

Registration is tuned and measured on them. The shapes are wedge-shaped superellipses whose end plates and outline are
disturbed; nothing in them comes from a patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from processing.results import LUMBAR_LEVELS, Affine, AtlasDisc, LabelArray, Level

_Float64 = npt.NDArray[np.float64]

#: Unit LPS directions of slices (to the right), rows (to inferior) and columns (to posterior): the atlas' order.
_AXES = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_IN_PLANE_MM = 0.78125
_SUB_SAMPLES = 3  # of a voxel along each axis
_EMPTY_SLICES = 2  # on each side of a disc in three dimensions
_EMPTY_MM = 10.0  # around a disc in the plane


class Shape(StrEnum):
    """What makes a pair hard."""

    FLAT_BULGING = "flat, bulging"
    WEDGED_TILTED = "wedged, tilted"
    DEGENERATED = "degenerated"


@dataclass(frozen=True, slots=True)
class DiscShape:
    """A disc by its measures, in mm and degrees.

    ``wedge``: how much higher the front is than the middle, as a share. ``bulge_mm``: how far the rear stands out, in
    the middle of its height. ``roughness_mm``: amplitude of the waves in the end plates.
    """

    depth_mm: float
    height_mm: float
    half_width_mm: float
    wedge: float
    tilt_deg: float
    bulge_mm: float
    roughness_mm: float
    phase: float


@dataclass(frozen=True, slots=True, eq=False)
class DiscPair:
    """A disc, ``mask`` (slices, rows, columns) with its LPS mm ``affine``, and the atlas disc of its level."""

    name: str
    mask: LabelArray
    affine: Affine
    atlas: AtlasDisc


def hard_pairs(
    atlas: Mapping[Level, AtlasDisc], count: int, *, seed: int = 1, slices: int = 8, slice_mm: float = 4.0
) -> tuple[DiscPair, ...]:
    """``count`` discs with the atlas disc of their level, in turn of each :class:`Shape` and level.

    With a single-slice atlas the discs have one slice too, and ``slices`` and ``slice_mm`` are not used; otherwise the
    disc itself covers ``slices`` slices of ``slice_mm``. The same arguments give the same pairs.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        kind = tuple(Shape)[number % len(Shape)]
        target = atlas[LUMBAR_LEVELS[number % len(LUMBAR_LEVELS)]]
        flat = target.mask.shape[0] == 1
        half_width_mm = slices * slice_mm / 2
        shape = _shape(kind, rng, half_width_mm)
        spacing_mm = (4.0 if flat else slice_mm, _IN_PLANE_MM, _IN_PLANE_MM)
        mask = draw_disc(shape, 1 if flat else slices + 2 * _EMPTY_SLICES, spacing_mm)
        centre_mm = rng.uniform(-60, 60, 3)
        pairs.append(
            DiscPair(f"{number} {target.level.name} {kind}", mask, _affine(mask, spacing_mm, centre_mm), target)
        )
    return tuple(pairs)


def draw_disc(shape: DiscShape, slices: int, spacing_mm: tuple[float, float, float]) -> LabelArray:
    """The disc on a grid (slices, rows, columns) of ``spacing_mm``, with 10 mm around it.

    A single slice cuts its middle. A voxel belongs to it when half of its volume does.
    """
    extent_mm = shape.depth_mm + 2 * abs(shape.bulge_mm)
    high_mm = shape.height_mm * (1 + shape.wedge) + extent_mm * abs(np.sin(np.radians(shape.tilt_deg)))
    rows, columns = (2 * int(np.ceil((mm / 2 + _EMPTY_MM) / _IN_PLANE_MM)) for mm in (high_mm, extent_mm))
    sub = (1 if slices == 1 else _SUB_SAMPLES, _SUB_SAMPLES, _SUB_SAMPLES)
    fine = [
        (np.arange(size * parts) - (size * parts - 1) / 2) * mm / parts
        for size, mm, parts in zip((slices, rows, columns), spacing_mm, sub, strict=True)
    ]
    across, down, back = np.meshgrid(*fine, indexing="ij")
    inside = _inside(shape, across, down, back)
    blocks = inside.reshape(slices, sub[0], rows, sub[1], columns, sub[2])
    mask: LabelArray = (blocks.mean(axis=(1, 3, 5)) >= 0.5).astype(np.uint8)
    return mask


def _inside(shape: DiscShape, across: _Float64, down: _Float64, back: _Float64) -> npt.NDArray[np.bool_]:
    """Points, in mm right of, below and behind the disc's centre, that lie in it."""
    tilt = np.radians(shape.tilt_deg)
    x, y = np.cos(tilt) * back + np.sin(tilt) * down, np.cos(tilt) * down - np.sin(tilt) * back
    half_depth = shape.depth_mm / 2
    x = x - np.where(x > 0, shape.bulge_mm * np.exp(-((y / (0.35 * shape.height_mm)) ** 2)), 0.0) * (x / half_depth)
    half_height = shape.height_mm / 2 * np.maximum(1 - shape.wedge * x / half_depth, 0.25)
    y = y - shape.roughness_mm * np.sin(2 * np.pi * 1.5 * x / shape.depth_mm + shape.phase)
    side = across / shape.half_width_mm
    inside: npt.NDArray[np.bool_] = (
        np.abs(x / half_depth) ** 2.6 + np.abs(side) ** 2.6 + np.abs(y / half_height) ** 3.0 <= 1
    )
    return inside


def _shape(kind: Shape, rng: np.random.Generator, half_width_mm: float) -> DiscShape:
    """A disc of a kind, its measures drawn at random."""
    depth, height, tilt, phase = rng.uniform((30, 0, 8, 0), (38, 1, 25, 2 * np.pi))
    sign = 1 if rng.random() < 0.5 else -1
    ranges = {  # lowest and highest height_mm; wedge, bulge_mm, roughness_mm
        Shape.FLAT_BULGING: ((5.0, 6.5), 0.1, 3.0, 0.0),
        Shape.WEDGED_TILTED: ((9.0, 12.0), 0.45, 0.0, 0.0),
        Shape.DEGENERATED: ((4.5, 6.0), 0.25, 1.5, 0.8),
    }
    (low, high), wedge, bulge_mm, roughness_mm = ranges[kind]
    return DiscShape(
        depth_mm=depth,
        height_mm=low + (high - low) * height,
        half_width_mm=half_width_mm,
        wedge=wedge,
        tilt_deg=sign * (20.0 if kind is Shape.WEDGED_TILTED else tilt),
        bulge_mm=bulge_mm,
        roughness_mm=roughness_mm,
        phase=phase,
    )


def _affine(mask: LabelArray, spacing_mm: tuple[float, float, float], centre_mm: _Float64) -> Affine:
    affine = np.eye(4)
    affine[:3, :3] = _AXES * spacing_mm
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(mask.shape) - 1) / 2)
    return affine
