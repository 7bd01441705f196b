"""The level atlas: one disc per level with nucleus, anterior and posterior annulus and midline, levelled and centred.

An atlas is one ``.npz`` file, ``discnode.atlas/1``, without pickled objects:

* ``format``, ``name``, ``source``, ``licence``, ``attribution``: text (arrays without dimensions). ``attribution`` is
  empty or what the licence of the source asks to be said.
* for each level of :data:`~processing.results.LUMBAR_LEVELS` and ``D`` = 2 (the mid-slice, for exams of one slice) and
  3: ``LEVEL_Dd_regions`` uint8 (slices, rows, columns), 0 outside, 1 nucleus, 2 anterior annulus, 3 posterior annulus;
  ``LEVEL_Dd_affine`` float64 (4, 4), index -> LPS mm; ``LEVEL_Dd_midline_mm`` float64: where the midline lies.

The midline is a line in 2-D and a plane in 3-D, across the disc at ``midline_mm`` towards posterior: it halves the
disc's depth in its middle slice, and parts the annulus into anterior and posterior.

:mod:`processing.atlas_anatomy` and :mod:`processing.atlas_masks` build atlases. Three are shipped: ``healthy`` from the
mean healthy anatomy of the simulation, ``healthy-2`` and ``degenerated`` from annotated patients (``config/atlas``).
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import config
from processing.results import LUMBAR_LEVELS, Affine, AtlasDisc, LabelArray, Level

ATLAS_FORMAT = "discnode.atlas/1"
ATLAS_FOLDER = Path(config.__file__).parent / "atlas"
DEFAULT_ATLAS = "healthy"
DIMENSIONS = (2, 3)

#: Spacing of slices, rows and columns: a 200 mm field of view with 256 columns, and the usual MAPSS slice.
SPACING_MM = (4.0, 0.78125, 0.78125)

NUCLEUS, ANTERIOR_ANNULUS, POSTERIOR_ANNULUS = 1, 2, 3

#: Samples of a voxel along slices, rows and columns: a voxel of the atlas is disc where at least half of them are.
SUB_SAMPLES = (4, 3, 3)

_MARGIN = (1, 3, 3)  # empty voxels around the disc; registration needs a background, but each one costs
_FEWEST = (8, 16)  # rows and columns: registration begins at a half and a quarter of them
_TEXTS = ("name", "source", "licence", "attribution")


class AtlasError(ValueError):
    """An atlas that does not exist or cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """All discs of an atlas, and where they come from. ``sha256`` of its file: 64 hex digits."""

    name: str
    source: str
    licence: str
    attribution: str
    discs: Mapping[int, Mapping[Level, AtlasDisc]]  # dimension -> level -> disc
    sha256: str = ""


def load_atlas(dimension: int, atlas: str = DEFAULT_ATLAS) -> dict[Level, AtlasDisc]:
    """The discs of an atlas: ``dimension`` 3 for several slices, 2 for the single mid-slice of a one-slice exam.

    Raises:
        ValueError: another dimension.
        AtlasError: as :func:`read_atlas`.
    """
    if dimension not in DIMENSIONS:
        raise ValueError(f"the atlas has 2 or 3 dimensions, not {dimension}")
    return dict(read_atlas(atlas).discs[dimension])


@cache
def read_atlas(atlas: str = DEFAULT_ATLAS) -> Atlas:
    """A shipped atlas by its name, or any by the path of its file. A process reads each one once.

    Raises:
        AtlasError: no such atlas, or a file that is none.
    """
    path = _path_of(atlas)
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise AtlasError(f"{path}: cannot be read as an atlas ({error})") from error
    if str(arrays.get("format")) != ATLAS_FORMAT:
        raise AtlasError(f"{path}: is no atlas of the format {ATLAS_FORMAT}")
    missing = [key for key in (*_TEXTS, *_array_names()) if key not in arrays]
    if missing:
        raise AtlasError(f"{path}: lacks {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}")
    discs = {d: {level: _stored_disc(arrays, level, d, path) for level in LUMBAR_LEVELS} for d in DIMENSIONS}
    name, source, licence, attribution = (str(arrays[key]) for key in _TEXTS)
    return Atlas(name, source, licence, attribution, discs, hashlib.sha256(content).hexdigest())


def shipped_atlases() -> tuple[str, ...]:
    """Names of the atlases that come with discnode, the default first."""
    return tuple(sorted((path.stem for path in ATLAS_FOLDER.glob("*.npz")), key=lambda name: (name != "healthy", name)))


def write_atlas(atlas: Atlas, path: Path) -> None:
    """Store an atlas. The same atlas gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, Any] = {"format": np.array(ATLAS_FORMAT)}
    arrays |= {key: np.array(getattr(atlas, key)) for key in _TEXTS}
    for dimension, discs in atlas.discs.items():
        for level, disc in discs.items():
            stem = f"{level.name}_{dimension}d"
            arrays[f"{stem}_regions"] = disc.regions
            arrays[f"{stem}_affine"] = disc.affine
            arrays[f"{stem}_midline_mm"] = np.float64(disc.midline_mm)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def _path_of(atlas: str) -> Path:
    """What ends in .npz is a path, anything else a name."""
    if atlas.endswith(".npz"):
        path = Path(atlas)
        if not path.is_file():
            raise AtlasError(f"{path}: there is no such atlas file")
        return path
    if atlas not in shipped_atlases():
        raise AtlasError(
            f"there is no atlas {atlas!r}; shipped: {', '.join(shipped_atlases())}, or the path of an .npz file"
        )
    return ATLAS_FOLDER / f"{atlas}.npz"


def _array_names() -> tuple[str, ...]:
    parts = ("regions", "affine", "midline_mm")
    return tuple(f"{level.name}_{d}d_{part}" for level in LUMBAR_LEVELS for d in DIMENSIONS for part in parts)


def _stored_disc(arrays: Mapping[str, npt.NDArray[Any]], level: Level, dimension: int, path: Path) -> AtlasDisc:
    """One disc out of a file, checked: whatever passes here can be registered to.

    Raises:
        AtlasError: naming the disc and the fault.
    """
    stem = f"{level.name}_{dimension}d"
    regions, affine, midline = (arrays[f"{stem}_{part}"] for part in ("regions", "affine", "midline_mm"))
    if affine.dtype.kind != "f" or midline.dtype.kind != "f":
        raise AtlasError(f"{path}: {stem}: affine and midline_mm must be floating-point numbers")
    axes = affine[:3, :3] if affine.shape == (4, 4) else np.zeros((3, 3))
    faults = {
        "regions must be uint8 (slices, rows, columns)": regions.ndim != 3 or regions.dtype != np.uint8,
        "labels must be 0 to 3": regions.size == 0 or int(regions.max()) > POSTERIOR_ANNULUS,
        "a 2-D disc has one slice, a 3-D disc several": (regions.shape[:1] == (1,)) != (dimension == 2),
        "affine must be a regular (4, 4)": not np.isfinite(affine).all() or abs(float(np.linalg.det(axes))) < 1e-6,
        "midline_mm must be one number": midline.shape != () or not np.isfinite(midline),
    }
    faults["nucleus, anterior and posterior annulus must all be there"] = set(np.unique(regions)) < {0, 1, 2, 3}
    faults[f"the grid must have {_FEWEST[0]} rows and {_FEWEST[1]} columns at least"] = any(
        n < fewest for n, fewest in zip(regions.shape[1:], _FEWEST, strict=False)
    )
    faults["the disc touches the edge of its grid"] = regions.ndim == 3 and _touches_edge(regions, dimension)
    for fault, present in faults.items():
        if present:
            raise AtlasError(f"{path}: {stem}: {fault}")
    return AtlasDisc(level, (regions > 0).astype(np.uint8), regions, affine.astype(np.float64), float(midline))


def _touches_edge(regions: LabelArray, dimension: int) -> bool:
    axes = range(3 - dimension, 3)
    return any(bool(regions.take(end, axis).any()) for axis in axes for end in (0, -1) if regions.shape[axis])


# -- what both builders share -----------------------------------------------------------------------------------------


def atlas_disc(regions: LabelArray, level: Level, dimension: int, midline_column: float) -> AtlasDisc:
    """An atlas disc out of ``regions`` on a levelled grid of :data:`SPACING_MM`: trimmed, and centred on its centroid.

    ``midline_column``: index of the column of ``regions`` (not a whole number, as a rule) where the midline lies.
    """
    margin = (0, *_MARGIN[1:]) if dimension == 2 else _MARGIN
    index = np.argwhere(regions)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    box = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    trimmed = np.pad(regions[box], [(width, width) for width in margin])
    affine = _centred_affine(trimmed > 0)
    column = midline_column - float(low[2]) + margin[2]
    midline_mm = float(affine[1, 3] + column * affine[1, 2])
    return AtlasDisc(level, (trimmed > 0).astype(np.uint8), trimmed, affine, midline_mm)


def block_mean(fine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of the :data:`SUB_SAMPLES` of each voxel."""
    a, b, c = SUB_SAMPLES
    slices, rows, columns = fine.shape
    mean: npt.NDArray[np.float64] = fine.reshape(slices // a, a, rows // b, b, columns // c, c).mean(axis=(1, 3, 5))
    return mean


def _centred_affine(mask: npt.NDArray[np.bool_]) -> Affine:
    """Slices along -L, rows along -S, columns along +P, the origin at the disc's centroid."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]) * SPACING_MM
    affine[:3, 3] = -affine[:3, :3] @ np.argwhere(mask).mean(axis=0)
    return affine
