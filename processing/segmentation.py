"""From a sagittal volume to named discs on the same voxels: orient, resample, ask the network, name, resample back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import softmax

from models.inference import HalfArray, OnnxModel
from models.preprocessing import DISC, normalise_slice, pad_to_grid
from models.registry import ModelRecord
from processing.disc_candidates import find_candidates
from processing.levels import name_discs
from processing.members import with_agreement
from processing.plausibility import check_plausible
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine, DiscConfidence, DiscMask, FloatArray, ImageVolume, LabelArray, Level
from processing.volume import is_sagittal, spacing_mm, to_canonical

_RING_PIXELS = 2


@dataclass(frozen=True, slots=True, eq=False)
class NetworkAnswer:
    """What an ensemble says of the planes of a volume, at its own pixel size.

    ``probability`` (classes, slices, rows, columns): softmax of the members' mean logits. ``members`` (members, slices,
    rows, columns): each member's own disc probability; None for a single network.
    """

    probability: FloatArray
    members: HalfArray | None


def find_discs(
    volume: ImageVolume, model: OnnxModel, *, threshold: float | None = None, lowest_disc: Level | None = None
) -> DiscMask:
    """Discs of a sagittal volume, on its own grid.

    Args:
        volume: any flips or transposes of sagittal slices; the affine tells which.
        model: the open ensemble. The mean of its members' logits decides the mask and the names.
        threshold: disc probability from which a voxel belongs to a disc; default: as calibrated for the model.
        lowest_disc: a person's word on which disc is the lowest in view; default: L5S1, if the sacrum is seen below it.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, not sagittal; SEGMENTATION_UNCERTAIN, no upright lumbar spine is seen;
            LEVELS_AMBIGUOUS, discs that cannot be named with confidence.
    """
    if not is_sagittal(volume.affine):
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT, "the images are not sagittal; discs are sought on sagittal images only"
        )
    if threshold is None:
        threshold = model.record.threshold
    canonical, affine, undo = to_canonical(volume.array, volume.affine)
    slice_mm, row_mm, column_mm = spacing_mm(affine)
    answer = ask_network(canonical, (row_mm, column_mm), model)
    grid_mm = model.record.spacing_mm
    grid = (slice_mm, grid_mm, grid_mm)
    candidates = find_candidates(answer.probability, grid)
    check_plausible(answer.probability, grid, candidates=candidates)
    named = name_discs(answer.probability, grid, lowest_disc=lowest_disc, candidates=candidates)
    found = _mask_of(answer, named.territory, affine, canonical.shape, threshold, model.record)
    return DiscMask(
        levels=np.ascontiguousarray(undo(found.levels)),
        probability=np.ascontiguousarray(undo(found.probability)),
        tissue=np.ascontiguousarray(undo(found.tissue)),
        affine=volume.affine,
        confidence=found.confidence,
        model_name=found.model_name,
        model_sha256=found.model_sha256,
        reasons=named.doubts,
        member_levels=None if found.member_levels is None else np.stack([undo(one) for one in found.member_levels]),
    )


def tissue_probability(
    canonical: npt.NDArray[np.floating], pixel_mm: tuple[float, float], model: OnnxModel
) -> FloatArray:
    """Softmax of the network (classes, slices, rows, columns) at the network's pixel size; input in canonical order."""
    return ask_network(canonical, pixel_mm, model).probability


def ask_network(canonical: npt.NDArray[np.floating], pixel_mm: tuple[float, float], model: OnnxModel) -> NetworkAnswer:
    """Resample, normalise and pad the planes of ``canonical`` (slices, rows, columns), ask, and cut the padding off."""
    factors = np.array(pixel_mm) / model.record.spacing_mm
    shape = tuple(int(n) for n in np.maximum(16, np.round(np.array(canonical.shape[1:]) * factors)))
    planes = np.stack([normalise_slice(_resample_plane(plane, factors, shape)) for plane in canonical])
    padded, (row, column) = pad_to_grid(planes)
    picture = (..., slice(row, row + shape[0]), slice(column, column + shape[1]))
    if model.n_members == 1:
        return NetworkAnswer(_softmax(model.predict(padded)[picture]), None)
    logits, members = model.predict_members(padded)
    return NetworkAnswer(_softmax(logits[picture]), members[picture])


def _softmax(logits: FloatArray) -> FloatArray:
    """(slices, classes, rows, columns) logits to (classes, slices, rows, columns) probabilities."""
    slices, classes, *shape = logits.shape
    probability: FloatArray = np.empty((classes, slices, *shape), np.float32)
    for k, one in enumerate(logits):  # slice by slice: an isotropic stack of 200 slices has gigabytes of classes
        probability[:, k] = softmax(one, axis=0)
    return probability


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
        disc[k] = planes[DISC]
        tissue[k] = planes.argmax(axis=0)
    return disc, tissue


def _sample_nearest(labels: LabelArray, factors: npt.NDArray[np.float64], shape: tuple[int, ...]) -> LabelArray:
    """Labels (slices, rows, columns) of the network's grid at the nearest voxels of the grid ``shape``."""
    rows, columns = (
        np.clip(np.round((np.arange(n) + 0.5) * factor - 0.5).astype(int), 0, limit - 1)
        for n, factor, limit in zip(shape[1:], factors, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns[None, :]]


def _mask_of(
    answer: NetworkAnswer,
    territory: LabelArray,
    affine: Affine,
    shape: tuple[int, ...],
    threshold: float,
    record: ModelRecord,
) -> DiscMask:
    """The discs on the canonical grid of ``affine`` and ``shape`` (slices, rows, columns)."""
    # T12L1 helped to name the others; the paper measures L5S1 to L1L2.
    territory = np.where(territory == Level.T12L1, np.uint8(0), territory)
    pixel_mm = np.array(spacing_mm(affine))
    factors = pixel_mm[1:] / record.spacing_mm
    disc, tissue = _back_to_native(answer.probability, factors, shape)
    native_territory = _sample_nearest(territory, factors, shape)
    levels = _in_one_piece(np.where(disc > threshold, native_territory, np.uint8(0)))
    found = [Level(level) for level in np.unique(levels) if level]
    confidence = [_confidence(level, answer.probability, territory, threshold, levels) for level in found]
    member_levels = None
    if answer.members is not None:
        member_levels = _members_to_native(answer.members, native_territory, factors, threshold)
        confidence = [with_agreement(one, member_levels, float(pixel_mm.prod())) for one in confidence]
    return DiscMask(
        levels=levels,
        probability=disc,
        tissue=tissue,
        affine=affine,
        confidence=tuple(confidence),
        model_name=record.name,
        model_sha256=record.sha256,
        member_levels=member_levels,
    )


def _members_to_native(
    members: HalfArray, territory: LabelArray, factors: npt.NDArray[np.float64], threshold: float
) -> LabelArray:
    """Each member's own mask of the named discs, (members, slices, rows, columns); ``territory`` on the native grid."""
    levels = np.zeros((len(members), *territory.shape), np.uint8)
    for k in np.flatnonzero(territory.any(axis=(1, 2))):
        for member, probability in enumerate(members[:, k]):
            disc = _resample_plane(probability, 1.0 / factors, territory.shape[1:])
            levels[member, k] = np.where(disc > threshold, territory[k], 0)
    return np.stack([_in_one_piece(one) for one in levels])


def _in_one_piece(levels: LabelArray) -> LabelArray:
    """The largest connected part of each level; vessels and bowel beside a disc make islands whose times are not its.

    Voxels (slices, rows, columns) that touch at a corner are connected: slices are thick.
    """
    kept = np.zeros_like(levels)
    for level, box in enumerate(ndimage.find_objects(levels), start=1):
        if box is not None:
            parts, count = ndimage.label(levels[box] == level, structure=np.ones((3, 3, 3)))
            largest = 1 + int(np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))
            kept[box][parts == largest] = level
    return kept


def _confidence(
    level: Level, probability: FloatArray, territory: LabelArray, threshold: float, levels: LabelArray
) -> DiscConfidence:
    """How sure the network is of one disc; ``levels`` on the native grid, the rest on the network's."""
    own_territory = np.where((territory == level) & (probability[DISC] > threshold), level.value, 0)
    mask = _in_one_piece(own_territory.astype(np.uint8)) > 0
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[[0, 2]] = False
    # The disc and 2 pixels around it: on noisy phantoms this follows the Dice better than the surrounding band alone.
    near = ndimage.binary_dilation(mask, in_plane, _RING_PIXELS)
    inside = probability[:, near]
    entropy = -(inside * np.log(np.maximum(inside, 1e-12))).sum(axis=0) / np.log(len(probability))
    own = levels == level
    return DiscConfidence(
        level=level,
        mean_probability=float(probability[DISC][mask].mean()) if mask.any() else 0.0,
        ring_entropy=float(entropy.mean()) if near.any() else 1.0,
        touches_border=_touches_border(own),
        n_voxels=int(own.sum()),
    )


def _touches_border(own: npt.NDArray[np.bool_]) -> bool:
    """Whether a mask (slices, rows, columns) reaches the outermost rows or columns of its slices."""
    return bool(own[:, [0, -1]].any() or own[:, :, [0, -1]].any())
