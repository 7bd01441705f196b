"""Simulated exams and training slices with known truth: anatomy, tissue and signal put together.

:func:`simulate_exam` makes the images of one visit, with the truth on their grid; :func:`draw_training_slice` makes one
random slice with the classes of the network. Everything follows from the seed.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from processing.phantom_anatomy import LumbarAnatomy, draw_anatomy, mean_anatomy
from processing.phantom_signal import (
    T1RHO_MS,
    T2_MS,
    Contrast,
    acquire,
    coil_field,
    decay,
    fse_contrast,
    intensity,
    mapss_contrast,
    mottle,
    random_contrast,
)
from processing.phantom_tissue import CLASS_OF_TISSUE, SamplingPlane, Tissue, TissueSlice, rasterise, rasterise_volume
from processing.results import Affine, FloatArray, ImageVolume, LabelArray, Quantity

__all__ = [
    "CLASS_OF_TISSUE",
    "LumbarAnatomy",
    "PhantomExam",
    "Protocol",
    "SamplingPlane",
    "Tissue",
    "TissueSlice",
    "draw_anatomy",
    "draw_training_slice",
    "mean_anatomy",
    "rasterise",
    "rasterise_volume",
    "simulate_exam",
]

Protocol = Literal["mapss", "t1rho-fse"]

#: What each image of a slice measures: time in ms and the decay it belongs to (None: shared by both).
_PREPARATIONS: dict[str, tuple[tuple[float, Quantity | None], ...]] = {
    "mapss": (
        (0.0, None),
        (10.0, Quantity.T1RHO),
        (12.8, Quantity.T2),
        (25.7, Quantity.T2),
        (40.0, Quantity.T1RHO),
        (51.4, Quantity.T2),
        (80.0, Quantity.T1RHO),
    ),
    "t1rho-fse": tuple((time_ms, Quantity.T1RHO) for time_ms in (0.0, 40.0, 80.0, 120.0)),
}
_ACQUIRED = {"mapss": (256, 128), "t1rho-fse": (256, 192)}
_T1RHO_FSE_ECHO_MS = 12.0
_ANATOMY_ECHO_MS = 95.0
_ANATOMY_MATRIX = 512
_ANATOMY_ACQUIRED = (320, 224)
_SIGNAL_SCALE = 2000.0  # scanner units of a signal of 1

# Sub-samples of a voxel: offsets in (row, column), in voxels, one pair for each sub-slice through the thickness. Over
# the eight sub-slices they fill the plane too, which costs half of sampling every sub-slice twice in both directions.
_OFFSETS = np.array([[-3, -1], [1, 3], [-1, -3], [3, 1], [-1, 1], [3, -3], [-3, 3], [1, -1]], dtype=np.float64) / 8


@dataclass(frozen=True, slots=True, eq=False)
class PhantomExam:
    """The images of one visit and the truth behind them. Grid arrays are (slices, rows, columns).

    ``signal`` (images, slices, rows, columns) float32 belongs to ``times_ms`` and ``quantities`` (None: time 0, shared
    by T1rho and T2). ``labels`` uint8 1 = L5S1 .. 5 = L1L2; ``upper_labels`` the discs above (6 = T12L1, ...);
    ``classes`` uint8 0..4 as the network's. ``t1rho_ms``, ``t2_ms``: volume-weighted mean over the disc tissue of each
    labelled voxel, NaN elsewhere. ``affine`` index -> LPS mm. ``anatomy_image``: T2 FSE on the same slices.
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
    grades: tuple[int, ...]  # Pfirrmann, L5S1 .. L1L2
    anatomy: LumbarAnatomy

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
    snr: float = 40.0,
    protocol: Protocol = "mapss",
    subject: str = "PHANTOM-001",
    visit: int = 1,
    healthy: bool = False,
    oblique_deg: float = 0.0,
) -> PhantomExam:
    """Simulate one visit of one subject.

    Args:
        seed: names a simulated population: seed and subject give the anatomy; seed, subject and visit give position
            and noise.
        n_slices: sagittal slices, contiguous, centred on the spine.
        slice_spacing_mm: distance of slices and their thickness.
        fov_mm: field of view, square.
        matrix: rows and columns of the reconstructed image.
        snr: mean first-image disc signal over the standard deviation of the noise; ``inf`` for none.
        protocol: ``mapss`` (7 images a slice) or ``t1rho-fse`` (4).
        subject: name of the subject; the same anatomy on each visit.
        visit: number of the visit.
        healthy: only Pfirrmann grades 1 and 2.
        oblique_deg: the scan plane (and the subject with it) turned about the body axis.

    Raises:
        ValueError: an unknown protocol, or a size or SNR that makes no exam.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r} is not simulated; there are: {', '.join(get_args(Protocol))}")
    if n_slices < 1 or matrix < 32 or slice_spacing_mm <= 0 or fov_mm <= 0 or not snr > 0:
        raise ValueError(
            "an exam needs at least one slice, a matrix of 32, and positive spacing, field of view and SNR"
        )
    anatomy = draw_anatomy(_generator("anatomy", seed, subject), healthy=healthy)
    rng = _generator("visit", seed, subject, visit)
    frame = _Frame.draw(rng, anatomy, oblique_deg)
    affine = frame.affine(n_slices, slice_spacing_mm, fov_mm, matrix)
    preparations = _PREPARATIONS[protocol]
    slices = [_measure_slice(anatomy, frame, affine, k, matrix, preparations, protocol, rng) for k in range(n_slices)]
    clean = np.stack([one.signal for one in slices], axis=1) * np.float32(_SIGNAL_SCALE)
    truth = _stack_truth(slices)
    acquired = _scaled(_ACQUIRED[protocol], matrix / 256)
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
        anatomy_image=_anatomy_image(anatomy, frame, n_slices, slice_spacing_mm, fov_mm, snr, rng),
        labels=truth.labels,
        upper_labels=truth.upper_labels,
        classes=truth.classes,
        t1rho_ms=truth.t1rho_ms,
        t2_ms=truth.t2_ms,
        grades=anatomy.grades,
        anatomy=anatomy,
    )


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
    def draw(cls, rng: np.random.Generator, anatomy: LumbarAnatomy, oblique_deg: float) -> "_Frame":
        """A subject placed by hand: a few degrees and millimetres off."""
        oblique = Rotation.from_euler("z", oblique_deg, degrees=True).as_matrix()
        tilt = Rotation.from_euler("xyz", np.clip(rng.standard_normal(3), -2, 2) * (1.5, 1.0, 1.0), degrees=True)
        turn = oblique @ tilt.as_matrix()
        shift = np.clip(rng.standard_normal(3), -2, 2) * (4.0, 8.0, 15.0)
        top = anatomy.discs[4].centre_mm[2] + 6.0
        middle = np.mean([disc.centre_mm[1] for disc in anatomy.discs[:5]])
        focus = np.array([rng.uniform(-1.5, 1.5), middle + 22.0, top + 10.0 + rng.uniform(0, 3) - 100.0])
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


@dataclass(frozen=True, slots=True, eq=False)
class _Slice:
    """Noise-free images (images, rows, columns) of a slice, and its truth (rows, columns)."""

    signal: FloatArray
    labels: LabelArray
    upper_labels: LabelArray
    classes: LabelArray
    t1rho_ms: FloatArray
    t2_ms: FloatArray


def _measure_slice(
    anatomy: LumbarAnatomy,
    frame: _Frame,
    affine: Affine,
    slice_index: int,
    matrix: int,
    preparations: tuple[tuple[float, Quantity | None], ...],
    protocol: Protocol,
    rng: np.random.Generator,
) -> _Slice:
    """Average the sub-samples of every voxel: signal, majority class, mean time of the disc tissue."""
    contrast = mapss_contrast() if protocol == "mapss" else fse_contrast(_T1RHO_FSE_ECHO_MS)
    grain = mottle(rng, (matrix, matrix), cell=3, strength=0.05)
    signal = np.zeros((len(preparations), matrix, matrix), np.float32)
    votes = _Votes.empty((matrix, matrix))
    n = len(_OFFSETS)
    for index, offset in enumerate(_OFFSETS):
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
    return votes.elect(signal)


@dataclass(frozen=True, slots=True, eq=False)
class _Votes:
    """Sums over the sub-samples of each voxel; a class needs a plurality, a disc its own majority among discs."""

    of_class: npt.NDArray[np.uint8]  # (classes, rows, columns)
    of_level: npt.NDArray[np.uint8]  # (levels 0..9, rows, columns)
    t1rho_sum: FloatArray
    t2_sum: FloatArray

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "_Votes":
        """No votes yet."""
        return cls(
            np.zeros((5, *shape), np.uint8),
            np.zeros((10, *shape), np.uint8),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )

    def add(self, tissue: TissueSlice) -> None:
        """Count one plane of sub-samples."""
        classes = CLASS_OF_TISSUE[tissue.tissue]
        for value in range(5):
            self.of_class[value] += classes == value
        for level in np.flatnonzero(np.bincount(tissue.level.ravel(), minlength=10)[1:]) + 1:
            self.of_level[level] += tissue.level == level
        self.t1rho_sum[...] += tissue.t1rho_ms
        self.t2_sum[...] += tissue.t2_ms

    def elect(self, signal: FloatArray) -> _Slice:
        """The truth of each voxel."""
        classes = np.argmax(self.of_class, axis=0).astype(np.uint8)
        half = self.of_class.sum(axis=0)[0, 0] / 2
        disc = self.of_class[1] >= half
        classes[disc] = 1
        classes[(classes == 1) & ~disc] = 0
        level = np.where(disc, np.argmax(self.of_level, axis=0), 0).astype(np.uint8)
        count = np.maximum(self.of_class[1], 1)
        measured = (level >= 1) & (level <= 5)
        return _Slice(
            signal=signal,
            labels=np.where(measured, level, 0).astype(np.uint8),
            upper_labels=np.where(level > 5, level, 0).astype(np.uint8),
            classes=classes,
            t1rho_ms=np.where(measured, self.t1rho_sum / count, np.nan).astype(np.float32),
            t2_ms=np.where(measured, self.t2_sum / count, np.nan).astype(np.float32),
        )


def _stack_truth(slices: list[_Slice]) -> _Slice:
    return _Slice(
        signal=slices[0].signal,
        labels=np.stack([one.labels for one in slices]),
        upper_labels=np.stack([one.upper_labels for one in slices]),
        classes=np.stack([one.classes for one in slices]),
        t1rho_ms=np.stack([one.t1rho_ms for one in slices]),
        t2_ms=np.stack([one.t2_ms for one in slices]),
    )


def _anatomy_image(
    anatomy: LumbarAnatomy,
    frame: _Frame,
    n_slices: int,
    slice_spacing_mm: float,
    fov_mm: float,
    snr: float,
    rng: np.random.Generator,
) -> ImageVolume:
    """T2-weighted FSE of the same slices, finer in plane."""
    affine = frame.affine(n_slices, slice_spacing_mm, fov_mm, _ANATOMY_MATRIX)
    contrast = fse_contrast(_ANATOMY_ECHO_MS)
    images = np.zeros((n_slices, _ANATOMY_MATRIX, _ANATOMY_MATRIX), np.float32)
    chosen = _OFFSETS[[0, 3, 4]]
    for k in range(n_slices):
        for index, offset in enumerate(chosen):
            plane = frame.plane(affine, k + (index + 0.5) / len(chosen) - 0.5, offset, _ANATOMY_MATRIX)
            images[k] += intensity(rasterise(anatomy, plane), contrast)
        images[k] *= frame.coil(frame.plane(affine, k, np.zeros(2), _ANATOMY_MATRIX)) * np.float32(
            _SIGNAL_SCALE / len(chosen)
        )
        images[k] *= mottle(rng, (_ANATOMY_MATRIX, _ANATOMY_MATRIX), cell=4, strength=0.05)
    noise_sd = float(np.percentile(images, 60) / snr)
    return ImageVolume(acquire(images, _ANATOMY_ACQUIRED, noise_sd=noise_sd, rng=rng), affine)


def draw_training_slice(
    rng: np.random.Generator, *, size: int = 256, spacing_mm: float = 0.78125
) -> tuple[FloatArray, LabelArray]:
    """One random sagittal slice of a random subject in a random contrast, with the network's classes.

    Returns:
        image (size, size) float32, arbitrary positive units; classes (size, size) uint8: 0 background, 1 disc,
        2 vertebral body, 3 sacrum, 4 canal.
    """
    anatomy = draw_anatomy(rng, severe=0.08, vacuum=0.4)
    contrast = random_contrast(rng)
    thickness_mm = float(rng.uniform(2.0, 6.0))
    centre, turn = _training_view(rng, anatomy)
    step = spacing_mm * float(rng.uniform(0.92, 1.08))
    shape = (size, size)
    total = np.zeros(shape, np.float32)
    votes = _Votes.empty(shape)
    chosen = _OFFSETS[[0, 1, 4, 5]]
    for index, offset in enumerate(chosen):
        depth = ((index + 0.5) / len(chosen) - 0.5) * thickness_mm
        corner = np.array([-depth, 0.0, 0.0])
        rows, columns = np.array([0.0, 0.0, -step]), np.array([0.0, step, 0.0])
        corner = corner + (rows + columns) * (-(size - 1) / 2) + rows * offset[0] + columns * offset[1]
        tissue = rasterise(anatomy, SamplingPlane(centre + turn @ corner, turn @ rows, turn @ columns, shape))
        total += intensity(tissue, contrast)
        votes.add(tissue)
    truth = votes.elect(total[None] / len(chosen))
    return _disturb(rng, truth.signal[0], truth.classes, step)


def _training_view(
    rng: np.random.Generator, anatomy: LumbarAnatomy
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where a training slice is centred (body frame) and how it is turned: L5S1 or the top may be cut off."""
    x = rng.normal(0, 9) if rng.random() < 0.8 else rng.uniform(-27, 27)
    lowest = anatomy.discs[0].centre_mm[2]
    if rng.random() < 0.18:  # the sacrum and L5S1 lie partly or wholly below the field of view
        s = lowest + rng.uniform(90, 150)
    else:
        s = lowest + rng.uniform(30, 82)
    middle = np.mean([disc.centre_mm[1] for disc in anatomy.discs[:6]])
    p = middle + rng.uniform(-25, 45)
    turn = Rotation.from_euler("xyz", rng.normal(0, (6.0, 2.5, 2.5)), degrees=True).as_matrix()
    return np.array([x, p, s]), turn


def _disturb(
    rng: np.random.Generator, image: FloatArray, classes: LabelArray, step_mm: float
) -> tuple[FloatArray, LabelArray]:
    """Texture, coil, limited k-space, noise, a field of view smaller than the matrix, display gamma."""
    size = image.shape[0]
    image = image * mottle(rng, image.shape[:2], cell=int(rng.integers(2, 5)), strength=float(rng.uniform(0, 0.15)))
    grid = np.arange(size, dtype=np.float32) * np.float32(step_mm)
    skin = np.float32(size * step_mm * rng.uniform(0.7, 1.1))
    image = image * coil_field(
        skin - grid[None, :],
        (grid - grid.mean())[:, None],
        reach_mm=float(rng.uniform(60, 300)),
        slant=float(rng.uniform(-0.4, 0.4)),
    )
    fov_mm = float(rng.uniform(180, 280))
    fraction = min(size * step_mm / fov_mm, 1.0)
    phase = float(rng.choice((0.5, 0.625, 0.75, 1.0)))
    acquired = (max(int(size * fraction), 32), max(int(size * fraction * phase), 32))
    disc = image[classes == 1]
    level = float(disc.mean()) if disc.size else float(image.mean())
    image = acquire(
        image, acquired, noise_sd=max(level, 1e-3) / float(np.exp(rng.uniform(np.log(8), np.log(70)))), rng=rng
    )
    outside = int(size - fov_mm / step_mm) // 2
    if outside > 0:  # black border around a small field of view
        image, classes = image.copy(), classes.copy()
        for array in (image, classes):
            array[:outside], array[size - outside :] = 0, 0
            array[:, :outside], array[:, size - outside :] = 0, 0
    top = max(float(np.percentile(image, 99.5)), 1e-6)
    return ((image / top) ** np.float32(rng.uniform(0.75, 1.3))).astype(np.float32), classes


def _scaled(acquired: tuple[int, int], factor: float) -> tuple[int, int]:
    return int(acquired[0] * factor), int(acquired[1] * factor)


def _generator(*what: object) -> np.random.Generator:
    """A generator that depends on all of ``what`` and on nothing else."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in what).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
