"""The digital reference object of the QC phantom: vials with set T1rho and T2, as a scanner would see them.

It proves the code as the real phantom proves the scanner: what the node measures in it is known.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from config.phantom_templates import PhantomTemplate
from processing.phantom import PhantomExam
from processing.phantom_protocols import PREPARATIONS
from processing.phantom_signal import acquire, coil_field
from processing.results import Affine, FloatArray, ImageVolume, LabelArray, Quantity

_Float64 = npt.NDArray[np.float64]

_SCALE = 2000.0  # scanner units of a signal of 1
_FINER = 4  # sub-pixels along each edge of a pixel
_ACQUIRED = {"mapss": (256, 128), "t1rho-fse": (256, 192)}
_FILLING = {"air": 0.0, "gel": 0.35}
_FILLING_MS = 12.0  # decays away: a gel around the vials with much contrast agent
_WALL_MM = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class VialExam:
    """A scan of the reference object: ``exam`` as a scanner's, and what it holds.

    ``labels`` (slices, rows, columns) uint8: 1 for the first vial of the template, and so on. ``t1rho_ms``, ``t2_ms``:
    of each vial, by name.
    """

    exam: PhantomExam
    labels: LabelArray
    t1rho_ms: dict[str, float]
    t2_ms: dict[str, float]


def simulate_vials(
    template: PhantomTemplate,
    seed: int,
    *,
    n_slices: int = 5,
    slice_spacing_mm: float = 4.0,
    fov_mm: float = 200.0,
    matrix: int = 256,
    snr: float = 80.0,
    protocol: Literal["mapss", "t1rho-fse"] = "mapss",
    subject: str = "QC-VIALS",
    visit: int = 1,
    filling: Literal["air", "gel"] = "gel",
    turn_deg: float = 2.0,
    shift_mm: tuple[float, float] = (1.3, -2.1),
    mirrored: bool = False,
    t1rho_factor: float = 1.0,
    t2_factor: float = 1.0,
    left_out: tuple[str, ...] = (),
    n_ends: int = 0,
) -> VialExam:
    """Simulate a scan of a phantom whose vials have the nominal times of its template.

    Args:
        template: every vial with both nominal times.
        seed: of the noise, with subject and visit.
        n_slices: across the vials.
        slice_spacing_mm: distance of slices and their thickness.
        fov_mm: field of view, square.
        matrix: rows and columns.
        snr: of the first image: mean signal of the vials over the noise; ``inf`` for none.
        protocol: as of :func:`processing.phantom.simulate_exam`.
        subject: becomes the PatientID.
        visit: number of the scan, sets its date.
        filling: of the housing around the vials.
        turn_deg: the phantom lies turned in the slice, from rows towards columns.
        shift_mm: down and across, from the middle.
        mirrored: it was put in the wrong way round.
        t1rho_factor: what the scanner makes of T1rho: drift.
        t2_factor: the same of T2.
        left_out: names of vials that are missing.
        n_ends: so many slices at each end miss the vials' contents.

    Raises:
        ValueError: a vial without nominal times, or a size or SNR that makes no scan.
    """
    if n_slices - 2 * n_ends < 1 or matrix < 32 or slice_spacing_mm <= 0 or fov_mm <= 0 or not snr > 0:
        raise ValueError("a scan needs a slice with vials, a matrix of 32, and positive spacing, field of view and SNR")
    if any(vial.t1rho_ms is None or vial.t2_ms is None for vial in template.vials):
        raise ValueError(f"template {template.name}: a simulated vial needs both nominal times")
    t1rho_ms = {vial.name: (vial.t1rho_ms or 0.0) * t1rho_factor for vial in template.vials}
    t2_ms = {vial.name: (vial.t2_ms or 0.0) * t2_factor for vial in template.vials}
    pixel_mm = fov_mm / matrix
    shares, housing = _shares(template, matrix, pixel_mm, turn_deg, shift_mm, mirrored, left_out)
    coil = coil_field(*_coil_places(matrix, pixel_mm), reach_mm=110.0, slant=0.05)
    rng = _generator(seed, subject, visit)
    preparations = PREPARATIONS[protocol]
    signal = np.empty((len(preparations), n_slices, matrix, matrix), np.float32)
    times = [(t1rho_ms[vial.name], t2_ms[vial.name]) for vial in template.vials]
    full = [_decayed(shares, housing, times, time_ms, what, filling) * coil for time_ms, what in preparations]
    noise_sd = float((full[0] * (shares.sum(axis=0) > 0.99)).sum() / (shares.sum(axis=0) > 0.99).sum() / snr) * _SCALE
    acquired = tuple(int(size * matrix / 256) for size in _ACQUIRED[protocol])
    empty = np.zeros_like(full[0])
    for index in range(n_slices):
        has_vials = n_ends <= index < n_slices - n_ends
        for at, image in enumerate(full):
            clean = ((image if has_vials else empty) * _SCALE).astype(np.float32)
            signal[at, index] = acquire(clean, (acquired[0], acquired[1]), noise_sd=noise_sd, rng=rng)
    affine = _affine(n_slices, slice_spacing_mm, matrix, pixel_mm)
    labels = np.zeros(signal.shape[1:], np.uint8)
    for label, share in enumerate(shares, start=1):
        labels[n_ends : n_slices - n_ends, share > 0.5] = label
    nothing = np.zeros(labels.shape, np.uint8)
    exam = PhantomExam(
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
        anatomy_image=ImageVolume(signal[0].copy(), affine),
        labels=nothing,
        upper_labels=nothing,
        classes=nothing,
        t1rho_ms=_painted(labels, [pair[0] for pair in times]),
        t2_ms=_painted(labels, [pair[1] for pair in times]),
        nucleus=np.full(labels.shape, np.nan, np.float32),
        grades=(),
        anatomy=None,
    )
    return VialExam(exam, labels, t1rho_ms, t2_ms)


def _shares(
    template: PhantomTemplate,
    matrix: int,
    pixel_mm: float,
    turn_deg: float,
    shift_mm: tuple[float, float],
    mirrored: bool,
    left_out: tuple[str, ...],
) -> tuple[_Float64, _Float64]:
    """The share of each pixel that each vial fills (vials, rows, columns), and that the housing around them fills."""
    fine_mm = (np.arange(matrix * _FINER) + 0.5) / _FINER * pixel_mm - matrix * pixel_mm / 2
    turn = np.radians(turn_deg)
    middle = np.mean([(vial.down_mm, vial.across_mm) for vial in template.vials], axis=0)
    shares = []
    in_walls = np.zeros((matrix, matrix))
    for vial in template.vials:
        down, across = np.array([vial.down_mm, vial.across_mm]) - middle
        across = -across if mirrored else across
        centre_down = np.cos(turn) * down - np.sin(turn) * across + shift_mm[0]
        centre_across = np.sin(turn) * down + np.cos(turn) * across + shift_mm[1]
        distance = np.hypot(fine_mm[:, None] - centre_down, fine_mm[None, :] - centre_across)
        inside = 0.0 if vial.name in left_out else _pooled(distance <= vial.diameter_mm / 2)
        shares.append(np.zeros((matrix, matrix)) + inside)
        wall = vial.diameter_mm / 2 + _WALL_MM
        in_walls = np.maximum(in_walls, 0.0 if vial.name in left_out else _pooled(distance <= wall))
    reach = max(
        np.hypot(*(np.array([vial.down_mm, vial.across_mm]) - middle)) + vial.diameter_mm / 2 for vial in template.vials
    )
    housing = _pooled(np.hypot(fine_mm[:, None] - shift_mm[0], fine_mm[None, :] - shift_mm[1]) <= reach + 8.0)
    return np.stack(shares), housing * (1 - in_walls)


def _pooled(fine: npt.NDArray[np.bool_]) -> _Float64:
    rows, columns = (size // _FINER for size in fine.shape)
    pooled: _Float64 = fine.reshape(rows, _FINER, columns, _FINER).mean(axis=(1, 3))
    return pooled


def _decayed(
    shares: _Float64,
    housing: _Float64,
    times: list[tuple[float, float]],
    time_ms: float,
    what: Quantity | None,
    filling: str,
) -> _Float64:
    """The signal of a preparation, without coil: every content starts at 1, the filling at less."""
    rates = [0.0 if time_ms == 0 else time_ms / pair[what is not Quantity.T1RHO] for pair in times]
    signal: _Float64 = np.tensordot(np.exp(-np.array(rates)), shares, axes=1)
    signal += housing * (_FILLING[filling] * np.exp(-time_ms / _FILLING_MS))
    return signal


def _coil_places(matrix: int, pixel_mm: float) -> tuple[FloatArray, FloatArray]:
    """Distance from the coil (below, at the right edge of the picture) and along it, mm, as ``coil_field`` takes it."""
    along = (np.arange(matrix, dtype=np.float32)[:, None] - matrix / 2) * np.float32(pixel_mm)
    depth = (matrix - np.arange(matrix, dtype=np.float32)[None, :]) * np.float32(pixel_mm)
    return depth + np.zeros_like(along), along + np.zeros_like(depth)


def _painted(labels: LabelArray, values: list[float]) -> FloatArray:
    table = np.array([np.nan, *values], np.float32)
    painted: FloatArray = table[labels]
    return painted


def _affine(n_slices: int, slice_spacing_mm: float, matrix: int, pixel_mm: float) -> Affine:
    """Sagittal slices around the origin, as of :mod:`processing.phantom`: slices to -L, rows to -S, columns to +P."""
    affine = np.eye(4)
    axes = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    affine[:3, :3] = axes * np.array([slice_spacing_mm, pixel_mm, pixel_mm])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([n_slices, matrix, matrix]) - 1) / 2)
    return affine


def _generator(*what: object) -> np.random.Generator:
    digest = hashlib.sha256("\x1f".join(("vials", *map(str, what))).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
