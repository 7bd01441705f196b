"""The pictures of a subject's report: the strip of discs and visits, and how values run over time."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from processing.common_voxels import differences_from
from processing.difference_figures import draw_differences
from processing.display import QUANTITY_NAMES, REGION_NAMES
from processing.results import Level, Quantity, Region
from processing.subject_courses import Course, draw_courses
from processing.subject_strip import StripVisit, draw_strip
from service.reports.document import Picture
from service.reports.words import listed
from service.trials.history import VisitRecord
from service.trials.report_contents import ReportContents
from service.trials.report_words import state_text

#: Visits in the strip of the first page: of more than that the baseline and the newest ones.
MOST_ON_FIRST_PAGE = 7
_QUANTITIES = tuple(Quantity)


def strip_picture(contents: ReportContents, quantity: Quantity | None, visits: Sequence[VisitRecord]) -> Picture | None:
    """Five levels x visits, with the map of a quantity in colour or the images alone; None without any image."""
    columns = [_column(contents, visit, quantity) for visit in visits]
    if all(one.images is None for one in columns):
        return None
    what = "Segmented images" if quantity is None else f"{QUANTITY_NAMES[quantity]} in colour on the segmented images"
    colours = "" if quantity is None else " Colours mean the same ms everywhere."
    caption = (
        f"{what}: each disc in the slice through its middle, at one scale, outlined as measured. Grey is scaled to each"
        f" scan.{colours} Hatched: nothing to show."
    )
    description = f"Discs L1/L2 to L5/S1 from above, visits {', '.join(one.name for one in columns)} from the left."
    return _picture(draw_strip(columns, quantity), description, caption)


def _column(contents: ReportContents, visit: VisitRecord, quantity: Quantity | None) -> StripVisit:
    day = "" if visit.day is None else f"day {visit.day}"
    date = contents.day_text(visit.scan_date)
    line = date if date == day else ", ".join(part for part in (date, day) if part)
    images = contents.images.get(visit.name) if visit.is_measured else None
    absent = "no scan" if visit.state is None else "no images" if visit.is_measured else visit.state.replace("_", " ")
    without = tuple(
        (level, "not evaluable") for level in Level if quantity is not None and _is_discarded(contents, level, visit)
    )
    if not line:
        line = state_text(visit, is_over=contents.is_over(visit))
    return StripVisit(visit.name, line, images, absent, without)


def _is_discarded(contents: ReportContents, level: Level, visit: VisitRecord) -> bool:
    """Whether a person has said that the disc is not evaluable at this visit."""
    if level not in contents.history.non_evaluable:
        return False
    first, _ = contents.history.non_evaluable[level]
    names = [one.name for one in contents.history.visits]
    return first not in names or names.index(visit.name) >= names.index(first)


def courses_picture(
    contents: ReportContents, regions: Sequence[Region], quantities: Sequence[Quantity]
) -> Picture | None:
    """How the values of parts of all discs run over the visits; None where nothing is measured."""
    history = contents.history
    courses = [
        Course(
            cell.level,
            cell.quantity,
            cell.region,
            observations,
            tuple(one for one in contents.table.changes if one.cell == cell),
        )
        for quantity in quantities
        for region in regions
        for cell, observations in history.observations.items()
        if cell.quantity is quantity and cell.region is region
    ]
    if not courses:
        return None
    pixels = draw_courses(courses, [one.name for one in history.visits])
    what = listed(
        [f"{QUANTITY_NAMES[quantity]} of the {REGION_NAMES[region]}" for quantity in quantities for region in regions]
    )
    caption = (
        f"{what}, means in ms over the days. Band: within measurement error of the baseline. Orange diamond: beyond it."
        " Hollow: not judged. Cross: no value; no line is drawn across it."
    )
    return _picture(pixels, f"{what} of each disc over the visits.", caption)


def differences_picture(contents: ReportContents, quantity: Quantity) -> Picture | None:
    """Where in each disc a quantity differs from the baseline; None where no visit can be compared."""
    baseline = contents.history.plan.baseline.name
    before = next((one for one in contents.maps if one.visit == baseline and one.discs), None)
    if before is None:
        return None
    maps = differences_from(before, contents.maps, quantity)
    if not maps:
        return None
    visits = [one.name for one in contents.history.visits if one.name != baseline]
    png, width, height = draw_differences(
        quantity, visits, maps, {level: disc.regions for level, disc in before.discs.items()}
    )
    caption = (
        f"Change of {QUANTITY_NAMES[quantity]} from {baseline} in the middle slice of each atlas disc; grey lines: disc"
        " and nucleus. Below each: mean over the disc, and the share of its voxels whose change is beyond ±1.96 SD of"
        " the noise of both fits (black edges); 5 % are by chance, and registration adds to that. A picture, no test."
    )
    return Picture(png, width, height, f"Change of {QUANTITY_NAMES[quantity]} in each disc at each visit.", caption)


def measured_quantities(contents: ReportContents) -> tuple[Quantity, ...]:
    """What any visit measured, the shown one first."""
    measured = {cell.quantity for cell in contents.history.observations}
    first = contents.shown_quantity
    return tuple(one for one in (first, *(one for one in _QUANTITIES if one is not first)) if one in measured)


def _picture(pixels: npt.NDArray[np.uint8], description: str, caption: str) -> Picture:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6)
    height, width = pixels.shape[:2]
    return Picture(stream.getvalue(), width, height, description, caption)
