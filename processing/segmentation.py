"""From a sagittal volume to named discs on the same voxels: orient, resample, ask the network, name, resample back."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.inference import OnnxModel
from models.preprocessing import normalise_slice, pad_to_grid
from processing.levels import name_discs
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import DiscConfidence, DiscMask, FloatArray, ImageVolume, LabelArray, Level
from processing.volume import is_sagittal, spacing_mm, to_canonical

_DISC = 1
_RING_PIXELS = 2


def find_discs(
    volume: ImageVolume, model: OnnxModel, *, threshold: float = 0.5, lowest_disc: Level | None = None
) -> DiscMask:
    """Discs of a sagittal volume, on its own grid.

    Args:
        volume: any flips or transposes of sagittal slices; the affine tells which.
        model: the open network.
        threshold: disc probability from which a voxel belongs to a disc.
        lowest_disc: a person's word on which disc is the lowest in view; default: L5S1, if the sacrum is seen below it.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, not sagittal; SEGMENTATION_UNCERTAIN, fewer than three discs;
            LEVELS_AMBIGUOUS, discs that cannot be named with confidence.
    """
    if not is_sagittal(volume.affine):
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT, "the images are not sagittal; discs are sought on sagittal images only"
        )
    canonical, affine, undo = to_canonical(volume.array, volume.affine)
    slice_mm, row_mm, column_mm = spacing_mm(affine)
    probability = tissue_probability(canonical, (row_mm, column_mm), model)
    grid_mm = model.record.spacing_mm
    territory = name_discs(probability, (slice_mm, grid_mm, grid_mm), lowest_disc=lowest_disc)
    factors = np.array([row_mm, column_mm]) / grid_mm
    disc, tissue = _back_to_native(probability, factors, canonical.shape)
    levels = _sample_nearest(territory, factors, canonical.shape)
    levels[disc <= threshold] = 0
    levels[levels == Level.T12L1] = 0  # it helped to name the others; the paper measures L5S1 to L1L2
    confidence = tuple(
        _confidence(Level(level), probability, territory, threshold, levels) for level in np.unique(levels) if level
    )
    return DiscMask(
        levels=np.ascontiguousarray(undo(levels)),
        probability=np.ascontiguousarray(undo(disc)),
        tissue=np.ascontiguousarray(undo(tissue)),
        affine=volume.affine,
        confidence=confidence,
        model_name=model.record.name,
        model_sha256=model.record.sha256,
    )


def tissue_probability(
    canonical: npt.NDArray[np.floating], pixel_mm: tuple[float, float], model: OnnxModel
) -> FloatArray:
    """Softmax of the network (classes, slices, rows, columns) at the network's pixel size; input in canonical order."""
    factors = np.array(pixel_mm) / model.record.spacing_mm
    shape = tuple(int(n) for n in np.maximum(16, np.round(np.array(canonical.shape[1:]) * factors)))
    planes = np.stack([normalise_slice(_resample_plane(plane, factors, shape)) for plane in canonical])
    padded, (row, column) = pad_to_grid(planes)
    logits = model.predict(padded)[:, :, row : row + shape[0], column : column + shape[1]]
    softmax: FloatArray = np.empty((logits.shape[1], len(logits), *shape), np.float32)
    for k, one in enumerate(logits):  # slice by slice: an isotropic stack of 200 slices has gigabytes of classes
        exponential = np.exp(one - one.max(axis=0))
        softmax[:, k] = exponential / exponential.sum(axis=0)
    return softmax


def _resample_plane(
    plane: npt.NDArray[np.floating], factors: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> FloatArray:
    """A plane (rows, columns) at ``factors`` times its resolution, outer edges kept in place; linear, no overshoot.

    Where pixels get larger the plane is blurred first, so that no detail is folded into a false one.
    """
    blur = 0.5 * np.sqrt(np.maximum(factors**-2 - 1.0, 0.0))
    smooth = ndimage.gaussian_filter(plane.astype(np.float32), blur) if blur.any() else plane.astype(np.float32)
    step = 1.0 / factors
    moved: FloatArray = ndimage.affine_transform(
        smooth, step, offset=0.5 * step - 0.5, output_shape=shape, order=1, mode="nearest"
    )
    return moved


def _back_to_native(
    probability: FloatArray, factors: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[FloatArray, LabelArray]:
    """Disc probability and most likely tissue on the canonical grid ``shape`` (slices, rows, columns)."""
    disc, tissue = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    for k in range(shape[0]):
        planes = np.stack([_resample_plane(plane, 1.0 / factors, shape[1:]) for plane in probability[:, k]])
        disc[k] = planes[_DISC]
        tissue[k] = planes.argmax(axis=0)
    return disc, tissue


def _sample_nearest(labels: LabelArray, factors: npt.NDArray[np.float64], shape: tuple[int, ...]) -> LabelArray:
    """Labels (slices, rows, columns) of the network's grid at the nearest voxels of the grid ``shape``."""
    rows, columns = (
        np.clip(np.round((np.arange(n) + 0.5) * factor - 0.5).astype(int), 0, limit - 1)
        for n, factor, limit in zip(shape[1:], factors, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns[None, :]]


def _confidence(
    level: Level, probability: FloatArray, territory: LabelArray, threshold: float, levels: LabelArray
) -> DiscConfidence:
    """How sure the network is of one disc; ``levels`` on the native grid, the rest on the network's."""
    mask = (territory == level) & (probability[_DISC] > threshold)
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[[0, 2]] = False
    # The disc and 2 pixels around it: on noisy phantoms this follows the Dice better than the surrounding band alone.
    near = ndimage.binary_dilation(mask, in_plane, _RING_PIXELS)
    inside = probability[:, near]
    entropy = -(inside * np.log(np.maximum(inside, 1e-12))).sum(axis=0) / np.log(len(probability))
    own = levels == level
    return DiscConfidence(
        level=level,
        mean_probability=float(probability[_DISC][mask].mean()) if mask.any() else 0.0,
        ring_entropy=float(entropy.mean()) if near.any() else 1.0,
        touches_border=_touches_border(own),
        n_voxels=int(own.sum()),
    )


def _touches_border(own: npt.NDArray[np.bool_]) -> bool:
    """Whether a mask (slices, rows, columns) reaches the outermost rows or columns of its slices."""
    return bool(own[:, [0, -1]].any() or own[:, :, [0, -1]].any())
