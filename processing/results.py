"""The frozen records that flow through discnode, named with their units.

Arrays of one exam share one native grid: ``(slices, rows, columns)``. Slices ascend along the image normal
(row direction x column direction of ImageOrientationPatient), and ``affine`` maps ``(slice, row, column)`` indices to
LPS millimetres (PS3.3 C.7.6.2.1.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.refusal import Reason

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]


class Level(IntEnum):
    """Lumbar discs, counted from below; the value is the voxel label in masks and truths."""

    L5S1 = 1
    L4L5 = 2
    L3L4 = 3
    L2L3 = 4
    L1L2 = 5
    T12L1 = 6


#: The five levels that are measured (paper, Table 2).
LUMBAR_LEVELS = (Level.L5S1, Level.L4L5, Level.L3L4, Level.L2L3, Level.L1L2)


class Quantity(StrEnum):
    """What is measured, always in ms."""

    T1RHO = "T1rho"
    T2 = "T2"


class Region(StrEnum):
    """Part of a disc. The nucleus is the central part; the annulus is split at the atlas midline."""

    WHOLE_DISC = "whole_disc"
    NUCLEUS = "nucleus"
    ANTERIOR_ANNULUS = "anterior_annulus"
    POSTERIOR_ANNULUS = "posterior_annulus"


@dataclass(frozen=True, slots=True, eq=False)
class ImageVolume:
    """One sagittal volume: ``array`` (slices, rows, columns) float32, arbitrary signal units; ``affine`` LPS mm."""

    array: FloatArray
    affine: Affine


@dataclass(frozen=True, slots=True, eq=False)
class EchoStack:
    """The images of one decay: ``signal`` (echoes, slices, rows, columns) float32, ``times_ms`` ascending."""

    role: Quantity
    signal: FloatArray
    times_ms: tuple[float, ...]
    affine: Affine

    @property
    def first_echo(self) -> ImageVolume:
        """The image at the shortest time, which the network segments (paper, Segmentation)."""
        return ImageVolume(self.signal[0], self.affine)


@dataclass(frozen=True, slots=True)
class EchoMotion:
    """How far one image lies from the first of its decay: a rigid motion in the plane of the slices.

    Tissue at a place p of the first image, in mm from ``centre`` (row, column of the grid), lies at
    ``turn(p, rotation_deg) + (rows_mm, columns_mm)`` in this one; a positive rotation turns columns towards rows. The
    numbers are NaN where the images cannot be compared.
    """

    role: Quantity
    time_ms: float
    centre: tuple[float, float]
    rows_mm: float
    columns_mm: float
    rotation_deg: float
    displacement_mm: float  # the largest of any disc voxel
    corrected: bool = False  # the image was brought back onto the first before anything was measured


@dataclass(frozen=True, slots=True)
class DiscConfidence:
    """How sure the network is of one disc."""

    level: Level
    mean_probability: float
    ring_entropy: float  # mean softmax entropy (0..1) over the disc and 2 px around it
    touches_border: bool
    n_voxels: int
    # What the members of an ensemble agree on, on the native grid; None for a single network.
    member_dice: float | None = None  # mean over all pairs of members
    member_volume_sd_mm3: float | None = None  # SD (n - 1) over the members
    n_members: int = 1
    n_members_with_disc: int = 1  # members that see at least one voxel of it


@dataclass(frozen=True, slots=True, eq=False)
class DiscMask:
    """Named discs on the native grid.

    ``levels`` (slices, rows, columns) uint8 with :class:`Level` values, 0 elsewhere; ``probability`` of disc, same
    shape, float32 in 0..1; ``tissue`` same shape, uint8 class of the network (background, disc, body, sacrum, canal).
    ``member_levels`` (members, slices, rows, columns) uint8, what each member of an ensemble takes for the named discs;
    None for a single network.
    """

    levels: LabelArray
    probability: FloatArray
    tissue: LabelArray
    affine: Affine
    confidence: tuple[DiscConfidence, ...]
    model_name: str
    model_sha256: str
    reasons: tuple[Reason, ...] = ()  # doubts that ask for review, e.g. LEVELS_AMBIGUOUS
    member_levels: LabelArray | None = None

    @property
    def found(self) -> tuple[Level, ...]:
        """The levels that have at least one voxel, from below."""
        present = set(np.unique(self.levels).tolist())
        return tuple(level for level in Level if level.value in present)


@dataclass(frozen=True, slots=True)
class MaskOrigin:
    """Where discs come from that a person has drawn or changed.

    ``editor``: who, as the tool wrote it; it may be a person's name and never stands in a log. ``tool``: maker, name
    and version of the program. ``sop_instance_uid``: of the Segmentation; empty for a volume file. ``sha256``: of the
    file.
    """

    sha256: str
    sop_instance_uid: str = ""
    editor: str = ""
    tool: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class GivenMask:
    """Discs of a person: ``levels`` (slices, rows, columns) uint8 on the exam's grid, values of :class:`Level`."""

    levels: LabelArray
    origin: MaskOrigin


@dataclass(frozen=True, slots=True)
class Correction:
    """That the discs of a result are a person's, and how they compare with those that the networks found.

    ``automatic_dice``: of each disc with the automatic one of its name, 0 where there was none; empty where the
    networks found no discs that could be named, for the reason in ``automatic_refusal``. ``removed``: discs that the
    networks found and the person left out.
    """

    origin: MaskOrigin
    automatic_dice: Mapping[Level, float]
    removed: tuple[Level, ...] = ()
    automatic_refusal: Reason | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AtlasDisc:
    """One level of the atlas: ``mask`` and ``regions`` (slices, rows, columns) on a small grid of its own.

    ``regions`` uint8: 1 nucleus, 2 anterior annulus, 3 posterior annulus, 0 outside. ``affine``: LPS-oriented mm,
    origin at the disc's centroid, slices along -L (as a native sagittal grid), rows along -S, columns along +P.
    ``midline_mm``: the midline crosses the disc here, mm towards posterior; it halves the disc's depth.
    """

    level: Level
    mask: LabelArray
    regions: LabelArray
    affine: Affine
    midline_mm: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """One disc registered to its atlas disc (paper, Registration).

    ``jacobian`` (atlas slices, rows, columns): det J of the whole transform (affine then B-spline), atlas -> patient.
    ``transforms``: elastix parameter maps, in the order they are applied, plain strings so that they can be stored.
    """

    level: Level
    centroid_shift_mm: tuple[float, float, float]
    transforms: tuple[Mapping[str, tuple[str, ...]], ...]
    jacobian: FloatArray
    dice: float
    dice_after_centroid: float
    sd_jacobian: float
    min_jacobian: float
    n_folded: int
    preset: str
    seed: int
    cpu_s: float
    # det J of the B-spline alone (J / det A), and of the inverse over the patient's disc (NaN where it has none)
    sd_jacobian_bspline: float = float("nan")
    min_jacobian_bspline: float = float("nan")
    sd_jacobian_patient: float = float("nan")
    min_jacobian_patient: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class RelaxationMap:
    """A fitted map. All arrays (slices, rows, columns); outside the fitted mask everything is NaN / NOT_FITTED.

    ``time_ms``, ``standard_error_ms``, ``s0``, ``residual_rms`` float32, NaN where ``status`` is not FITTED.
    """

    quantity: Quantity
    time_ms: FloatArray
    standard_error_ms: FloatArray
    s0: FloatArray
    residual_rms: FloatArray
    status: LabelArray  # values of processing.fitting.FitStatus
    affine: Affine


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredDisc:
    """A disc in atlas space: its alignment and the maps fitted there from deformed echoes."""

    alignment: Alignment
    atlas: AtlasDisc
    maps: Mapping[Quantity, RelaxationMap]


@dataclass(frozen=True, slots=True)
class DiscMeasurement:
    """One number set: a level, a region and a quantity. Times in ms, volume in mm3 in the patient's space.

    ``member_sd_ms``: of a whole disc, the SD (n - 1) over the members of an ensemble of the mean in each member's own
    mask: how much of the mean depends on where the disc is taken to end. ``n_members``: members that have such a mean.
    ``member_sd_ms`` is None where fewer than two have; both are None in other regions and for a single network.
    """

    level: Level
    region: Region
    quantity: Quantity
    mean_ms: float
    sd_ms: float
    median_ms: float
    n: int
    n_excluded: int
    excluded: Mapping[str, int] = field(default_factory=dict)  # FitStatus name -> voxels
    member_sd_ms: float | None = None
    n_members: int | None = None


class Verdict(StrEnum):
    """What became of an exam; ``status`` of ``result.json``."""

    OK = "ok"
    NEEDS_REVIEW = "needs_review"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, eq=False)
class ExamResult:
    """Everything measured on one exam, before it is written anywhere."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    background: ImageVolume  # what was segmented; the QC montage is drawn on it
    mask: DiscMask | None
    maps: Mapping[Quantity, RelaxationMap]  # native space; empty for an exam without echoes
    registered: tuple[RegisteredDisc, ...]
    measurements: tuple[DiscMeasurement, ...]
    volumes_mm3: Mapping[Level, float]
    times_ms: Mapping[Quantity, tuple[float, ...]]
    timings_s: Mapping[str, float]
    versions: Mapping[str, str]  # software, weights, settings digest, card, atlas, provider
    produced_at: datetime  # aware UTC; the same for every retry of a job, so that objects come out identical
    provenance: Mapping[str, Any] = field(default_factory=dict)
    motion: tuple[EchoMotion, ...] = ()  # of each image but the first of the exam, T1rho then T2
    correction: Correction | None = None  # of discs that a person has drawn or changed
