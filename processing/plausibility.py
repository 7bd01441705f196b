"""Does a network's answer look like an upright sagittal lumbar spine? If not, nothing is measured.

A network trained on spines finds parts of a spine in almost anything: in a turned or halved picture, in a ladder, in a
knee. Each rule asks for something that every lumbar spine shows and such pictures do not. The limits are wider than
what simulated and real spines of development showed (beside each limit: their extremes).
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.preprocessing import BODY, CANAL, DISC, SACRUM
from processing.disc_candidates import SACRUM_SHARE, Candidate, Candidates, find_candidates
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import FloatArray, LabelArray

MIN_PICTURE_MM = 125.0  # five lumbar discs and what carries them span 140 to 190 mm; half a picture shows 100 to 120
MIN_DISCS = 4  # in the whole picture, those between sacral pieces counted
MIN_BODY_MM2 = 1500.0  # in the slice that shows most; spines 2800 and more
MIN_CANAL_MM2 = 400.0  # the same; spines 1250 and more
MIN_ELONGATION = 2.8  # discs and bodies together, length over width; spines 3.4 and more
DISC_DEPTH_MM = (20.0, 55.0)  # median; spines 30 to 49
DISC_HEIGHT_MM = (3.0, 16.0)  # median; spines 5.5 to 11.4
UPRIGHT_DEG = (-16.0, 24.0)  # with sacrum below the lowest disc, see :func:`posture_deg`; spines -14 to 21
UPRIGHT_ABOVE_SACRUM_DEG = (-24.0, 16.0)  # where L5S1 is out of view; spines -18 to 8
MIN_CANAL_BEHIND = 0.9  # share of the canal behind the discs' curve; spines 1.0
CANAL_GAP_MM = (15.0, 40.0)  # median distance from the discs' centres to the canal's; spines 23 to 33
MIN_CANAL_LENGTH = 0.45  # of the length of the row of discs
MAX_CUT = 0.12  # share of the rows with bone, disc or canal that reach the left or right edge of the picture; spines 0
MAX_SACRUM_ABOVE = 0.1  # share of the sacrum above the middle disc; spines 0
MAX_KYPHOSIS_DEG = 15.0  # by how much the upper discs may lean further back than the lower ones; see posture
MAX_ENTROPY = 0.30  # mean over the recognised tissue and 2 pixels around it; spines up to 0.24
_MARGIN_PIXELS = 2


def check_plausible(
    probability: FloatArray, spacing_mm: tuple[float, float, float], *, candidates: Candidates | None = None
) -> None:
    """Pass if this may be an upright sagittal lumbar spine.

    Args:
        probability: softmax of the network, (classes, slices, rows, columns), rows to inferior, columns to posterior.
        spacing_mm: between slices, rows, columns.
        candidates: of this answer, if they are known already.

    Raises:
        UnsuitableInput: SEGMENTATION_UNCERTAIN, with the first thing that is not as in a spine.
    """
    found = candidates or find_candidates(probability, spacing_mm)
    tissue = probability.argmax(axis=0).astype(np.uint8)
    fault = (
        _not_enough_seen(tissue, found, spacing_mm)
        or _wrong_shape(found, tissue, spacing_mm)
        or _wrong_posture(found)
        or _wrong_neighbours(found, tissue, spacing_mm)
        or _unsure(probability, tissue)
    )
    if fault:
        raise UnsuitableInput(ReasonCode.SEGMENTATION_UNCERTAIN, fault)


def posture_deg(discs: tuple[Candidate, ...]) -> float:
    """How far a row of discs leans, in degrees: 0 upright, positive where its top leans forward.

    The mean of two angles: of the line from the lowest to the highest disc (of the lowest five) against the rows'
    direction, and of the median disc's long axis against the columns'. Turning the picture changes both alike.
    """
    lower = discs[:5]
    way = lower[0].centre_mm - lower[-1].centre_mm  # downwards
    line = np.degrees(np.arctan2(way[1], way[0]))
    return float((line + np.median([disc.tilt_deg for disc in lower])) / 2)


def mean_entropy(probability: FloatArray, tissue: LabelArray) -> float:
    """Mean softmax entropy (0..1) over the recognised tissue and 2 pixels around it; 1 where there is none."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = True
    near = ndimage.binary_dilation(tissue > 0, in_plane, _MARGIN_PIXELS)
    if not near.any():
        return 1.0
    inside = probability[:, near]
    entropy = -(inside * np.log(np.maximum(inside, 1e-12))).sum(axis=0) / np.log(len(probability))
    return float(entropy.mean())


def _not_enough_seen(tissue: LabelArray, found: Candidates, spacing_mm: tuple[float, float, float]) -> str | None:
    height_mm = tissue.shape[1] * spacing_mm[1]
    if height_mm < MIN_PICTURE_MM:
        return f"the picture is {height_mm:.0f} mm high; {MIN_PICTURE_MM:.0f} mm are needed to see a lumbar spine"
    count = len(found.discs) + len(found.sacral)
    if count < MIN_DISCS or len(found.discs) < MIN_DISCS - 1:
        return f"{count} discs recognised; at least {MIN_DISCS} are expected"
    for what, channel, least in (("vertebral body", BODY, MIN_BODY_MM2), ("spinal canal", CANAL, MIN_CANAL_MM2)):
        area_mm2 = _largest_area_mm2(tissue == channel, spacing_mm)
        if area_mm2 < least:
            return f"{area_mm2:.0f} mm2 of {what} recognised; at least {least:.0f} mm2 are expected"
    return None


def _wrong_shape(found: Candidates, tissue: LabelArray, spacing_mm: tuple[float, float, float]) -> str | None:
    depth = float(np.median([disc.depth_mm for disc in found.discs]))
    if not DISC_DEPTH_MM[0] <= depth <= DISC_DEPTH_MM[1]:
        return f"the discs are {depth:.0f} mm deep; {DISC_DEPTH_MM[0]:.0f} to {DISC_DEPTH_MM[1]:.0f} mm are plausible"
    height = float(np.median([disc.height_mm for disc in found.discs]))
    if not DISC_HEIGHT_MM[0] <= height <= DISC_HEIGHT_MM[1]:
        return f"the discs are {height:.0f} mm high; {DISC_HEIGHT_MM[0]:.0f} to {DISC_HEIGHT_MM[1]:.0f} are plausible"
    edges = tissue[:, :, [0, -1]].max(axis=(0, 2)) > 0
    cut = float((edges & (tissue > 0).any(axis=(0, 2))).sum() / max(1, (tissue > 0).any(axis=(0, 2)).sum()))
    if cut > MAX_CUT:
        return f"the spine reaches the front or back edge of the picture in {cut:.0%} of its rows"
    column = ((tissue == DISC) | (tissue == BODY)).any(axis=0)
    spread = np.linalg.eigvalsh(np.cov((np.argwhere(column) * np.array(spacing_mm[1:])).T))
    elongation = float(np.sqrt(spread[1] / max(spread[0], 1e-6)))
    if elongation < MIN_ELONGATION:
        return f"discs and vertebral bodies form no column: {elongation:.1f} times as long as wide"
    return None


def _wrong_posture(found: Candidates) -> str | None:
    lean = posture_deg(found.discs)
    on_sacrum = found.discs[0].sacrum_below > SACRUM_SHARE
    least, most = UPRIGHT_DEG if on_sacrum else UPRIGHT_ABOVE_SACRUM_DEG
    if not least <= lean <= most:
        return f"the spine leans {lean:+.0f} degrees; {least:+.0f} to {most:+.0f} are plausible"
    tilts = [disc.tilt_deg for disc in found.discs[:5]]
    kyphosis = float(np.mean(tilts[-2:]) - np.mean(tilts[:2]))
    if kyphosis > MAX_KYPHOSIS_DEG:
        return f"the spine is bent forwards by {kyphosis:.0f} degrees: front and back may be exchanged"
    return None


def _wrong_neighbours(found: Candidates, tissue: LabelArray, spacing_mm: tuple[float, float, float]) -> str | None:
    """The canal must run behind the discs, and the sacrum lie below them."""
    centres = np.array([disc.centre_mm for disc in found.discs])[::-1]  # from above: rows ascend
    canal = _points_mm(tissue == CANAL, spacing_mm)
    behind = canal[:, 1] - np.interp(canal[:, 0], centres[:, 0], centres[:, 1])
    share = float((behind > 0).mean())
    if share < MIN_CANAL_BEHIND:
        return f"only {share:.0%} of the spinal canal lies behind the discs"
    gap = float(np.median(behind))
    if not CANAL_GAP_MM[0] <= gap <= CANAL_GAP_MM[1]:
        plausible = f"{CANAL_GAP_MM[0]:.0f} to {CANAL_GAP_MM[1]:.0f} are plausible"
        return f"the spinal canal lies {gap:.0f} mm behind the discs' centres; {plausible}"
    length = float(np.ptp(np.percentile(canal[:, 0], (2, 98))) / np.ptp(centres[:, 0]))
    if length < MIN_CANAL_LENGTH:
        return f"the spinal canal runs along {length:.0%} of the discs only"
    sacrum = _points_mm(tissue == SACRUM, spacing_mm)
    middle = float(np.median(centres[:, 0]))
    above = float((sacrum[:, 0] < middle).mean()) if len(sacrum) else 0.0
    if above > MAX_SACRUM_ABOVE and _largest_area_mm2(tissue == SACRUM, spacing_mm) > 100.0:
        return f"{above:.0%} of the sacrum lies above the middle disc: the picture may be upside down"
    return None


def _unsure(probability: FloatArray, tissue: LabelArray) -> str | None:
    entropy = mean_entropy(probability, tissue)
    if not entropy <= MAX_ENTROPY:
        return f"mean entropy of the recognised tissue {entropy:.2f}, limit {MAX_ENTROPY:.2f}"
    return None


def _largest_area_mm2(mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """Area in the slice that shows most."""
    return float(mask.sum(axis=(1, 2)).max()) * spacing_mm[1] * spacing_mm[2]


def _points_mm(mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """(row, column) mm of the voxels of a mask (slices, rows, columns)."""
    points: npt.NDArray[np.float64] = np.argwhere(mask)[:, 1:] * np.array(spacing_mm[1:])
    return points
