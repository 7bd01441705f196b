"""Parametric lumbar anatomy T10-S4 of a made-up subject: what is where, before any image.

Body frame, in mm: x to the subject's left, p posterior, s superior; the origin is the centre of L3. A spinal segment
(disc, vertebral body, sacral piece) has a frame of its own in the (p, s) plane: u along its end plates (posterior
positive), v across them (superior positive). Priors: disc heights and depths from anatomical series (n = 106 and
n = 900), scaled by 0.85 because annotators leave out the dark end plates; relaxation times by Pfirrmann grade from
n = 494 discs (T2) and Blumenkrantz 2010 (T1rho); lordosis and sacral slope as usual in supine adults.
"""

from dataclasses import dataclass, replace

import numpy as np

from processing.phantom_local_change import LocalChange
from processing.phantom_variants import USUAL, Variant

#: Discs modelled from L5S1 upwards. Those past T12L1 matter only in tall fields of view.
N_DISCS = 9

_DISC_HEIGHT_MM = np.array([8.3, 9.4, 8.8, 7.9, 6.8, 6.2, 5.4, 5.0, 4.8])
_DISC_HALF_DEPTH_MM = np.array([15.9, 16.7, 16.5, 16.0, 15.6, 15.2, 14.8, 14.4, 14.0])
_DISC_HALF_WIDTH_MM = np.array([21.5, 22.3, 22.0, 21.3, 20.6, 19.8, 19.0, 18.4, 18.0])
_DISC_WEDGE_DEG = np.array([12.0, 10.0, 8.0, 6.0, 4.0, 1.0, -1.0, -2.0, -2.0])
_BODY_HEIGHT_MM = np.array([26.5, 27.0, 27.0, 26.5, 26.0, 25.0, 24.0, 23.0, 22.5])
_BODY_WEDGE_DEG = np.array([8.5, 3.0, 1.0, -1.0, -2.5, -3.0, -3.5, -3.5, -3.5])
_SACRAL_HEIGHT_MM = np.array([28.0, 23.0, 19.0, 16.0])
_SACRAL_HALF_DEPTH_MM = np.array([15.9, 11.5, 8.5, 6.5, 5.0])
_SACRAL_HALF_WIDTH_MM = np.array([25.0, 21.0, 17.0, 14.0])

# By Pfirrmann grade 1..5, in ms. Healthy nuclei have published T2 above published T1rho; physically T1rho is never the
# shorter one, so T1rho of grades 1 and 2 is set above T2.
_NUCLEUS_T2_MS = (185.0, 129.0, 84.0, 53.0, 43.0)
_NUCLEUS_T1RHO_MS = (205.0, 148.0, 106.0, 76.0, 62.0)
_ANNULUS_T2_MS = (55.0, 50.0, 45.0, 40.0, 36.0)
_ANNULUS_T1RHO_MS = (75.0, 71.0, 67.0, 62.0, 58.0)
_HEIGHT_BY_GRADE = (1.04, 1.0, 0.93, 0.80, 0.52)

# Probability of Pfirrmann grades 1..5 at L5S1, L4L5, L3L4, L2L3, L1L2 and above.
_GRADES = np.array(
    [
        [0.14, 0.30, 0.26, 0.20, 0.10],
        [0.14, 0.32, 0.28, 0.20, 0.06],
        [0.20, 0.42, 0.26, 0.10, 0.02],
        [0.24, 0.46, 0.22, 0.07, 0.01],
        [0.26, 0.48, 0.20, 0.05, 0.01],
    ]
)


@dataclass(frozen=True, slots=True)
class Disc:
    """One disc. ``centre_mm`` (x, p, s); ``angle_deg`` of its mid-plane; ``tilt`` slope of v along x."""

    level: int  # 1 = L5S1, counting up
    centre_mm: tuple[float, float, float]
    angle_deg: float
    height_mm: float
    wedge_deg: float
    half_depth_mm: float
    half_width_mm: float
    rim_loss_mm: float  # how much lower the disc is at its rim than at its centre
    bulge_mm: tuple[float, float]  # beyond the end plates: anterior, posterior
    bulge_side: float  # -1 right .. +1 left: where the posterior bulge is strongest
    tilt: float
    grade: int  # Pfirrmann 1..5
    nucleus_offset: float  # posterior shift of the nucleus, fraction of the half depth
    cleft: float  # 0..1, strength of the intranuclear cleft
    vacuum: bool
    nucleus_ms: tuple[float, float]  # T1rho, T2
    anterior_annulus_ms: tuple[float, float]
    posterior_annulus_ms: tuple[float, float]
    texture_phase: tuple[float, float, float]
    waviness: float  # relative unevenness of its height
    node_mm: tuple[float, float, float]  # Schmorl's node: u, w, depth (negative: downwards, 0: none)
    is_bone: bool = False  # fused: marrow where the disc would be
    local_changes: tuple[LocalChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """A vertebral body (``level`` = level of the disc below it) or a piece of the sacrum (``level`` 0)."""

    level: int
    centre_mm: tuple[float, float, float]
    angle_deg: float
    height_mm: float
    wedge_deg: float
    half_depths_mm: tuple[float, float]  # at the lower and the upper end plate
    half_width_mm: float
    concavity_mm: float
    waist: float  # 0..0.15, how much narrower the middle is
    tilt: float


@dataclass(frozen=True, slots=True)
class RudimentaryDisc:
    """What is left of a disc inside the sacrum; part of the sacrum for every purpose."""

    centre_mm: tuple[float, float, float]
    angle_deg: float
    height_mm: float
    half_depth_mm: float
    half_width_mm: float


@dataclass(frozen=True, slots=True)
class Spot:
    """An ellipsoid with upright axes: a bowel loop, a vertebral lesion, a kidney."""

    kind: str  # bowel, gas, haemangioma, kidney, modic
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class LumbarAnatomy:
    """One subject.

    ``canal_mm`` (points, 4): s ascending, p of the canal's centre, half depth of the sac, depth of the spine before it.
    """

    discs: tuple[Disc, ...]
    bodies: tuple[Body, ...]
    sacrum: tuple[Body, ...]
    sacral_discs: tuple[RudimentaryDisc, ...]
    canal_mm: tuple[tuple[float, float, float, float], ...]
    conus_s_mm: float
    skin_mm: float  # from the canal's centre to the skin of the back
    fat_mm: float  # subcutaneous fat of the back
    aorta_mm: tuple[float, float, float]  # x, gap to the spine, radius
    cava_mm: tuple[float, float, float]
    spots: tuple[Spot, ...]
    scoliosis_mm: float
    warp_mm: tuple[tuple[float, float, float, float], ...]  # amplitude, wavelength, phase, direction of smooth waves
    end_plate_mm: float
    muscle_fat: float  # 0..1, fatty streaks of the back muscles
    bowel: float  # 0..1, how much of the abdomen is not fat
    grain: tuple[float, ...]  # phases of the muscle and bowel pattern

    @property
    def lumbar_extent_mm(self) -> tuple[float, float]:
        """Lowest and highest s of the discs L5S1 to L1L2."""
        reaches = []
        for disc in self.discs[:5]:
            angle = np.deg2rad(disc.angle_deg)
            reach = (disc.half_depth_mm + 1) * abs(np.sin(angle)) + 0.8 * disc.height_mm * np.cos(angle)
            reaches.append((disc.centre_mm[2] - reach, disc.centre_mm[2] + reach))
        return float(min(low for low, _ in reaches)), float(max(high for _, high in reaches))

    def upper_edge_mm(self, index: int) -> float:
        """Highest s of the disc ``index`` (0 = L5S1)."""
        disc = self.discs[index]
        angle = np.deg2rad(disc.angle_deg)
        return float(disc.centre_mm[2] + disc.half_depth_mm * abs(np.sin(angle)) + disc.height_mm / 2 * np.cos(angle))

    @property
    def lumbar_middle_mm(self) -> tuple[float, float]:
        """Mean x (with the scoliosis) and p of the discs L5S1 to L1L2."""
        centres = np.array([disc.centre_mm for disc in self.discs[:5]])
        return float(self.scoliosis_mm * np.sin(centres[:, 2] * np.pi / 110).mean()), float(centres[:, 1].mean())

    @property
    def grades(self) -> tuple[int, ...]:
        """Pfirrmann grades of L5S1, L4L5, L3L4, L2L3, L1L2."""
        return tuple(disc.grade for disc in self.discs[:5])


@dataclass(frozen=True, slots=True)
class Variability:
    """How far subjects differ from the mean. 0 gives the mean itself; 1 an ordinary adult population."""

    shape: float = 1.0
    severe: float = 0.0  # added probability that a disc is of grade 5
    vacuum: float = 0.0
    healthy: bool = False
    variant: Variant = USUAL


def mean_anatomy() -> LumbarAnatomy:
    """The mean of the healthy population, deterministic: all discs Pfirrmann grade 2 and symmetric (for the atlas)."""
    return _grow(np.random.default_rng(0), Variability(shape=0.0, healthy=True))


def annulus_ratio(grade: int, other: int) -> tuple[float, float]:
    """T1rho and T2 of the annulus of discs of the Pfirrmann grade ``other`` over those of ``grade``."""
    return (
        _ANNULUS_T1RHO_MS[other - 1] / _ANNULUS_T1RHO_MS[grade - 1],
        _ANNULUS_T2_MS[other - 1] / _ANNULUS_T2_MS[grade - 1],
    )


def draw_anatomy(
    rng: np.random.Generator,
    *,
    healthy: bool = False,
    severe: float = 0.0,
    vacuum: float = 0.0,
    variant: Variant = USUAL,
) -> LumbarAnatomy:
    """A random subject.

    Args:
        rng: source of all randomness; the same state gives the same subject.
        healthy: only Pfirrmann grades 1 and 2, no slip, small bulges.
        severe: added probability that a disc is of grade 5, hence thin.
        vacuum: probability that a grade-5 disc holds gas (no signal, no measurable time).
        variant: what is there; the subject is otherwise the same.
    """
    return _grow(rng, Variability(severe=severe, vacuum=vacuum, healthy=healthy, variant=variant))


def _grow(rng: np.random.Generator, variability: Variability) -> LumbarAnatomy:
    """Stack the segments from S1 upwards and downwards, then add what surrounds them."""
    spread = variability.shape
    size = 1 + 0.045 * spread * float(np.clip(rng.standard_normal(), -1.8, 1.8))
    lordosis = 1 + 0.17 * spread * float(np.clip(rng.standard_normal(), -2, 2))
    slope_deg = 37 + 0.6 * 50 * (lordosis - 1) + 4 * spread * float(np.clip(rng.standard_normal(), -2, 2))
    discs, bodies = _column(rng, variability, size, lordosis, slope_deg)
    sacrum, sacral_discs = _sacrum(rng, variability, size, slope_deg, discs[0])
    origin = np.array(bodies[2].centre_mm)
    discs = tuple(replace(part, centre_mm=_triple(np.array(part.centre_mm) - origin)) for part in discs)
    bodies = tuple(replace(part, centre_mm=_triple(np.array(part.centre_mm) - origin)) for part in bodies)
    sacrum = tuple(replace(part, centre_mm=_triple(np.array(part.centre_mm) - origin)) for part in sacrum)
    sacral_discs = tuple(replace(part, centre_mm=_triple(np.array(part.centre_mm) - origin)) for part in sacral_discs)
    return LumbarAnatomy(
        discs=discs,
        bodies=bodies,
        sacrum=sacrum,
        sacral_discs=sacral_discs,
        canal_mm=_canal(rng, spread, size, discs, bodies, sacrum),
        conus_s_mm=float(
            bodies[variability.variant.n_lumbar - 1].centre_mm[2] + 12 * spread * np.clip(rng.standard_normal(), -2, 2)
        ),
        skin_mm=float(size * (68 + 12 * spread * rng.uniform(-1, 1))),
        fat_mm=float(14 + 9 * spread * rng.uniform(-1, 1)),
        aorta_mm=(
            9 + spread * rng.uniform(-4, 4),
            10.5 + spread * rng.uniform(-1.5, 4),
            8.5 + spread * rng.uniform(-1.5, 1.5),
        ),
        cava_mm=(
            -13 + spread * rng.uniform(-4, 4),
            10 + spread * rng.uniform(-1.5, 4),
            9.5 + spread * rng.uniform(-2, 2),
        ),
        spots=_spots(rng, spread, discs, bodies),
        scoliosis_mm=float(1.0 * spread * rng.standard_normal()),
        warp_mm=tuple(
            (0.55 * spread * rng.uniform(0.3, 1), rng.uniform(24, 60), rng.uniform(0, 2 * np.pi), rng.uniform(0, np.pi))
            for _ in range(4)
        ),
        end_plate_mm=float(1.15 + 0.3 * spread * rng.uniform(-1, 1)),
        muscle_fat=float(rng.uniform(0.05, 0.6)),
        bowel=float(rng.uniform(0.2, 0.7)),
        grain=tuple(float(phase) for phase in rng.uniform(0, 2 * np.pi, 6)),
    )


def _column(
    rng: np.random.Generator, variability: Variability, size: float, lordosis: float, slope_deg: float
) -> tuple[tuple[Disc, ...], tuple[Body, ...]]:
    """Discs and vertebral bodies from the sacral end plate (at the origin) upwards."""
    spread = variability.shape
    place, angle = np.zeros(3), slope_deg
    common_height = 1 + 0.07 * spread * float(np.clip(rng.standard_normal(), -2, 2))
    slipped = -1 if variability.healthy or rng.random() > 0.05 * spread else int(rng.integers(0, 3))
    tilts = 0.03 * spread * rng.standard_normal(N_DISCS)
    discs: list[Disc] = []
    bodies: list[Body] = []
    variant = variability.variant
    for index in range(N_DISCS):
        usual = variant.usual_segment(index)
        disc = _draw_disc(rng, variability, usual, size * common_height, size, lordosis, float(tilts[index]))
        disc = replace(disc, level=index + 1, is_bone=index + 1 == variant.missing_disc)
        middle = angle - disc.wedge_deg / 2
        discs.append(replace(disc, centre_mm=_triple(place + _across(middle) * disc.height_mm / 2), angle_deg=middle))
        place = place + _across(middle) * disc.height_mm
        angle -= disc.wedge_deg
        if index == slipped:
            place = place - _along(angle) * rng.uniform(2.5, 8.0)
        height = size * _BODY_HEIGHT_MM[usual] * (1 + 0.04 * spread * rng.standard_normal())
        height *= 0.33 if index + 1 == variant.flat_body else 1.0
        wedge = _BODY_WEDGE_DEG[usual] * lordosis + 1.2 * spread * rng.standard_normal()
        middle = angle - wedge / 2
        depth = disc.half_depth_mm * (1.0 + 0.02 * spread * rng.standard_normal())
        bodies.append(
            Body(
                level=index + 1,
                centre_mm=_triple(place + _across(middle) * height / 2),
                angle_deg=float(middle),
                height_mm=float(height),
                wedge_deg=float(wedge),
                half_depths_mm=(
                    float(depth),
                    float(depth * _DISC_HALF_DEPTH_MM[min(usual + 1, 8)] / _DISC_HALF_DEPTH_MM[usual]),
                ),
                half_width_mm=float(disc.half_width_mm * 1.01),
                concavity_mm=disc.rim_loss_mm,
                waist=float(np.clip(0.08 + 0.03 * spread * rng.standard_normal(), 0.02, 0.15)),
                tilt=float(tilts[index]),
            )
        )
        place = place + _across(middle) * height
        angle -= wedge
    return tuple(discs), tuple(bodies)


def _draw_disc(
    rng: np.random.Generator,
    variability: Variability,
    index: int,
    height_scale: float,
    size: float,
    lordosis: float,
    tilt: float,
) -> Disc:
    """The disc's own properties; it is placed by the caller."""
    spread = variability.shape
    grade = _draw_grade(rng, variability, index)
    height = (
        height_scale * _DISC_HEIGHT_MM[index] * (1 + 0.11 * spread * float(np.clip(rng.standard_normal(), -2.2, 2.2)))
    )
    height *= 1 + spread * (_HEIGHT_BY_GRADE[grade - 1] - 1) * rng.uniform(0.7, 1.25)
    depth = size * _DISC_HALF_DEPTH_MM[index] * (1 + 0.04 * spread * rng.standard_normal())
    wedge = _DISC_WEDGE_DEG[index] * lordosis + 1.5 * spread * rng.standard_normal()
    steepest = np.rad2deg(2 * np.arctan(0.42 * height / 2 / depth))  # the posterior edge keeps some height
    bulge = 0.4 + spread * (0.2 if variability.healthy else 0.45 * (grade - 1)) * rng.uniform(0, 1.3)
    scale = 1 + 0.06 * spread * rng.standard_normal(4)
    annulus = np.array([_ANNULUS_T1RHO_MS[grade - 1], _ANNULUS_T2_MS[grade - 1]])
    nucleus = np.array([_NUCLEUS_T1RHO_MS[grade - 1], _NUCLEUS_T2_MS[grade - 1]]) * scale[0]
    nucleus[0] = max(nucleus[0] * (1 + 0.04 * (scale[1] - 1)), 1.04 * nucleus[1])
    return Disc(
        level=index + 1,
        centre_mm=(0.0, 0.0, 0.0),
        angle_deg=0.0,
        height_mm=float(max(height, 2.2)),
        wedge_deg=float(np.clip(wedge, -6, steepest)),
        half_depth_mm=float(depth),
        half_width_mm=float(size * _DISC_HALF_WIDTH_MM[index] * (1 + 0.04 * spread * rng.standard_normal())),
        rim_loss_mm=float(np.clip(0.20 * height * (1 + 0.35 * spread * rng.standard_normal()), 0.0, 0.42 * height)),
        bulge_mm=(float(0.4 + 0.6 * bulge * rng.uniform(0.5, 1)), float(bulge)),
        bulge_side=float(spread * rng.uniform(-1, 1)),
        tilt=tilt,
        grade=grade,
        nucleus_offset=float(0.08 + 0.04 * spread * rng.standard_normal()),
        cleft=float(rng.uniform(0, 0.7) * spread if grade in (2, 3) else 0.0),
        vacuum=bool(grade == 5 and rng.random() < variability.vacuum),
        nucleus_ms=(float(nucleus[0]), float(nucleus[1])),
        anterior_annulus_ms=_pair(annulus * scale[2] * 0.98),
        posterior_annulus_ms=_pair(annulus * scale[3] * 1.06),
        texture_phase=_triple(rng.uniform(0, 2 * np.pi, 3)),
        waviness=float(spread * rng.uniform(0, 0.05)),
        node_mm=_draw_node(rng, spread, variability.healthy, depth),
    )


def _draw_node(rng: np.random.Generator, spread: float, healthy: bool, depth: float) -> tuple[float, float, float]:
    """A Schmorl's node in one disc of eight: where disc tissue sinks into a vertebra."""
    u, w, size, chance = rng.uniform(-0.5, 0.6) * depth, rng.uniform(-10, 10), rng.uniform(1.5, 4.5), rng.random()
    up = rng.random() < 0.5
    if spread == 0 or healthy or chance > 0.12:
        return 0.0, 0.0, 0.0
    return float(u), float(w), float(size if up else -size)


def _draw_grade(rng: np.random.Generator, variability: Variability, index: int) -> int:
    """A Pfirrmann grade; the stream of random numbers is used up equally in every case."""
    chance = rng.random(2)
    if variability.shape == 0:
        return 2
    if variability.healthy:
        return 1 if chance[0] < 0.5 else 2
    if chance[1] < variability.severe:
        return 5
    return 1 + int(np.searchsorted(np.cumsum(_GRADES[min(index, 4)])[:-1], chance[0]))


def _sacrum(
    rng: np.random.Generator, variability: Variability, size: float, slope_deg: float, lowest: Disc
) -> tuple[tuple[Body, ...], tuple[RudimentaryDisc, ...]]:
    """S1 to S4 from the sacral end plate (at the origin) downwards, with what is left of their discs."""
    spread = variability.shape
    place, angle = np.zeros(3), slope_deg
    pieces: list[Body] = []
    discs: list[RudimentaryDisc] = []
    kyphosis = 8 + 3 * spread * rng.standard_normal()
    visible = 0.75 if spread else 1.0  # at least 60 % of real sacra show an S1/S2 disc
    depth_scale = lowest.half_depth_mm / _SACRAL_HALF_DEPTH_MM[0]
    for index, height in enumerate(_SACRAL_HEIGHT_MM * size * (1 + 0.04 * spread * rng.standard_normal(4))):
        depth = float(_SACRAL_HALF_DEPTH_MM[index] * depth_scale)
        below = float(_SACRAL_HALF_DEPTH_MM[index + 1] * depth_scale)
        pieces.append(
            Body(
                level=0,
                centre_mm=_triple(place - _across(angle) * height / 2),
                angle_deg=float(angle),
                height_mm=float(height),
                wedge_deg=0.0,
                half_depths_mm=(below, depth),
                half_width_mm=float(_SACRAL_HALF_WIDTH_MM[index] * size),
                concavity_mm=lowest.rim_loss_mm if index == 0 else 0.0,
                waist=0.02,
                tilt=0.0,
            )
        )
        place = place - _across(angle) * height
        gap = float((3.6 if index == 0 else 1.8) * (1 + 0.3 * spread * rng.uniform(-1, 1)))
        half_depth = below * rng.uniform(0.5, 0.8) if spread else below * 0.65
        seen = rng.random() < (visible if index == 0 else 0.5)
        bend = max(kyphosis + 3 * spread * rng.standard_normal(), 2.0)
        half_width = 14.0 * size
        if index == 0 and variability.variant.lumbarised_s1:
            seen, gap, half_depth, half_width = True, 2.0 * gap, 0.95 * below, 19.0 * size
        if seen and index < 3:
            centre = place - _across(angle + bend / 2) * gap / 2
            discs.append(RudimentaryDisc(_triple(centre), float(angle + bend / 2), gap, float(half_depth), half_width))
        place = place - _across(angle + bend / 2) * gap
        angle = min(angle + bend, 84.0)
    return tuple(pieces), tuple(discs)


def _canal(
    rng: np.random.Generator,
    spread: float,
    size: float,
    discs: tuple[Disc, ...],
    bodies: tuple[Body, ...],
    sacrum: tuple[Body, ...],
) -> tuple[tuple[float, float, float, float], ...]:
    """Course of the spinal canal behind the segments: (s, p, half depth of the sac, depth of the spine in front)."""
    sac = size * (7.0 + 0.9 * spread * float(np.clip(rng.standard_normal(), -1.8, 1.8)))
    rows = []
    for index, piece in enumerate(reversed(sacrum)):
        half = 0.5 * (piece.half_depths_mm[0] + piece.half_depths_mm[1])
        radius = sac * (0.0, 0.15, 0.45, 0.8)[index]
        rows.append(_behind(piece.centre_mm, piece.angle_deg, half, radius + 2.5, radius))
    for disc, body in zip(discs, bodies, strict=True):
        stenosis = 0.5 * max(disc.bulge_mm[1] - 1.0, 0.0)
        rows.append(_behind(disc.centre_mm, disc.angle_deg, disc.half_depth_mm, sac + 2.2 + stenosis, sac - stenosis))
        rows.append(_behind(body.centre_mm, body.angle_deg, sum(body.half_depths_mm) / 2, sac + 2.2, sac))
    ordered = sorted(rows)
    return tuple(ordered)


def _behind(
    centre: tuple[float, float, float], angle_deg: float, half_depth: float, gap: float, radius: float
) -> tuple[float, float, float, float]:
    point = np.array(centre) + _along(angle_deg) * (half_depth + gap)
    return float(point[2]), float(point[1]), float(radius), float(2 * half_depth + gap)


def _spots(
    rng: np.random.Generator, spread: float, discs: tuple[Disc, ...], bodies: tuple[Body, ...]
) -> tuple[Spot, ...]:
    """Bowel in front, the left kidney, a right-sided vertebral haemangioma, Modic changes beside degenerated discs."""
    kidney = np.array([50.0, -8.0, bodies[3].centre_mm[2] - bodies[2].centre_mm[2] + 10])
    spots = [Spot("kidney", _triple(kidney), (26.0, 24.0, 50.0))]
    marked = bodies[2 if not spread else int(rng.integers(0, 5))]
    lesion = np.array(marked.centre_mm) - np.array(bodies[2].centre_mm) + np.array([-9.0, -2.0, 3.0])
    spots.append(
        Spot(
            "haemangioma", _triple(lesion), _triple(np.array([5.5, 5.0, 5.0]) * (1 + 0.3 * spread * rng.uniform(-1, 1)))
        )
    )
    front = np.array(bodies[2].centre_mm)
    for _ in range(14):
        near = bodies[int(rng.integers(0, 6))] if rng.random() < 0.8 else bodies[0]
        centre = np.array(near.centre_mm) - front
        shift = np.array(
            [rng.uniform(-40, 40), -sum(near.half_depths_mm) / 2 - rng.uniform(18, 75), rng.uniform(-40, 20)]
        )
        kind = "gas" if rng.random() < 0.25 else "bowel"
        spots.append(Spot(kind, _triple(centre + shift), _triple(rng.uniform(5, 15, 3))))
    for disc in discs[:6]:
        if disc.grade >= 4 and rng.random() < 0.4:
            side = 1 if rng.random() < 0.5 else -1
            centre = np.array(disc.centre_mm) - front + _across(disc.angle_deg) * side * (disc.height_mm / 2 + 4)
            spots.append(Spot("modic", _triple(centre), (12.0, float(rng.uniform(6, 14)), float(rng.uniform(3, 7)))))
    return tuple(spots)


def _along(angle_deg: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Unit vector (x, p, s) along an end plate, to posterior."""
    angle = np.deg2rad(angle_deg)
    return np.array([0.0, np.cos(angle), np.sin(angle)])


def _across(angle_deg: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Unit vector (x, p, s) across an end plate, upwards."""
    angle = np.deg2rad(angle_deg)
    return np.array([0.0, -np.sin(angle), np.cos(angle)])


def _triple(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _pair(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    first, second = (float(value) for value in values)
    return first, second
