"""Vials of a QC phantom: found in the slices, told apart by the template, measured with the fit of discs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.phantom_templates import PhantomTemplate
from processing.circles import Circle, find_circles, fit_circle
from processing.fitting import FitRules, FitStatus, relaxation_map
from processing.noise import estimate_noise
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import EchoStack, FloatArray, ImageVolume, LabelArray, Quantity, RelaxationMap
from processing.volume import spacing_mm

_Float64 = npt.NDArray[np.float64]

_MIN_EDGE_SHARE = 0.7  # of a vial's rim that must be seen
_MIN_EDGE_SHARE_IN_SLICE = 0.6
_SIZE_SHARE = 0.2  # a circle's diameter may differ so from the vial's
_SIGNAL_SHARE = 0.35  # a slice with less of a vial's usual signal has its lid or bottom in it


@dataclass(frozen=True, slots=True)
class VialPlace:
    """Where a vial is in one slice: ``label`` counts from 1 in the order of the template; centre in mm, as circles."""

    label: int
    name: str
    slice_index: int
    circle: Circle


@dataclass(frozen=True, slots=True, eq=False)
class PlacedVials:
    """The vials of a phantom in an image volume.

    ``labels`` (slices, rows, columns) uint8, what lies in a vial; ``rois`` the same, what is measured: its middle part.
    ``turn_deg``: of the phantom in the slice, from rows towards columns; ``residual_mm``: RMS distance from the
    template. ``slices``: those in which every vial is seen.
    """

    template: PhantomTemplate
    places: tuple[VialPlace, ...]
    labels: LabelArray
    rois: LabelArray
    slices: tuple[int, ...]
    turn_deg: float
    residual_mm: float


@dataclass(frozen=True, slots=True)
class VialMeasurement:
    """One vial and quantity, over one slice or (``slice_index`` None) over all that were used; times in ms.

    ``snr``: mean signal of the first image over the noise; None where the background does not tell the noise.
    ``residuals_percent``: mean of signal minus fit at each time, in percent of the fitted signal at time zero: a
    pattern in it that is the same in all vials is not noise.
    """

    vial: str
    quantity: Quantity
    slice_index: int | None
    mean_ms: float
    sd_ms: float
    median_ms: float
    n: int
    n_excluded: int
    snr: float | None
    residuals_percent: tuple[float, ...]


def recognise(image: ImageVolume, templates: Sequence[PhantomTemplate]) -> PhantomTemplate | None:
    """The template whose vials an exam's images show in their right places; None for anything else, a spine say."""
    for template in templates:
        try:
            place_vials(image, template)
        except UnsuitableInput:
            continue
        return template
    return None


def place_vials(image: ImageVolume, template: PhantomTemplate) -> PlacedVials:
    """Find the vials in the mean of the slices that have signal, name them by the template, and follow each of them.

    Raises:
        UnsuitableInput: REVIEW_REQUIRED, where the vials found are not those of the template: too few, turned too far,
            or mirrored.
    """
    spacing = spacing_mm(image.affine)
    pixel_mm = (spacing[1], spacing[2])
    bright = _slices_with_signal(image.array)
    mean = image.array[list(bright)].mean(axis=0)
    radii = sorted({vial.diameter_mm / 2 for vial in template.vials})
    circles = find_circles(mean, pixel_mm, radii, min_edge_share=_MIN_EDGE_SHARE)
    named, turn_deg, residual_mm = _match(circles, template)
    places = _follow(image.array, pixel_mm, bright, named, template)
    slices = _usable_slices(image.array, pixel_mm, places, template)
    if len(slices) < template.min_slices:
        raise _refusal(template, f"all vials are seen in {len(slices)} slices, {template.min_slices} are needed")
    used = tuple(place for place in places if place.slice_index in slices)
    return PlacedVials(
        template=template,
        places=used,
        labels=_paint(image.array.shape, pixel_mm, used, 1.0),
        rois=_paint(image.array.shape, pixel_mm, used, template.roi_share),
        slices=slices,
        turn_deg=turn_deg,
        residual_mm=residual_mm,
    )


def vial_maps(
    stacks: Sequence[EchoStack], placed: PlacedVials, rules: Mapping[Quantity, FitRules]
) -> dict[Quantity, RelaxationMap]:
    """The maps of the vials, fitted as discs are (:func:`processing.fitting.relaxation_map`)."""
    return {stack.role: relaxation_map(stack, placed.labels > 0, rules[stack.role]) for stack in stacks}


def measure_vials(
    stacks: Sequence[EchoStack], placed: PlacedVials, maps: Mapping[Quantity, RelaxationMap]
) -> tuple[VialMeasurement, ...]:
    """Each vial and quantity over all used slices, followed by the slices one by one.

    Raises:
        UnsuitableInput: REVIEW_REQUIRED, where a vial reads so far from its nominal value that it stands in another's
            place; DECAY_IMPLAUSIBLE, where a vial has no value at all.
    """
    measured = []
    for stack in stacks:
        noise = estimate_noise(stack.signal)
        noise_sd = None if noise.doubt is not None else noise.sd
        for label, vial in enumerate(placed.template.vials, start=1):
            roi = placed.rois == label
            whole = _numbers(vial.name, None, stack, maps[stack.role], roi, noise_sd)
            if not whole.n:
                detail = f"vial {vial.name} has no {stack.role} in any voxel"
                raise UnsuitableInput(ReasonCode.DECAY_IMPLAUSIBLE, detail)
            measured.append(whole)
            for index in placed.slices:
                only = np.zeros_like(roi)
                only[index] = roi[index]
                measured.append(_numbers(vial.name, index, stack, maps[stack.role], only, noise_sd))
    _check_nominal(measured, placed.template)
    return tuple(measured)


def _numbers(
    name: str,
    slice_index: int | None,
    stack: EchoStack,
    one: RelaxationMap,
    roi: npt.NDArray[np.bool_],
    noise_sd: float | None,
) -> VialMeasurement:
    fitted = roi & (one.status == FitStatus.FITTED)
    values = one.time_ms[fitted].astype(np.float64)
    n = values.size
    return VialMeasurement(
        vial=name,
        quantity=stack.role,
        slice_index=slice_index,
        mean_ms=float(values.mean()) if n else float("nan"),
        sd_ms=float(values.std(ddof=1)) if n > 1 else float("nan"),
        median_ms=float(np.median(values)) if n else float("nan"),
        n=n,
        n_excluded=int(roi.sum()) - n,
        snr=None if noise_sd is None else float(stack.signal[0][roi].mean() / noise_sd),
        residuals_percent=_residuals(stack, one, fitted) if n else (),
    )


def _residuals(stack: EchoStack, one: RelaxationMap, fitted: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    s0, time_ms = one.s0[fitted].astype(np.float64), one.time_ms[fitted].astype(np.float64)
    means = []
    for signal, at_ms in zip(stack.signal, stack.times_ms, strict=True):
        share = (signal[fitted] - s0 * np.exp(-at_ms / time_ms)) / s0
        means.append(float(100 * share.mean()))
    return tuple(means)


def _check_nominal(measured: Sequence[VialMeasurement], template: PhantomTemplate) -> None:
    nominal = {}
    for vial in template.vials:
        nominal[vial.name, Quantity.T1RHO] = vial.t1rho_ms
        nominal[vial.name, Quantity.T2] = vial.t2_ms
    odd = []
    for one in measured:
        expected = nominal[one.vial, one.quantity]
        if one.slice_index is None and expected and abs(one.mean_ms / expected - 1) > template.nominal_share:
            odd.append(f"{one.vial} {one.quantity} {one.mean_ms:.1f} ms for {expected:g} ms")
    if odd:
        raise _refusal(template, f"vials are not what the template says they are: {', '.join(odd)}")


def _refusal(template: PhantomTemplate, detail: str) -> UnsuitableInput:
    return UnsuitableInput(ReasonCode.REVIEW_REQUIRED, f"QC phantom {template.name}: {detail}")


def _slices_with_signal(volume: FloatArray) -> tuple[int, ...]:
    """The slices that have at least half the signal of the brightest."""
    means = volume.reshape(len(volume), -1).mean(axis=1)
    return tuple(np.flatnonzero(means >= 0.5 * means.max()).tolist())


def _match(circles: Sequence[Circle], template: PhantomTemplate) -> tuple[list[Circle], float, float]:
    """The circle of each vial, in the template's order, the turn in degrees, and the RMS distance in mm."""
    found = np.array([(one.down_mm, one.across_mm) for one in circles]).reshape(-1, 2)
    sizes = np.array([2 * one.radius_mm for one in circles])
    plan = np.array([(vial.down_mm, vial.across_mm) for vial in template.vials])
    diameters = np.array([vial.diameter_mm for vial in template.vials])
    if len(found) < len(plan):
        raise _refusal(template, f"{len(found)} circles of its vials' size were found; it has {len(plan)} vials")
    best = _best_order(plan, diameters, found, sizes, template.tolerance_mm)
    if best is None:
        mirrored = _best_order(plan * (1, -1), diameters, found, sizes, template.tolerance_mm)
        if mirrored is not None:
            raise _refusal(template, "the picture is mirrored: it was put in the wrong way round")
        raise _refusal(template, f"{len(found)} circles were found, but not where its vials are")
    order, turn_deg, residual_mm = best
    if abs(turn_deg) > template.max_turn_deg:
        limit = f"{template.max_turn_deg:g}"
        raise _refusal(template, f"it lies turned by {turn_deg:.0f} degrees; {limit} are allowed")
    return [circles[at] for at in order], turn_deg, residual_mm


def _best_order(
    plan: _Float64, diameters: _Float64, found: _Float64, sizes: _Float64, tolerance_mm: float
) -> tuple[list[int], float, float] | None:
    """Which circle is which vial: the rotation and shift that lays all vials onto circles, nearest on the whole.

    Candidates come from the two vials that lie furthest apart, laid onto each pair of circles at that distance.
    """
    gaps = np.linalg.norm(plan[:, None] - plan[None], axis=2)
    first, second = np.unravel_index(int(gaps.argmax()), gaps.shape)
    between = np.linalg.norm(found[:, None] - found[None], axis=2)
    best: tuple[list[int], float, float] | None = None
    for one, other in np.argwhere(np.abs(between - gaps[first, second]) <= 2 * tolerance_mm).tolist():
        turn = _turn_of(found[other] - found[one]) - _turn_of(plan[second] - plan[first])
        order = _nearest(_turned(plan - plan[first], turn) + found[one], found, 2 * tolerance_mm)
        if order is None:
            continue
        turn = _best_turn(plan, found[order])
        laid = _turned(plan - plan.mean(axis=0), turn) + found[order].mean(axis=0)
        distances = np.linalg.norm(laid - found[order], axis=1)
        fits = np.abs(sizes[order] / diameters - 1) <= _SIZE_SHARE
        if distances.max() > tolerance_mm or not fits.all():
            continue
        residual_mm = float(np.sqrt((distances**2).mean()))
        if best is None or residual_mm < best[2]:
            turn_deg = float(np.degrees((turn + np.pi) % (2 * np.pi) - np.pi))
            best = order, turn_deg, residual_mm
    return best


def _nearest(laid: _Float64, found: _Float64, within_mm: float) -> list[int] | None:
    """For each place the circle nearest to it; None where one has none, or two have the same."""
    distances = np.linalg.norm(laid[:, None] - found[None], axis=2)
    order = distances.argmin(axis=1)
    if distances.min(axis=1).max() > within_mm or len(set(order.tolist())) < len(order):
        return None
    nearest: list[int] = order.tolist()
    return nearest


def _turn_of(step: _Float64) -> float:
    return float(np.arctan2(step[1], step[0]))


def _turned(points: _Float64, turn: float) -> _Float64:
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned: _Float64 = points @ matrix.T
    return turned


def _best_turn(plan: _Float64, found: _Float64) -> float:
    """The rotation that lays ``plan`` best onto ``found``, both about their centroids (least squares)."""
    source, target = plan - plan.mean(axis=0), found - found.mean(axis=0)
    cross = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum()
    return float(np.arctan2(cross, (source * target).sum()))


def _follow(
    volume: FloatArray,
    pixel_mm: tuple[float, float],
    slices: Sequence[int],
    named: Sequence[Circle],
    template: PhantomTemplate,
) -> tuple[VialPlace, ...]:
    """Each vial in each slice, fitted anew from where it is in the mean: the phantom may lie tilted."""
    places = []
    for index in slices:
        for label, (vial, circle) in enumerate(zip(template.vials, named, strict=True), start=1):
            own = fit_circle(volume[index], pixel_mm, circle.down_mm, circle.across_mm, circle.radius_mm)
            if own is None or own.edge_share < _MIN_EDGE_SHARE_IN_SLICE:
                continue
            moved_mm = np.hypot(own.down_mm - circle.down_mm, own.across_mm - circle.across_mm)
            if moved_mm <= template.tolerance_mm and abs(2 * own.radius_mm / vial.diameter_mm - 1) <= _SIZE_SHARE:
                places.append(VialPlace(label, vial.name, index, own))
    return tuple(places)


def _usable_slices(
    volume: FloatArray, pixel_mm: tuple[float, float], places: Sequence[VialPlace], template: PhantomTemplate
) -> tuple[int, ...]:
    """The slices in which every vial is seen with its usual signal (not its lid or its bottom)."""
    rois = _paint(volume.shape, pixel_mm, places, template.roi_share)
    signals: dict[int, dict[int, float]] = {}
    for place in places:
        values = volume[place.slice_index][rois[place.slice_index] == place.label]
        signals.setdefault(place.label, {})[place.slice_index] = float(values.mean()) if values.size else 0.0
    if len(signals) < len(template.vials):
        return ()
    usable = None
    for by_slice in signals.values():
        usual = float(np.median(list(by_slice.values())))
        good = {index for index, signal in by_slice.items() if abs(signal - usual) <= _SIGNAL_SHARE * usual}
        usable = good if usable is None else usable & good
    return tuple(sorted(usable or ()))


def _paint(
    shape: tuple[int, ...], pixel_mm: tuple[float, float], places: Sequence[VialPlace], share: float
) -> LabelArray:
    """Labels of the pixels whose centres lie within ``share`` of a vial's radius."""
    labels = np.zeros(shape, np.uint8)
    down = np.arange(shape[1])[:, None] * pixel_mm[0]
    across = np.arange(shape[2])[None, :] * pixel_mm[1]
    for place in places:
        circle = place.circle
        inside = np.hypot(down - circle.down_mm, across - circle.across_mm) <= share * circle.radius_mm
        labels[place.slice_index][inside] = place.label
    return labels
