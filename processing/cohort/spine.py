"""The spine that maps are shown on: the vertebrae of the mean anatomy, cut where the map lies, in parallel projection.

The surface is found by casting rays through a volume of bone; nothing but numpy and scipy is needed, on any machine.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.cohort.design import FloatArray
from processing.phantom_anatomy import mean_anatomy
from processing.phantom_tissue import Tissue, rasterise_volume
from processing.results import LUMBAR_LEVELS, Level

_BONE = (
    *(Tissue.MARROW, Tissue.END_PLATE, Tissue.VEIN, Tissue.SACRUM),
    *(Tissue.SACRAL_END_PLATE, Tissue.SACRAL_DISC, Tissue.POSTERIOR_BONE),
)
_VOXEL_MM = 1.0
_HALF_WIDTH_MM = 34.0
_MARGIN_MM = 26.0
_BEHIND_MM = 52.0
_CUT_TONE, _SURFACE_TONE = 0.90, 0.80


@dataclass(frozen=True, slots=True, eq=False)
class SpineView:
    """A picture of the cut spine. ``grey`` (rows, columns) 0..1, NaN where nothing is; rows to inferior.

    ``extent_mm``: left, right, bottom, top of the picture in the plane of projection.
    """

    grey: FloatArray
    extent_mm: tuple[float, float, float, float]
    yaw_deg: float
    cut_x_mm: float

    def project(self, points: FloatArray) -> FloatArray:
        """Points (..., 3) of the body frame (left, posterior, superior; mm) -> (..., 2) across and up, mm."""
        yaw = math.radians(self.yaw_deg)
        across = points[..., 1] * math.cos(yaw) - points[..., 0] * math.sin(yaw)
        return np.stack([across, points[..., 2]], axis=-1)

    def on_disc(self, level: Level, local_mm: FloatArray) -> FloatArray:
        """Points of a level's grid, (..., 2) mm inferior and posterior of the disc's middle, on the cut; projected."""
        disc = mean_anatomy().discs[level.value - 1]
        angle = math.radians(disc.angle_deg)
        posterior = np.array([0.0, math.cos(angle), math.sin(angle)])
        inferior = np.array([0.0, math.sin(angle), -math.cos(angle)])
        at = np.array(disc.centre_mm) + local_mm[..., :1] * inferior + local_mm[..., 1:] * posterior
        at[..., 0] = self.cut_x_mm
        return self.project(at)


@cache
def spine_view(yaw_deg: float = 18.0, mm_per_pixel: float = 0.6) -> SpineView:
    """The right half of the spine, seen from the left and turned by ``yaw_deg`` so that its depth is seen."""
    bone, origin = _bone()
    yaw = math.radians(yaw_deg)
    towards = np.array([math.cos(yaw), math.sin(yaw), 0.0])  # to the viewer: left, a little posterior
    across = np.array([-math.sin(yaw), math.cos(yaw), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    high = np.array(bone.shape) * _VOXEL_MM + origin
    corners = np.array(np.meshgrid(*zip(origin, high, strict=True), indexing="ij")).reshape(3, -1).T
    left, right = (corners @ across).min(), (corners @ across).max()
    bottom, top = origin[2], high[2]
    columns = np.arange(left, right, mm_per_pixel)
    rows = np.arange(top, bottom, -mm_per_pixel)
    far, near = (corners @ towards).min(), (corners @ towards).max()
    start: FloatArray = rows[:, None, None] * up + columns[None, :, None] * across  # + depth * towards
    grey = np.full((len(rows), len(columns)), np.nan)
    depth_mm = np.full(grey.shape, np.nan)
    for depth in np.arange(near, far, -_VOXEL_MM):
        open_rays = np.isnan(depth_mm)
        inside = _sample(bone, origin, start[open_rays] + depth * towards) >= 0.5
        places = np.argwhere(open_rays)[inside]
        depth_mm[places[:, 0], places[:, 1]] = depth
    hit = np.isfinite(depth_mm)
    at: FloatArray = start[hit] + depth_mm[hit][:, None] * towards
    cut = at[:, 0] >= -1.2 * _VOXEL_MM
    normals = np.stack([-_sample(np.asarray(one), origin, at) for one in np.gradient(bone)], axis=-1)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    light: FloatArray = towards + 0.5 * up - 0.25 * across
    shade = np.clip(normals @ (light / np.linalg.norm(light)), 0, 1)
    grey[hit] = np.where(cut, _CUT_TONE, _SURFACE_TONE * (0.35 + 0.65 * shade))
    return SpineView(grey, (float(left), float(right), float(bottom), float(top)), yaw_deg, 0.0)


def _bone() -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Share of bone on a grid (x, p, s) whose left face is the cut; the grid's corner in mm."""
    anatomy = mean_anatomy()
    discs = [anatomy.discs[level.value - 1] for level in LUMBAR_LEVELS]
    centres = np.array([disc.centre_mm for disc in discs])
    low = np.array([-_HALF_WIDTH_MM, centres[:, 1].min() - 28, centres[:, 2].min() - 42])
    high = np.array([0.0, centres[:, 1].max() + _BEHIND_MM, centres[:, 2].max() + _MARGIN_MM])
    shape = np.ceil((high - low) / _VOXEL_MM).astype(int)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        np.array([_VOXEL_MM, 0, 0]),
        np.array([0, 0, _VOXEL_MM]),
        np.array([0, _VOXEL_MM, 0]),
    )
    affine[:3, 3] = low + _VOXEL_MM / 2
    slices = rasterise_volume(anatomy, affine, (int(shape[0]), int(shape[2]), int(shape[1])))
    bone = np.stack([np.isin(one.tissue, _BONE) & (one.level == 0) for one in slices])  # (x, s, p)
    smooth = ndimage.gaussian_filter(bone.transpose(0, 2, 1).astype(np.float64), 0.9, mode="nearest")
    return smooth, low


def _sample(volume: FloatArray, origin: npt.NDArray[np.float64], points: FloatArray) -> FloatArray:
    index = (points - origin) / _VOXEL_MM - 0.5
    # Just left of the cut there is nothing, though the grid ends there.
    outside = (index < -0.5).any(axis=-1) | (index > np.array(volume.shape) - 0.5).any(axis=-1)
    values: FloatArray = ndimage.map_coordinates(volume, index.T, order=1, mode="nearest")
    return np.where(outside, 0.0, values)
