"""The picture of a phantom's scan: its vials outlined and named, and their maps."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle as Outline

from processing.display import QUANTITY_NAMES
from processing.results import ImageVolume, Quantity, RelaxationMap
from processing.vials import PlacedVials
from processing.volume import spacing_mm

_DPI = 150
_INK, _RIM, _ROI = "#1b2530", "#56b4e9", "#e69f00"


def draw_vials(image: ImageVolume, placed: PlacedVials, maps: dict[Quantity, RelaxationMap]) -> npt.NDArray[np.uint8]:
    """The middle slice with the vials' rims and what was measured in them, beside each map; uint8 sRGB."""
    quantities = [quantity for quantity in Quantity if quantity in maps]
    figure = Figure(figsize=(10.6, 3.9), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(quantities), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.97, top=0.9, bottom=0.03, wspace=0.12)
    index = placed.slices[len(placed.slices) // 2]
    _, row_mm, column_mm = spacing_mm(image.affine)
    rows, columns = image.array.shape[1:]
    extent = (-column_mm / 2, (columns - 0.5) * column_mm, (rows - 0.5) * row_mm, -row_mm / 2)
    shown = image.array[index]
    panels[0].imshow(shown, cmap="gray", extent=extent, vmin=0, vmax=float(np.percentile(shown, 99.5)) or 1.0)
    panels[0].set_title(f"First image, slice {index + 1} of {len(image.array)}", fontsize=10, color=_INK)
    longest_ms = [float(np.nanpercentile(one.time_ms, 99)) for one in maps.values()]
    for panel, quantity in zip(panels[1:], quantities, strict=True):
        picture = panel.imshow(
            maps[quantity].time_ms[index],
            cmap="viridis",
            extent=extent,
            vmin=0,
            vmax=max(longest_ms),
            interpolation="nearest",
        )
        panel.set_title(f"{QUANTITY_NAMES[quantity]}, ms", fontsize=10, color=_INK)
        bar = figure.colorbar(picture, ax=panel, fraction=0.045, pad=0.02)
        bar.ax.tick_params(labelsize=8)
    for panel in panels:
        _outline(panel, placed, index, panel is panels[0])
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _outline(axes: Axes, placed: PlacedVials, index: int, with_names: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    circles = [place for place in placed.places if place.slice_index == index]
    for place in circles:
        at = (place.circle.across_mm, place.circle.down_mm)
        if with_names:
            axes.add_patch(Outline(at, place.circle.radius_mm, fill=False, edgecolor=_RIM, linewidth=1.0))
            share = placed.template.roi_share
            axes.add_patch(Outline(at, place.circle.radius_mm * share, fill=False, edgecolor=_ROI, linewidth=1.0))
        axes.annotate(place.name, at, ha="center", va="center", fontsize=8, color="white" if not with_names else _INK)
    edge = 8 + max(place.circle.radius_mm for place in circles)
    down = [place.circle.down_mm for place in circles]
    across = [place.circle.across_mm for place in circles]
    axes.set_xlim(min(across) - edge, max(across) + edge)
    axes.set_ylim(max(down) + edge, min(down) - edge)
