"""Simulated exams with known truth: anatomy, tissue and signal put together.

:func:`simulate_exam` makes the images of one visit, with the truth on their grid. Everything follows from the seed. The
parts (anatomy, tissue, voxels, signal, training slices) are modules of their own; their names are found here too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from processing.phantom_anatomy import LumbarAnatomy, draw_anatomy, mean_anatomy
from processing.phantom_local_change import LocalChange
from processing.phantom_protocols import ACQUIRED, Protocol, preparations_of
from processing.phantom_signal import (
    T1RHO_MS,
    T2_MS,
    acquire,
    coil_field,
    decay,
    fse_contrast,
    intensity,
    mapss_contrast,
    mottle,
)
from processing.phantom_tissue import CLASS_OF_TISSUE, SamplingPlane, Tissue, TissueSlice, rasterise, rasterise_volume
from processing.phantom_training import draw_training_slice
from processing.phantom_variants import USUAL, Variant
from processing.phantom_visits import UNCHANGED, VisitChange, at_visit
from processing.phantom_voxels import SUBSAMPLES, Votes, VoxelTruth
from processing.results import Affine, FloatArray, ImageVolume, LabelArray, Quantity

__all__ = [
    "CLASS_OF_TISSUE",
    "LocalChange",
    "LumbarAnatomy",
    "PhantomExam",
    "Protocol",
    "SamplingPlane",
    "Tissue",
    "TissueSlice",
    "Variant",
    "VisitChange",
    "anatomy_of",
    "draw_anatomy",
    "draw_training_slice",
    "mean_anatomy",
    "rasterise",
    "rasterise_volume",
    "simulate_exam",
]

_T1RHO_FSE_ECHO_MS = 12.0
_ANATOMY_ECHO_MS = 95.0
_ANATOMY_MATRIX = 512
_ANATOMY_ACQUIRED = (320, 224)
_SIGNAL_SCALE = 2000.0  # scanner units of a signal of 1


@dataclass(frozen=True, slots=True, eq=False)
class PhantomExam:
    """The images of one visit and the truth behind them. Grid arrays are (slices, rows, columns).

    ``signal`` (images, slices, rows, columns) float32 belongs to ``times_ms`` and ``quantities`` (None: time 0, shared
    by T1rho and T2). ``labels`` uint8 1 = L5S1 .. 5 = L1L2; ``upper_labels`` the discs above (6 = T12L1, ...);
    ``classes`` uint8 0..4 as the network's. ``t1rho_ms``, ``t2_ms``: volume-weighted mean over the disc tissue of each
    labelled voxel, NaN elsewhere; ``nucleus``: its share of nucleus, 0 (annulus) .. 1. ``affine`` index -> LPS mm.
    ``anatomy_image``: T2 FSE on the same slices.
    """

    seed: int
    subject: str
    visit: int
    protocol: Protocol
    snr: float
    noise_sd: float
    slice_thickness_mm: float
    times_ms: tuple[float, ...]
    quantities: tuple[Quantity | None, ...]
    signal: FloatArray
    affine: Affine
    anatomy_image: ImageVolume
    labels: LabelArray
    upper_labels: LabelArray
    classes: LabelArray
    t1rho_ms: FloatArray
    t2_ms: FloatArray
    nucleus: FloatArray
    grades: tuple[int, ...]  # Pfirrmann, L5S1 .. L1L2
    anatomy: LumbarAnatomy | None  # None: of what has no spine (processing.phantom_vials)

    def echoes(self, quantity: Quantity) -> tuple[tuple[float, ...], FloatArray]:
        """Times in ms, ascending, and signal (echoes, slices, rows, columns) of one decay."""
        chosen = [index for index, what in enumerate(self.quantities) if what in (None, quantity)]
        return tuple(self.times_ms[index] for index in chosen), self.signal[chosen]


def simulate_exam(
    seed: int,
    *,
    n_slices: int = 12,
    slice_spacing_mm: float = 4.0,
    fov_mm: float = 200.0,
    matrix: int = 256,
    anatomy_matrix: int = _ANATOMY_MATRIX,
    snr: float = 40.0,
    protocol: Protocol = "mapss",
    subject: str = "PHANTOM-001",
    visit: int = 1,
    healthy: bool = False,
    oblique_deg: float = 0.0,
    variant: Variant = USUAL,
    cut_mm: float | None = None,
    change: VisitChange = UNCHANGED,
    spin_lock_ms: Sequence[float] | None = None,
) -> PhantomExam:
    """Simulate one visit of one subject.

    Args:
        seed: names a simulated population: seed and subject give the anatomy; seed, subject and visit give position
            and noise.
        n_slices: sagittal slices, contiguous, centred on the spine.
        slice_spacing_mm: distance of slices and their thickness.
        fov_mm: field of view, square.
        matrix: rows and columns of the reconstructed image.
        anatomy_matrix: rows and columns of the T2 FSE; most of the work where nobody looks at it.
        snr: mean first-image disc signal over the standard deviation of the noise; ``inf`` for none.
        protocol: ``mapss`` (7 images a slice) or ``t1rho-fse`` (4).
        subject: name of the subject; the same anatomy on each visit.
        visit: number of the visit.
        healthy: only Pfirrmann grades 1 and 2.
        oblique_deg: the scan plane (and the subject with it) turned about the body axis.
        variant: what the spine consists of; the subject is otherwise the same.
        cut_mm: the picture ends so far above the upper edge of the L5S1 disc (below it if negative); None: it is
            centred as usual, with sacrum in view.
        change: how the visit differs from the subject as it was drawn; the place of the scan, texture and noise are
            those of the visit without it.
        spin_lock_ms: the spin-lock times after 0, in place of the protocol's own; as many as it has.

    Raises:
        ValueError: an unknown protocol, a size, SNR or table of times that makes no exam, or a change that leaves a
            time that is not positive.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r} is not simulated; there are: {', '.join(get_args(Protocol))}")
    if n_slices < 1 or min(matrix, anatomy_matrix) < 32 or slice_spacing_mm <= 0 or fov_mm <= 0 or not snr > 0:
        raise ValueError(
            "an exam needs at least one slice, a matrix of 32, and positive spacing, field of view and SNR"
        )
    anatomy = at_visit(anatomy_of(seed, subject, healthy=healthy, variant=variant), change)
    rng = _generator("visit", seed, subject, visit)
    frame = _Frame.draw(rng, anatomy, oblique_deg, fov_mm, cut_mm)
    affine = frame.affine(n_slices, slice_spacing_mm, fov_mm, matrix)
    preparations = preparations_of(protocol, spin_lock_ms)
    slices = [_measure_slice(anatomy, frame, affine, k, matrix, preparations, protocol, rng) for k in range(n_slices)]
    clean = np.stack([images for images, _ in slices], axis=1) * np.float32(_SIGNAL_SCALE * change.gain)
    truth = _stack_truth([truth for _, truth in slices])
    acquired = _scaled(ACQUIRED[protocol], matrix / 256)
    first = acquire(clean[0], acquired, noise_sd=0.0, rng=None)
    in_disc = truth.labels > 0
    noise_sd = float(first[in_disc].mean() / snr) if in_disc.any() else float(first.max() / snr)
    signal = np.stack([acquire(images, acquired, noise_sd=noise_sd, rng=rng) for images in clean])
    return PhantomExam(
        seed=seed,
        subject=subject,
        visit=visit,
        protocol=protocol,
        snr=snr,
        noise_sd=noise_sd,
        slice_thickness_mm=slice_spacing_mm,
        times_ms=tuple(time_ms for time_ms, _ in preparations),
        quantities=tuple(None if time_ms == 0 and protocol == "mapss" else what for time_ms, what in preparations),
        signal=signal,
        affine=affine,
        anatomy_image=_anatomy_image(anatomy, frame, n_slices, slice_spacing_mm, fov_mm, anatomy_matrix, snr, rng),
        labels=truth.labels,
        upper_labels=truth.upper_labels,
        classes=truth.classes,
        t1rho_ms=truth.t1rho_ms,
        t2_ms=truth.t2_ms,
        nucleus=truth.nucleus,
        grades=anatomy.grades,
        anatomy=anatomy,
    )


def anatomy_of(seed: int, subject: str, *, healthy: bool = False, variant: Variant = USUAL) -> LumbarAnatomy:
    """The spine that :func:`simulate_exam` gives a subject of a simulated population."""
    return draw_anatomy(_generator("anatomy", seed, subject), healthy=healthy, variant=variant)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """How the subject lies in the scanner and where the scan is centred: LPS = turn @ body + shift."""

    turn: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]  # of the field of view, LPS
    slice_axes: npt.NDArray[np.float64]  # columns: unit LPS directions of slices, rows, columns
    skin_mm: float
    reach_mm: float
    slant: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        anatomy: LumbarAnatomy,
        oblique_deg: float,
        fov_mm: float,
        cut_mm: float | None = None,
    ) -> "_Frame":
        """A subject placed by hand: a few degrees and millimetres off."""
        oblique = Rotation.from_euler("z", oblique_deg, degrees=True).as_matrix()
        tilt = Rotation.from_euler("xyz", np.clip(rng.standard_normal(3), -2, 2) * (1.5, 0.6, 0.8), degrees=True)
        turn = oblique @ tilt.as_matrix()
        shift = np.clip(rng.standard_normal(3), -2, 2) * (4.0, 8.0, 15.0)
        bottom, top = anatomy.lumbar_extent_mm
        above = float(np.clip(fov_mm - (top - bottom) - 28.0, 6.0, 12.0))  # the rest shows the sacrum
        x, p = anatomy.lumbar_middle_mm
        focus = np.array([x + rng.uniform(-0.8, 0.8), p + 22.0, top + above + rng.uniform(-1.5, 1.5) - fov_mm / 2])
        if cut_mm is not None:
            focus[2] = anatomy.upper_edge_mm(0) + cut_mm + fov_mm / 2
        return cls(
            turn=turn,
            shift=shift,
            centre=np.round(turn @ focus + shift, 2),
            slice_axes=oblique @ np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
            skin_mm=float(anatomy.canal_mm[len(anatomy.canal_mm) // 3][1] + anatomy.skin_mm),
            reach_mm=float(rng.uniform(95, 130)),
            slant=float(rng.uniform(-0.12, 0.12)),
        )

    def affine(self, n_slices: int, slice_spacing_mm: float, fov_mm: float, matrix: int) -> Affine:
        """The affine of a scan centred here."""
        spacing = np.array([slice_spacing_mm, fov_mm / matrix, fov_mm / matrix])
        affine = np.eye(4)
        affine[:3, :3] = self.slice_axes * spacing
        affine[:3, 3] = self.centre - affine[:3, :3] @ ((np.array([n_slices, matrix, matrix]) - 1) / 2)
        return affine

    def plane(self, affine: Affine, slice_index: float, offset: npt.NDArray[np.float64], matrix: int) -> SamplingPlane:
        """A plane of samples, one for each pixel, moved by ``offset`` (row, column) pixels, in the body frame."""
        back = self.turn.T
        corner = affine[:3, 3] + affine[:3, 0] * slice_index + affine[:3, 1:3] @ offset
        return SamplingPlane(back @ (corner - self.shift), back @ affine[:3, 1], back @ affine[:3, 2], (matrix, matrix))

    def coil(self, plane: SamplingPlane) -> FloatArray:
        """Sensitivity at the samples of a plane."""
        rows = np.arange(plane.shape[0], dtype=np.float32)[:, None]
        columns = np.arange(plane.shape[1], dtype=np.float32)[None, :]
        p, s = (
            np.float32(plane.origin_mm[axis])
            + rows * np.float32(plane.row_step_mm[axis])
            + columns * np.float32(plane.column_step_mm[axis])
            for axis in (1, 2)
        )
        return coil_field(np.float32(self.skin_mm) - p, s + np.float32(30), reach_mm=self.reach_mm, slant=self.slant)


def _measure_slice(
    anatomy: LumbarAnatomy,
    frame: _Frame,
    affine: Affine,
    slice_index: int,
    matrix: int,
    preparations: tuple[tuple[float, Quantity | None], ...],
    protocol: Protocol,
    rng: np.random.Generator,
) -> tuple[FloatArray, VoxelTruth]:
    """Noise-free images (images, rows, columns) of one slice, averaged over sub-samples, and the truth."""
    contrast = mapss_contrast() if protocol == "mapss" else fse_contrast(_T1RHO_FSE_ECHO_MS)
    grain = mottle(rng, (matrix, matrix), cell=3, strength=0.05)
    signal = np.zeros((len(preparations), matrix, matrix), np.float32)
    votes = Votes.empty((matrix, matrix))
    n = len(SUBSAMPLES)
    for index, offset in enumerate(SUBSAMPLES):
        plane = frame.plane(affine, slice_index + (index + 0.5) / n - 0.5, offset, matrix)
        tissue = rasterise(anatomy, plane)
        start = intensity(tissue, contrast) * grain
        for image, (time_ms, what) in enumerate(preparations):
            if time_ms == 0:
                signal[image] += start
            elif what is Quantity.T1RHO:
                signal[image] += start * decay(tissue, time_ms, T1RHO_MS, tissue.t1rho_ms)
            else:
                signal[image] += start * decay(tissue, time_ms, T2_MS, tissue.t2_ms)
        votes.add(tissue)
    signal *= frame.coil(frame.plane(affine, slice_index, np.zeros(2), matrix)) / n
    return signal, votes.elect()


def _stack_truth(slices: list[VoxelTruth]) -> VoxelTruth:
    return VoxelTruth(
        **{name: np.stack([getattr(one, name) for one in slices]) for name in VoxelTruth.__slots__},
    )


def _anatomy_image(
    anatomy: LumbarAnatomy,
    frame: _Frame,
    n_slices: int,
    slice_spacing_mm: float,
    fov_mm: float,
    matrix: int,
    snr: float,
    rng: np.random.Generator,
) -> ImageVolume:
    """T2-weighted FSE of the same slices, finer in plane."""
    affine = frame.affine(n_slices, slice_spacing_mm, fov_mm, matrix)
    contrast = fse_contrast(_ANATOMY_ECHO_MS)
    images = np.zeros((n_slices, matrix, matrix), np.float32)
    chosen = SUBSAMPLES[[0, 3, 4]]
    for k in range(n_slices):
        for index, offset in enumerate(chosen):
            plane = frame.plane(affine, k + (index + 0.5) / len(chosen) - 0.5, offset, matrix)
            images[k] += intensity(rasterise(anatomy, plane), contrast)
        images[k] *= frame.coil(frame.plane(affine, k, np.zeros(2), matrix)) * np.float32(_SIGNAL_SCALE / len(chosen))
        images[k] *= mottle(rng, (matrix, matrix), cell=4, strength=0.05)
    noise_sd = float(np.percentile(images, 60) / snr)
    return ImageVolume(acquire(images, _ANATOMY_ACQUIRED, noise_sd=noise_sd, rng=rng), affine)


def _scaled(acquired: tuple[int, int], factor: float) -> tuple[int, int]:
    return int(acquired[0] * factor), int(acquired[1] * factor)


def _generator(*what: object) -> np.random.Generator:
    """A generator that depends on all of ``what`` and on nothing else."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in what).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
