"""The tables of a subject's report: visits, primary cells, all changes, slopes, acquisition, quality."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import LUMBAR_LEVELS, Quantity, Region
from processing.visits import Acquisition, Cell, Change
from service.reports.document import Column, Row, Table
from service.reports.words import NONE, listed, number
from service.trials.history import VisitRecord
from service.trials.report_contents import ReportContents
from service.trials.report_words import (
    MARKS_NOTE,
    cell_name,
    change_text,
    limits_text,
    signed,
    state_text,
)

_FROM_ABOVE = tuple(reversed(LUMBAR_LEVELS))
_REGIONS = (Region.NUCLEUS, Region.WHOLE_DISC, Region.ANTERIOR_ANNULUS, Region.POSTERIOR_ANNULUS)
_VISITS_ACROSS = 6  # of a table with a column for each
_VISITS_BESIDE = 3  # of a table of changes, as many as fit on a sheet


def visit_table(contents: ReportContents) -> Table:
    """When each visit was to come, when it came, and what became of it."""
    rows = []
    for visit in contents.history.visits:
        clock = visit.scanned_at.strftime("%H:%M") if visit.scanned_at else NONE
        hard = [one for one in visit.differences if one.hard]
        deviations = f"{len(visit.differences)}" + (f" ({len(hard)} hard)" if hard else "")
        cells = (
            contents.window_text(visit),
            contents.day_text(visit.scan_date) or NONE,
            NONE if visit.day is None else f"{visit.day}",
            clock,
            deviations if visit.scan_date else NONE,
            state_text(visit, is_over=contents.is_over(visit)),
        )
        rows.append(Row(visit.name, cells))
    columns = (
        Column("visit"),
        Column("planned", is_text=True),
        Column("scanned"),
        Column("day"),
        Column("clock"),
        Column("deviations"),
        Column("state", is_text=True),
    )
    return Table("Visits", columns, tuple(rows))


def primary_table(contents: ReportContents) -> Table | None:
    """The cells that were declared in advance; None where none is, or none may be named."""
    shown = [one for one in contents.table.changes if one.is_primary]
    if not shown:
        return None
    columns = (
        *(Column(name) for name in ("visit", "baseline", "value", "change", "change %", "limits")),
        Column("verdict", is_text=True),
    )
    rows = [
        Row(
            cell_name(one.cell),
            (
                one.visit,
                number(one.baseline_ms, 1),
                number(one.value_ms, 1),
                signed(one.delta_ms),
                signed(one.delta_percent),
                limits_text(one),
                one.verdict.value,
            ),
        )
        for one in shown
    ]
    bases = dict.fromkeys(one.basis for one in shown if one.basis)
    return Table(
        "Declared in advance: primary cells (ms)",
        (Column("cell"), *columns),
        tuple(rows),
        f"Basis of the limits: {'; '.join(bases)}." if bases else "",
    )


def change_tables(contents: ReportContents, quantity: Quantity) -> Iterator[Table]:
    """Every cell of a quantity: baseline, and value, change and limits of each later visit; a few visits in a table."""
    history = contents.history
    changes = {(one.cell, one.visit): one for one in contents.table.changes}
    later = [one for one in history.visits if one is not history.baseline and one.state is not None]
    absent = [one.name for one in history.visits if one.state is None and one is not history.baseline]
    kind = "all exploratory" if not any(one.is_primary for one in changes.values()) else "primary (*) and exploratory"
    note = f"{MARKS_NOTE} No scan: {listed(absent)}." if absent else MARKS_NOTE
    for first in range(0, len(later), _VISITS_BESIDE):
        visits = later[first : first + _VISITS_BESIDE]
        columns = [Column("disc"), Column("baseline")]
        for visit in visits:
            day = f", day {visit.day}" if visit.day is not None else ""
            group = f"{visit.name}{day}"
            columns += [Column(name, group) for name in ("value", "change", "limits")]
        rows = []
        for region in _REGIONS:
            for level in _FROM_ABOVE:
                cell = Cell(level, region, quantity)
                if cell in history.observations:
                    own = [changes.get((cell, visit.name)) for visit in visits]
                    rows.append(_change_row(cell, own))
        yield Table(f"{QUANTITY_NAMES[quantity]} in ms: {kind}", tuple(columns), tuple(rows), note, is_dense=True)


def _change_row(cell: Cell, changes: Sequence[Change | None]) -> Row:
    baseline = next((one.baseline_ms for one in changes if one is not None and one.baseline_ms is not None), None)
    cells = [number(baseline, 1)]
    for one in changes:
        if one is None:
            cells += [NONE, NONE, ""]
            continue
        star = "*" if one.is_primary else ""
        limits = "" if one.lower_limit_ms is None else f"{signed(one.lower_limit_ms)} {signed(one.upper_limit_ms)}"
        cells += [number(one.value_ms, 1), f"{change_text(one)}{star}", limits]
    return Row(f"{LEVEL_NAMES[cell.level]} {REGION_NAMES[cell.region]}", tuple(cells))


def slope_table(contents: ReportContents) -> Table | None:
    """The slope over all comparable visits of nuclei and whole discs; None with fewer than two visits."""
    shown = [one for one in contents.table.slopes if one.cell.region in (Region.NUCLEUS, Region.WHOLE_DISC)]
    if not shown:
        return None
    found = {one.cell: one for one in shown}
    kinds = [
        (quantity, region)
        for quantity in Quantity
        for region in (Region.NUCLEUS, Region.WHOLE_DISC)
        if any((one.cell.quantity, one.cell.region) == (quantity, region) for one in shown)
    ]
    columns = [Column("disc")]
    for quantity, region in kinds:
        group = f"{QUANTITY_NAMES[quantity]}, {REGION_NAMES[region]}"
        columns += [Column("slope ± SE", group), Column("limits", group)]
    rows = []
    for level in _FROM_ABOVE:
        cells = []
        for quantity, region in kinds:
            one = found.get(Cell(level, region, quantity))
            if one is None:
                cells += [NONE, ""]
                continue
            mark = {"increase": " ▲", "decrease": " ▼"}.get(one.verdict.value.partition(" ")[0], "")
            cells.append(f"{signed(one.ms_per_year)} ± {one.standard_error_ms_per_year:.1f}{mark}")
            cells.append(f"{signed(one.lower_limit_ms_per_year)} {signed(one.upper_limit_ms_per_year)}")
        rows.append(Row(LEVEL_NAMES[level], tuple(cells)))
    note = "A straight line through the comparable visits; SE from the precision of a single measurement. ▲ ▼ as above."
    return Table("Slope over all visits (ms per year)", tuple(columns), tuple(rows), note)


def control_table(contents: ReportContents) -> Table | None:
    """The treated level against the mean of the others; None where the treated level may not be shown."""
    if not contents.table.controls:
        return None
    rows = [
        Row(
            f"{QUANTITY_NAMES[one.quantity]}, {REGION_NAMES[one.region]}, {one.visit}",
            (
                LEVEL_NAMES[one.treated],
                signed(one.treated_delta_ms),
                signed(one.untreated_mean_delta_ms),
                signed(one.difference_ms),
                f"{signed(one.lower_limit_ms)} to {signed(one.upper_limit_ms)}",
                one.verdict.value,
            ),
        )
        for one in contents.table.controls
        if one.region in (Region.NUCLEUS, Region.WHOLE_DISC)
    ]
    names = ("treated level", "its change", "mean of the others", "difference", "limits")
    return Table(
        "Untreated levels as control (ms)",
        (Column("cell"), *(Column(name) for name in names), Column("verdict", is_text=True)),
        tuple(rows),
        "What moves all discs (hour of the day, hydration, scanner, coil) cancels in the difference.",
        is_dense=True,
    )


_Show = Callable[[Acquisition], str]


def _numbers(values: Sequence[float] | None, digits: int = 4) -> str:
    return ", ".join(f"{value:.{digits}g}" for value in values) if values else ""


def _one(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.5g} {unit}"


def _field_of_view(one: Acquisition) -> str:
    if one.matrix is None or one.pixel_spacing_mm is None:
        return ""
    tall, wide = (count * mm for count, mm in zip(one.matrix, one.pixel_spacing_mm, strict=True))
    return f"{tall:.0f} × {wide:.0f} mm"


def _clock(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%H:%M")


def _orientation(one: Acquisition) -> str:
    if one.slice_normal is None:
        return ""
    return ", ".join(f"{value:z.2f}".replace("-", "−") for value in one.slice_normal)


#: Name of the row, the differences that mark it, and how a value is shown.
_EQUALITY: tuple[tuple[str, tuple[str, ...], _Show], ...] = (
    ("Spin-lock times (ms)", ("t1rho_times_ms",), lambda one: _numbers(one.t1rho_times_ms)),
    ("T2 preparation times (ms)", ("t2_times_ms",), lambda one: _numbers(one.t2_times_ms)),
    ("Spin-lock frequency", ("spin_lock_hz",), lambda one: _one(one.spin_lock_hz, "Hz")),
    ("Protocol card", ("protocol",), lambda one: one.protocol),
    ("Scanner", ("manufacturer", "model"), lambda one: f"{one.manufacturer} {one.model}".strip()),
    ("Field strength", ("field_strength_t",), lambda one: _one(one.field_strength_t, "T")),
    ("Serial number", ("device_serial",), lambda one: one.device_serial),
    ("Software", ("software_versions",), lambda one: one.software_versions),
    ("Receive coil", ("receive_coil",), lambda one: one.receive_coil),
    ("Field of view", ("field_of_view_mm", "fov", "field_of_view"), _field_of_view),
    ("Matrix", ("matrix",), lambda one: "" if one.matrix is None else f"{one.matrix[0]} × {one.matrix[1]}"),
    ("Pixel (mm)", ("pixel_spacing_mm",), lambda one: _numbers(one.pixel_spacing_mm)),
    ("Slice thickness", ("slice_thickness_mm",), lambda one: _one(one.slice_thickness_mm, "mm")),
    ("Slice spacing", ("slice_spacing_mm",), lambda one: _one(one.slice_spacing_mm, "mm")),
    ("Slices", ("n_slices",), lambda one: "" if one.n_slices is None else f"{one.n_slices}"),
    ("Slice normal (LPS)", ("slice_normal", "tilt", "orientation"), _orientation),
    ("TR", ("repetition_time_ms",), lambda one: _one(one.repetition_time_ms, "ms")),
    ("Bandwidth per pixel", ("pixel_bandwidth_hz",), lambda one: _one(one.pixel_bandwidth_hz, "Hz")),
    ("Clock time", ("acquired_at", "time_of_day"), lambda one: _clock(one.acquired_at)),
)
NOT_KNOWN = "not known"


def acquisition_tables(contents: ReportContents) -> Iterator[Table]:
    """How each visit was acquired, cells that differ from the baseline marked; none where no result tells."""
    known = [one for one in contents.history.visits if one.acquisition is not None]
    for shown in beside(known):
        yield _acquisition_table(shown)


def beside(visits: Sequence[VisitRecord]) -> Iterator[Sequence[VisitRecord]]:
    """As many visits at once as fit beside each other."""
    for first in range(0, len(visits), _VISITS_ACROSS):
        yield visits[first : first + _VISITS_ACROSS]


def _acquisition_table(shown: Sequence[VisitRecord]) -> Table:
    rows = []
    for name, what, show in _EQUALITY:
        cells = [_equality_cell(visit, what, show) for visit in shown]
        rows.append(Row(name, tuple(cells)))
    columns = (Column("acquisition"), *(Column(visit.name) for visit in shown))
    note = (
        "≠ differs from the baseline: noted, and the limits may be wider. ✕ differs so that no change is judged. What a"
        " header does not tell is not known, and is never taken for equal."
    )
    return Table("Acquisition, compared with the baseline", columns, tuple(rows), note, is_dense=True)


def _equality_cell(visit: VisitRecord, what: Sequence[str], show: _Show) -> str:
    assert visit.acquisition is not None
    text = show(visit.acquisition) or NOT_KNOWN
    own = [one for one in visit.differences if one.what in what]
    if not own:
        return text
    return f"{'✕' if any(one.hard for one in own) else '≠'} {text}"


def quality_tables(contents: ReportContents) -> Iterator[Table]:
    """Numbers that tell how far each visit can be trusted; none where nothing is measured."""
    for shown in beside([one for one in contents.history.visits if one.result is not None]):
        yield _quality_table(contents, shown)


def _quality_table(contents: ReportContents, shown: Sequence[VisitRecord]) -> Table:
    results: list[Mapping[str, Any]] = [one.result or {} for one in shown]
    rows = [
        Row("Result of the exam", tuple(str(one.get("status", "")).replace("_", " ") for one in results)),
        Row("Largest motion between images (mm)", tuple(_motion(one) for one in results)),
        Row("Voxels without a value, T1ρ (%)", tuple(_excluded(one, "t1rho_ms") for one in results)),
        Row("Voxels without a value, T2 (%)", tuple(_excluded(one, "t2_ms") for one in results)),
        Row("Lowest Dice with the atlas disc", tuple(_extreme(one, "registration", "dice", min) for one in results)),
        Row("Largest SD of det J", tuple(_extreme(one, "registration", "sd_jacobian", max) for one in results)),
        Row("Lowest det J", tuple(_extreme(one, "registration", "min_jacobian", min) for one in results)),
        Row(
            "Lowest Dice among the networks",
            tuple(_extreme(one, "segmentation", "member_dice", min) for one in results),
        ),
        Row("Lowest Dice with the visit before", tuple(_dice_before(contents, one) for one in shown)),
        Row("QC phantom of the scanner", tuple(_phantom(contents, one) for one in shown)),
    ]
    note = "The disc that a lowest or largest value is of stands in brackets."
    columns = (Column("quality"), *(Column(one.name) for one in shown))
    return Table("Quality", columns, tuple(rows), note, is_dense=True)


def _motion(result: Mapping[str, Any]) -> str:
    found = [one for one in result.get("motion", ()) if one.get("displacement_mm") is not None]
    if not found:
        return NONE
    largest = max(found, key=lambda one: float(one["displacement_mm"]))
    return f"{largest['displacement_mm']:.1f}{' (corrected)' if largest.get('corrected') else ''}"


def _excluded(result: Mapping[str, Any], key: str) -> str:
    own = [one[key] for one in result.get("discs", ()) if one.get(key)]
    n, n_excluded = sum(int(one["n"]) for one in own), sum(int(one["n_excluded"]) for one in own)
    return f"{100 * n_excluded / (n + n_excluded):.1f}" if n + n_excluded else NONE


def _extreme(result: Mapping[str, Any], part: str, key: str, choose: Callable[..., Any]) -> str:
    levels = {one.name: name for one, name in LEVEL_NAMES.items()}
    found = [
        (float(one[part][key]), levels[one["level"]])
        for one in result.get("discs", ())
        if one.get(part) and one[part].get(key) is not None
    ]
    if not found:
        return NONE
    value, level = choose(found)
    return f"{value:.2f} ({level})"


def _dice_before(contents: ReportContents, visit: VisitRecord) -> str:
    known = contents.quality.get(visit.name)
    if known is None or not known.dice_before:
        return NONE
    level, value = min(known.dice_before.items(), key=lambda one: one[1])
    return f"{value:.2f} ({LEVEL_NAMES[level]})"


def _phantom(contents: ReportContents, visit: VisitRecord) -> str:
    known = contents.quality.get(visit.name)
    return known.phantom.removeprefix("QC phantom ") if known is not None and known.phantom else NOT_KNOWN
