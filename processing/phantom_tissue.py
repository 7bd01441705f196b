"""Which tissue lies at a point of a phantom: the anatomy as implicit functions, sampled on any plane.

Nothing is drawn as a polygon: every structure is an inequality in its own frame, evaluated in the window where it can
be true. So a whole exam and one training slice come from the same code, at any obliquity and spacing.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.phantom_anatomy import Body, Disc, LumbarAnatomy, RudimentaryDisc, Spot
from processing.results import Affine, FloatArray, LabelArray

_Float = npt.NDArray[np.float32]
_Bool = npt.NDArray[np.bool_]


class Tissue(IntEnum):
    """What a sample consists of."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    MARROW = 3
    CORTEX = 4  # cortical bone and ligaments: dark
    END_PLATE = 5
    DISC = 6
    CSF = 7
    NERVE = 8  # cord and cauda equina
    EPIDURAL_FAT = 9
    VESSEL = 10
    BOWEL = 11
    SACRUM = 12
    SACRAL_DISC = 13
    SACRAL_END_PLATE = 14
    VEIN = 15  # basivertebral
    HAEMANGIOMA = 16
    MODIC = 17
    KIDNEY = 18
    VACUUM = 19
    POSTERIOR_BONE = 20
    VENOUS = 21  # inferior vena cava and its branches
    ROOT = 22  # nerve root in a foramen


#: Class of the network (0 background, 1 disc, 2 vertebral body, 3 sacrum, 4 canal) of each tissue.
CLASS_OF_TISSUE: LabelArray = np.zeros(len(Tissue), dtype=np.uint8)
CLASS_OF_TISSUE[[Tissue.DISC, Tissue.VACUUM]] = 1
CLASS_OF_TISSUE[[Tissue.MARROW, Tissue.END_PLATE, Tissue.VEIN, Tissue.HAEMANGIOMA, Tissue.MODIC]] = 2
CLASS_OF_TISSUE[[Tissue.SACRUM, Tissue.SACRAL_DISC, Tissue.SACRAL_END_PLATE]] = 3
CLASS_OF_TISSUE[[Tissue.CSF, Tissue.NERVE]] = 4


@dataclass(frozen=True, slots=True, eq=False)
class SamplingPlane:
    """Sample (row, column) lies at ``origin_mm + row * row_step_mm + column * column_step_mm`` in the body frame.

    The two steps must be perpendicular; all three are (x left, p posterior, s superior) in mm, which is LPS when the
    subject lies straight in the scanner.
    """

    origin_mm: npt.NDArray[np.float64]
    row_step_mm: npt.NDArray[np.float64]
    column_step_mm: npt.NDArray[np.float64]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class TissueSlice:
    """What lies at the samples of a plane. All arrays (rows, columns).

    ``level`` 1 = L5S1, counting up, 0 outside discs; ``nucleus`` 0 (annulus) .. 1 (nucleus); ``t1rho_ms``, ``t2_ms``
    of disc tissue, 0 elsewhere.
    """

    tissue: LabelArray
    level: LabelArray
    nucleus: FloatArray
    t1rho_ms: FloatArray
    t2_ms: FloatArray


def rasterise(anatomy: LumbarAnatomy, plane: SamplingPlane) -> TissueSlice:
    """Tissue of one subject at the samples of a plane (no averaging: the caller averages sub-samples)."""
    points = _sample(anatomy, plane)
    tissue = _surroundings(anatomy, points)
    shape = plane.shape
    result = TissueSlice(
        tissue,
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    for spot in anatomy.spots:
        if spot.kind in ("bowel", "gas", "kidney"):
            _paint_spot(spot, points, tissue)
    _paint_vessels(anatomy, points, tissue)
    _paint_canal(anatomy, points, tissue)
    for body in anatomy.bodies:
        _paint_posterior_elements(body, points, tissue)
    for piece in anatomy.sacrum:
        _paint_body(piece, points, tissue, marrow=Tissue.SACRUM)
    for remnant in anatomy.sacral_discs:
        _paint_sacral_disc(remnant, points, tissue)
    for body in anatomy.bodies:
        _paint_body(body, points, tissue, marrow=Tissue.MARROW)
    for spot in anatomy.spots:
        if spot.kind in ("haemangioma", "modic"):
            _paint_spot(spot, points, tissue)
    for disc in anatomy.discs:
        _paint_disc(disc, anatomy.end_plate_mm, points, result)
    return result


def rasterise_volume(anatomy: LumbarAnatomy, affine: Affine, shape: tuple[int, int, int]) -> tuple[TissueSlice, ...]:
    """Tissue on a whole grid, slice by slice.

    Args:
        anatomy: the subject; LPS mm of the grid are taken as the body frame.
        affine: (4, 4), (slice, row, column) index to mm; rows and columns perpendicular.
        shape: (slices, rows, columns).
    """
    return tuple(
        rasterise(anatomy, SamplingPlane(affine[:3, 3] + k * affine[:3, 0], affine[:3, 1], affine[:3, 2], shape[1:]))
        for k in range(shape[0])
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Body coordinates of all samples, and where the plane is so that windows can be found."""

    x: _Float
    p: _Float
    s: _Float
    behind: _Float  # distance behind the canal's centre line, perpendicular to it; negative in front
    canal_radius: _Float  # half depth of the dural sac at this height
    spine_depth: _Float  # from the canal's centre to the front of the spine at this height
    plane: SamplingPlane

    def window(self, centre: tuple[float, float, float], radius: float) -> tuple[slice, slice] | None:
        """The part of the grid within ``radius`` mm of a point, None when the plane passes farther away."""
        plane = self.plane
        offset = np.array(centre) - plane.origin_mm
        ranges = []
        distance = offset
        reach = radius + 4.0  # the smooth waves move points by less than that
        for step, size in ((plane.row_step_mm, plane.shape[0]), (plane.column_step_mm, plane.shape[1])):
            length = float(np.linalg.norm(step))
            at = float(offset @ step) / length
            distance = distance - at * step / length
            low, high = max(int((at - reach) / length), 0), min(int((at + reach) / length) + 2, size)
            if low >= high:
                return None
            ranges.append(slice(low, high))
        if float(np.linalg.norm(distance)) > reach:
            return None
        return ranges[0], ranges[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Local:
    """Samples near one segment in its own frame: w to the left, u posterior along the end plates, v up across them."""

    w: _Float
    u: _Float
    v: _Float


def _sample(anatomy: LumbarAnatomy, plane: SamplingPlane) -> _Points:
    """Coordinates of the samples after the subject's smooth deformation."""
    rows = np.arange(plane.shape[0], dtype=np.float32)[:, None]
    columns = np.arange(plane.shape[1], dtype=np.float32)[None, :]
    x, p, s = (
        np.float32(plane.origin_mm[axis])
        + rows * np.float32(plane.row_step_mm[axis])
        + columns * np.float32(plane.column_step_mm[axis])
        for axis in range(3)
    )
    if anatomy.scoliosis_mm:
        x = x - np.float32(anatomy.scoliosis_mm) * np.sin(s * np.float32(np.pi / 110))
    for amplitude, wavelength, phase, direction in anatomy.warp_mm:
        if amplitude == 0:
            continue
        turn = 2 * np.pi / wavelength
        argument = (p * np.float32(np.cos(direction) * turn) + np.float32(phase)) + s * np.float32(
            np.sin(direction) * turn
        )
        wave = np.sin(argument) * np.float32(amplitude)
        p, s = p - wave * np.float32(np.sin(direction)), s + wave * np.float32(np.cos(direction))
    centre, cosine, radius, depth = _canal_course(anatomy, s)
    return _Points(x, p, s, (p - centre) * cosine, radius, depth, plane)


def _local(
    centre: tuple[float, float, float], angle_deg: float, points: _Points, window: tuple[slice, slice]
) -> _Local:
    cos, sin = np.float32(np.cos(np.deg2rad(angle_deg))), np.float32(np.sin(np.deg2rad(angle_deg)))
    p = points.p[window] - np.float32(centre[1])
    s = points.s[window] - np.float32(centre[2])
    return _Local(points.x[window] - np.float32(centre[0]), p * cos + s * sin, s * cos - p * sin)


def _canal_course(anatomy: LumbarAnatomy, s: _Float) -> tuple[_Float, _Float, _Float, _Float]:
    """At each s: p of the canal's centre, cosine of its lean, half depth of the sac, depth of the spine before it."""
    table = np.array(anatomy.canal_mm)
    step = 0.1
    fine = np.arange(table[0, 0] - 80, table[-1, 0] + 80, step)
    centre, radius, depth = (np.interp(fine, table[:, 0], table[:, column]) for column in (1, 2, 3))
    below = np.clip(table[0, 0] - fine, 0, None)
    centre = centre + 1.2 * below  # the sacrum goes on
    centre = ndimage.uniform_filter1d(centre, 121, mode="nearest")  # a canal has no corners
    cosine = 1 / np.sqrt(1 + ndimage.uniform_filter1d(np.gradient(centre, step), 61, mode="nearest") ** 2)
    index = ((s - np.float32(fine[0])) * np.float32(1 / step)).astype(np.int32)
    np.clip(index, 0, len(fine) - 1, out=index)
    smooth = (centre, cosine, ndimage.uniform_filter1d(radius, 21, mode="nearest"), depth)
    first, second, third, fourth = (values.astype(np.float32)[index] for values in smooth)
    return first, second, third, fourth


def _surroundings(anatomy: LumbarAnatomy, points: _Points) -> LabelArray:
    """Fat, muscle and air: everything the spine lies in."""
    x, behind, depth = points.x, points.behind, points.spine_depth
    aside = np.abs(x)
    tissue = np.full(x.shape, Tissue.FAT, np.uint8)
    one, two, three, four, five, six = (np.float32(phase) for phase in anatomy.grain)
    bend = np.sin(points.s * np.float32(0.043) + behind * np.float32(0.09) + one) * np.float32(2.2)
    streak = np.sin(points.s * np.float32(0.10) + behind * np.float32(0.43) + x * np.float32(0.11) + bend + two)
    streak *= np.sin(points.s * np.float32(0.19) - behind * np.float32(0.21) + bend * np.float32(0.6) + three)
    back = (behind > 8) & (aside > 2.5 + 0.05 * behind)
    tissue[back & (streak < np.float32(0.95 - 0.75 * anatomy.muscle_fat))] = Tissue.MUSCLE
    front = behind < -depth - 22
    loops = np.sin(points.s * np.float32(0.16) + four + bend) * np.sin(points.p * np.float32(0.19) + five - bend)
    loops += np.float32(0.7) * np.sin((points.s + points.p) * np.float32(0.27) + x * np.float32(0.1) + six)
    tissue[front & (loops > np.float32(0.9 - anatomy.bowel))] = Tissue.BOWEL
    tissue[front & (np.abs(loops - np.float32(0.9 - anatomy.bowel)) < 0.10)] = Tissue.MUSCLE  # the wall
    tissue[(behind > 8) & (aside <= 2.5)] = Tissue.CORTEX  # interspinous ligaments
    psoas = (aside > 24) & (behind < 2) & (behind > -depth) & (aside < 62)
    tissue[psoas & (streak < 0.9)] = Tissue.MUSCLE
    skin = np.float32(anatomy.skin_mm)
    tissue[behind > skin - np.float32(anatomy.fat_mm)] = Tissue.FAT
    tissue[behind > skin] = Tissue.AIR
    wall = -depth - np.float32(92)
    tissue[(behind < wall) & (behind > wall - 12)] = Tissue.MUSCLE
    tissue[behind < wall - 32] = Tissue.AIR
    return tissue


def _paint_vessels(anatomy: LumbarAnatomy, points: _Points, tissue: LabelArray) -> None:
    """The aorta to the left, the inferior vena cava to the right; both part in front of L4."""
    behind, depth = points.behind, points.spine_depth
    fork = np.float32(anatomy.bodies[1].centre_mm[2])
    below = np.clip(fork - points.s, 0, None)
    for (x, gap, radius), kind, shift in (
        (anatomy.cava_mm, Tissue.VENOUS, 4.0),
        (anatomy.aorta_mm, Tissue.VESSEL, 0.0),
    ):
        spread = np.float32(0.45 * np.sign(x)) * np.clip(below - np.float32(shift), 0, None)
        narrow = np.float32(radius) * np.where(below > shift, np.float32(0.62), np.float32(1))
        squeeze = np.float32(0.75 if kind is Tissue.VENOUS else 1.0)
        front = (behind + depth + np.float32(gap)) / squeeze
        distance = (points.x - np.float32(x) - spread) ** 2 + front * front
        tissue[distance < (narrow + 1) ** 2] = Tissue.CORTEX
        tissue[distance < narrow**2] = kind


def _paint_canal(anatomy: LumbarAnatomy, points: _Points, tissue: LabelArray) -> None:
    """Epidural and foraminal fat, the dural sac, cauda equina below the conus, cord above."""
    behind, radius = points.behind, points.canal_radius
    aside = points.x * np.float32(1 / 1.45)
    distance = behind * behind + aside * aside
    tissue[(np.abs(behind) < radius + 3.5) & (np.abs(points.x) < 24)] = Tissue.EPIDURAL_FAT
    tissue[distance < (radius + 0.8) ** 2] = Tissue.CORTEX
    sac = distance < radius * radius
    sac &= radius > 1
    tissue[sac] = Tissue.CSF
    conus = np.float32(anatomy.conus_s_mm)
    cord_radius = np.clip(np.float32(4.4) * (points.s - conus + 12) / 26, 0, 4.4)
    cord = (behind - 0.6) ** 2 + (points.x * np.float32(0.8)) ** 2 < cord_radius**2
    strands = np.sin(behind * np.float32(2.6) + np.sin(points.x) + points.s * np.float32(0.03)) > 0.15
    roots = sac & (behind > np.float32(0.15) * radius) & strands & (points.s < conus + 4)
    tissue[roots | (cord & sac)] = Tissue.NERVE


def _cross_section(u: _Float, w: _Float, depth: _Float | np.float32, width: np.float32) -> _Float:
    """1 on the outline of a segment seen from above: an ellipse in front, squarer behind."""
    along = u / depth
    along = along * along
    across = w / width
    across = across * across
    round_front = np.sqrt(along + across)
    flat_back = np.sqrt(np.sqrt(along * along + across * across))
    return np.where(u < 0, round_front, flat_back)


def _body_shape(body: Body, near: _Local) -> tuple[_Float, _Float]:
    """Outline value (1 at the wall) and distance in mm beyond the end plates (negative inside)."""
    half = np.float32(body.height_mm / 2)
    v = near.v - np.float32(body.tilt) * near.w
    upward: _Float = np.clip(v / half, -1, 1)
    lower, upper = body.half_depths_mm
    depth: _Float = np.float32((lower + upper) / 2) + upward * np.float32((upper - lower) / 2)
    depth *= 1 - np.float32(body.waist) * (1 - upward * upward)
    outline = _cross_section(near.u, near.w, depth, np.float32(body.half_width_mm))
    wedge = np.float32(np.tan(np.deg2rad(body.wedge_deg / 2)))
    rim = np.minimum(outline, 1)
    beyond = np.abs(v) - (half - near.u * wedge + np.float32(body.concavity_mm / 2) * rim * rim)
    return outline, beyond


def _paint_body(body: Body, points: _Points, tissue: LabelArray, *, marrow: Tissue) -> None:
    reach = float(np.hypot(np.hypot(body.height_mm / 2 + 3, max(body.half_depths_mm) + 3), 0))
    window = points.window(body.centre_mm, max(reach, body.half_width_mm))
    if window is None:
        return
    near = _local(body.centre_mm, body.angle_deg, points, window)
    outline, beyond = _body_shape(body, near)
    here = tissue[window]
    wall = np.float32(1 + 1.1 / (sum(body.half_depths_mm) / 2))
    here[(outline < wall) & (beyond < 0.9)] = Tissue.CORTEX
    inside = (outline < 1) & (beyond < 0.4)
    here[inside] = marrow
    if marrow is Tissue.SACRUM:
        _paint_ala(body, near, here)
        return
    depth = np.float32(np.mean(body.half_depths_mm))
    vein = inside & (np.abs(near.v) < 1.6 * (near.u / depth)) & (near.u > 0.25 * depth) & (np.abs(near.w) < 7)
    here[vein] = Tissue.VEIN


def _paint_ala(piece: Body, near: _Local, here: LabelArray) -> None:
    """The lateral masses of the sacrum, with the foramina between the pieces."""
    half = np.float32(piece.height_mm / 2)
    aside = np.abs(near.w) - np.float32(piece.half_width_mm * 0.95)
    shape = (aside / 18) ** 2 + ((near.u - 3) / 14) ** 2 + (near.v / (half + 3)) ** 4
    foramen = (np.abs(near.w) - 14) ** 2 + (near.v + half + 1) ** 2 < 12
    foramen &= near.u > 0
    mass = (shape < 1) & (here != Tissue.SACRUM) & (np.abs(near.w) > 14)
    here[mass] = Tissue.SACRUM
    here[foramen] = Tissue.EPIDURAL_FAT


def _paint_sacral_disc(remnant: RudimentaryDisc, points: _Points, tissue: LabelArray) -> None:
    window = points.window(remnant.centre_mm, max(remnant.half_depth_mm, remnant.half_width_mm) + 2)
    if window is None:
        return
    near = _local(remnant.centre_mm, remnant.angle_deg, points, window)
    outline = _cross_section(near.u, near.w, np.float32(remnant.half_depth_mm), np.float32(remnant.half_width_mm))
    here = tissue[window]
    thick = np.float32(remnant.height_mm / 2)
    rounded = outline * outline + (near.v / (thick + 0.8)) ** 2
    here[rounded < 1.15] = Tissue.SACRAL_END_PLATE
    here[outline * outline + (near.v / thick) ** 2 < 1] = Tissue.SACRAL_DISC


def _paint_posterior_elements(body: Body, points: _Points, tissue: LabelArray) -> None:
    """Pedicles, articular masses, laminae and spinous process of one vertebra, each an ellipsoid with a dark rim."""
    window = points.window(body.centre_mm, 72)
    if window is None:
        return
    near = _local(body.centre_mm, body.angle_deg, points, window)
    half, back = body.height_mm / 2, float(np.mean(body.half_depths_mm))
    here = tissue[window]
    aside = np.abs(near.w)
    parts = (  # lateral distance, u, v; radii across, along u, along v
        (13.5, back + 3.0, 0.45 * half, 4.5, 8.0, 0.48 * half),
        (16.0, back + 14.0, 0.55 * half, 6.0, 5.0, 0.75 * half),
        (14.0, back + 17.0, -0.65 * half, 6.0, 4.5, 0.80 * half),
        (7.0, back + 19.5, -0.30 * half, 7.5, 3.4, 0.62 * half),
        (0.0, back + 33.0, -0.55 * half, 3.4, 13.5, 0.60 * half),
    )
    bone = np.zeros(here.shape, bool)
    rim = np.zeros(here.shape, bool)
    for lateral, u, v, across, along, up in parts:
        turned = near.v - np.float32(v) + (near.u - np.float32(u)) * np.float32(0.18)
        shape = ((aside - np.float32(lateral)) / np.float32(across)) ** 2 + (
            (near.u - np.float32(u)) / np.float32(along)
        ) ** 2
        shape += (turned / np.float32(up)) ** 2
        bone |= shape < 1
        rim |= shape < np.float32((1 + 1.2 / min(along, up)) ** 2)
    root = (
        (aside > 10)
        & (aside < 22)
        & ((near.u - np.float32(back + 4)) ** 2 + (near.v + np.float32(0.45 * half)) ** 2 < 6.5)
    )
    here[root & (here == Tissue.EPIDURAL_FAT)] = Tissue.ROOT
    outside_sac = (here != Tissue.CSF) & (here != Tissue.NERVE)
    here[rim & outside_sac] = Tissue.CORTEX
    here[bone & outside_sac] = Tissue.POSTERIOR_BONE


def _paint_spot(spot: Spot, points: _Points, tissue: LabelArray) -> None:
    window = points.window(spot.centre_mm, max(spot.radii_mm))
    if window is None:
        return
    here = tissue[window]
    distance = sum(
        ((axis[window] - np.float32(centre)) / np.float32(radius)) ** 2
        for axis, centre, radius in zip((points.x, points.p, points.s), spot.centre_mm, spot.radii_mm, strict=True)
    )
    inside: _Bool = np.asarray(distance < 1)
    if spot.kind in ("haemangioma", "modic"):
        kind = Tissue.HAEMANGIOMA if spot.kind == "haemangioma" else Tissue.MODIC
        here[inside & (here == Tissue.MARROW)] = kind
    elif spot.kind == "kidney":
        here[inside] = Tissue.KIDNEY
    else:
        here[np.asarray(distance < 1.3)] = Tissue.MUSCLE  # the wall
        here[inside] = Tissue.AIR if spot.kind == "gas" else Tissue.BOWEL


def _paint_disc(disc: Disc, end_plate_mm: float, points: _Points, result: TissueSlice) -> None:
    """One disc: its ligaments, its end plates (outside the disc), then the disc with nucleus, annulus and times."""
    reach = float(np.hypot(disc.half_depth_mm + max(disc.bulge_mm) + 2, disc.height_mm / 2 + 4))
    window = points.window(disc.centre_mm, max(reach, disc.half_width_mm + 2))
    if window is None:
        return
    near = _local(disc.centre_mm, disc.angle_deg, points, window)
    v = near.v - np.float32(disc.tilt) * near.w
    outline = _cross_section(near.u, near.w, np.float32(disc.half_depth_mm), np.float32(disc.half_width_mm))
    rim = np.minimum(outline, np.float32(1.2))
    half = np.float32(disc.height_mm / 2) - np.float32(disc.rim_loss_mm / 2) * rim * rim
    half -= near.u * np.float32(np.tan(np.deg2rad(disc.wedge_deg / 2)))
    if disc.waviness:
        wave = np.sin(near.u * np.float32(0.55) + near.w * np.float32(0.3) + np.float32(disc.texture_phase[0]))
        half *= 1 + np.float32(disc.waviness) * wave
    np.maximum(half, np.float32(0.28 * disc.height_mm / 2), out=half)
    u, w, sink = disc.node_mm
    if sink:
        dent = np.exp(-((near.u - np.float32(u)) ** 2 + (near.w - np.float32(w)) ** 2) / np.float32(10.0))
        half += np.float32(abs(sink)) * dent * (v * np.float32(sink) > 0)
    height = np.minimum(np.abs(v) / half, np.float32(1.5))
    side = np.clip(1 + np.float32(0.6 * disc.bulge_side) * near.w / np.float32(disc.half_width_mm), 0, 2)
    bulge = np.where(near.u < 0, np.float32(disc.bulge_mm[0]), np.float32(disc.bulge_mm[1]) * side)
    edge = np.float32(0.985) + bulge / np.float32(disc.half_depth_mm) * (1 - height**2)
    here = result.tissue[window]
    ligament = (outline < edge + np.float32(1.3 / disc.half_depth_mm)) & (height < 1.1)
    here[ligament] = Tissue.CORTEX
    plate = (outline < 1) & (np.abs(v) < half + np.float32(end_plate_mm))
    if disc.is_bone:  # a block vertebra: neither end plates nor disc
        here[(outline < 0.98) & (np.abs(v) < half + np.float32(end_plate_mm + 1.5))] = Tissue.MARROW
        return
    lower_is_sacrum = disc.level == 1
    here[plate & (v > 0)] = Tissue.END_PLATE
    here[plate & (v <= 0)] = Tissue.SACRAL_END_PLATE if lower_is_sacrum else Tissue.END_PLATE
    inside = (outline < edge) & (height < 1)
    if not inside.any():
        return
    here[inside] = Tissue.DISC
    result.level[window][inside] = disc.level
    if disc.vacuum:
        cleft = inside & (np.abs(v + 0.6) < 0.22 * half + 0.4) & (outline < 0.6) & (near.u < 3)
        here[cleft] = Tissue.VACUUM
    _set_times(disc, _Local(near.w[inside], near.u[inside], v[inside]), height[inside], inside, window, result)


def _set_times(
    disc: Disc, inner: _Local, height: _Float, inside: _Bool, window: tuple[slice, slice], result: TissueSlice
) -> None:
    """Nucleus fraction and relaxation times of the disc's samples: smooth between nucleus and annulus, fine texture."""
    depth, width = np.float32(disc.half_depth_mm), np.float32(disc.half_width_mm)
    centred = (inner.u - np.float32(disc.nucleus_offset) * depth) / (np.float32(0.62) * depth)
    aside = inner.w / (np.float32(0.64) * width)
    radial = centred * centred + aside * aside + (height / np.float32(0.92)) ** 4
    nucleus = 1 / (1 + np.exp((radial - 1) / np.float32(0.16)))
    if disc.cleft:
        nucleus = nucleus * (1 - np.float32(disc.cleft) * np.exp(-((inner.v / np.float32(0.7)) ** 2)))
    front = 1 / (1 + np.exp(inner.u / np.float32(2.0)))
    one, two, three = (np.float32(phase) for phase in disc.texture_phase)
    texture = np.sin(inner.u * np.float32(0.9) + one) * np.sin(inner.v * np.float32(1.1) + two)
    texture = 1 + np.float32(0.03) * (texture + np.sin(inner.w * np.float32(0.5) + inner.u * np.float32(0.35) + three))
    result.nucleus[window][inside] = nucleus
    for index, target in ((0, result.t1rho_ms), (1, result.t2_ms)):
        anterior, posterior = np.float32(disc.anterior_annulus_ms[index]), np.float32(disc.posterior_annulus_ms[index])
        annulus = posterior + front * (anterior - posterior)
        target[window][inside] = texture * (annulus + nucleus * (np.float32(disc.nucleus_ms[index]) - annulus))
    for change in disc.local_changes:
        share = change.share(inner.u / depth, inner.w / width, np.copysign(height, inner.v))
        result.t1rho_ms[window][inside] += share * np.float32(change.t1rho_ms)
        result.t2_ms[window][inside] += share * np.float32(change.t2_ms)
