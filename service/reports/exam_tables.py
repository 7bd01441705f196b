"""The tables of the exam report: five discs and their parts; segmentation, registration and echoes."""

from collections.abc import Sequence

from processing.display import LEVEL_COLOURS, LEVEL_NAMES, QUANTITY_NAMES
from processing.measurements import measured_levels
from processing.results import LUMBAR_LEVELS, DiscConfidence, DiscMeasurement, ExamResult, Level, Quantity, Region
from service.reports.document import Column, Row, Table
from service.reports.words import EXCLUSIONS, NONE, count, mean_and_sd, number, percent, region_heading

_PARTS = (Region.NUCLEUS, Region.ANTERIOR_ANNULUS, Region.POSTERIOR_ANNULUS)


def quantities_of(result: ExamResult) -> tuple[Quantity, ...]:
    """What was measured, T1rho first."""
    return tuple(quantity for quantity in Quantity if quantity in result.maps)


#: The discs that are measured, from above, as the pictures show them.
FROM_ABOVE = tuple(reversed(LUMBAR_LEVELS))


def disc_table(result: ExamResult) -> Table:
    """Whole discs: mean ± SD, median, voxels and excluded share of each quantity, and the volume.

    A disc that was not found has a row of dashes: it must not be overlooked.
    """
    rows_by_place = _by_place(result.measurements)
    has_members = any(row.n_members is not None for row in result.measurements)
    columns = [Column("disc")]
    for quantity in quantities_of(result):
        names = ["mean ± SD", *(["networks ±"] if has_members else []), "median", "voxels", "excl. %"]
        columns += [Column(name, f"{QUANTITY_NAMES[quantity]} (ms)") for name in names]
    columns.append(Column("cm³", "volume"))
    rows = []
    for level in FROM_ABOVE:
        cells: list[str] = []
        for quantity in quantities_of(result):
            cells += _whole(rows_by_place.get((level, Region.WHOLE_DISC, quantity)), has_members)
        volume_mm3 = result.volumes_mm3.get(level)
        cells.append(number(None if volume_mm3 is None else volume_mm3 / 1000, 2))
        rows.append(_row(level, cells))
    note = "Over all voxels of the disc that have a value, in the patient's own images; SD over voxels."
    if has_members:
        note += " Networks ±: SD of the mean over the single networks' outlines."
    if not quantities_of(result):
        note = "This exam has no images at several times: volumes only."
    if any(level not in result.volumes_mm3 for level in FROM_ABOVE):
        note += " A dash: not found, or without a value."
    return Table("Whole discs", tuple(columns), tuple(rows), note)


def _whole(row: DiscMeasurement | None, has_members: bool) -> list[str]:
    if row is None:
        return [NONE] * (5 if has_members else 4)
    return [
        mean_and_sd(row.mean_ms, row.sd_ms),
        *([number(row.member_sd_ms, 2)] if has_members else []),
        number(row.median_ms, 1),
        f"{row.n:,}",
        percent(row.n_excluded, row.n + row.n_excluded),
    ]


def part_table(result: ExamResult) -> Table | None:
    """Nucleus and annuli: mean ± SD of each quantity, in atlas space; None where no disc has parts."""
    rows_by_place = _by_place(result.measurements)
    if not any(region in _PARTS for _, region, _ in rows_by_place):
        return None
    columns = [Column("disc")]
    for quantity in quantities_of(result):
        columns += [Column(region_heading(region), f"{QUANTITY_NAMES[quantity]} (ms), mean ± SD") for region in _PARTS]
    rows = []
    for level in FROM_ABOVE:
        places = [(level, region, quantity) for quantity in quantities_of(result) for region in _PARTS]
        found = [rows_by_place.get(place) for place in places]
        rows.append(_row(level, [NONE if one is None else mean_and_sd(one.mean_ms, one.sd_ms) for one in found]))
    note = "Parts as the level atlas divides the disc, on maps fitted in atlas space."
    return Table("Parts of the discs", tuple(columns), tuple(rows), note)


def excluded_lines(result: ExamResult) -> tuple[str, ...]:
    """One line for each quantity: how many voxels of the whole discs have no value, why, and where most."""
    lines = []
    for quantity in quantities_of(result):
        rows = [row for row in result.measurements if (row.region, row.quantity) == (Region.WHOLE_DISC, quantity)]
        n_excluded, n_all = sum(row.n_excluded for row in rows), sum(row.n + row.n_excluded for row in rows)
        name = QUANTITY_NAMES[quantity]
        if not n_excluded:
            lines.append(f"{name}: all {count(n_all, 'voxel', 'voxels')} of the discs have a value.")
            continue
        whys: dict[str, int] = {}
        for row in rows:
            for why, n in row.excluded.items():
                whys[why] = whys.get(why, 0) + n
        reasons = ", ".join(f"{n:,} {EXCLUSIONS[why]}" for why, n in sorted(whys.items(), key=lambda one: -one[1]))
        most = max(rows, key=lambda row: row.n_excluded / max(1, row.n + row.n_excluded))
        lines.append(
            f"{name}: {n_excluded:,} of {count(n_all, 'voxel', 'voxels')} of the discs ({percent(n_excluded, n_all)} %)"
            f" have no value: {reasons}. Most in {LEVEL_NAMES[most.level]}"
            f" ({percent(most.n_excluded, most.n + most.n_excluded)} %)."
        )
    return tuple(lines)


def segmentation_table(result: ExamResult) -> Table | None:
    """How sure the networks are of each disc; None of a mask that no network made."""
    confidence = {one.level: one for one in result.mask.confidence} if result.mask is not None else {}
    found = [level for level in FROM_ABOVE if level in confidence]
    if not found:
        return None
    has_members = any(one.member_dice is not None for one in confidence.values())
    names = ["disc", "probability", "edge entropy"]
    names += ["Dice between networks", "networks that see it", "volume SD (cm³)"] if has_members else []
    names += ["cut by the image's edge"]
    rows = [_row(level, _sure(confidence[level], has_members)) for level in found]
    note = "Probability: mean within the disc. Edge entropy: 0 certain, 1 undecided, around the outline."
    return Table("Segmentation", tuple(Column(name) for name in names), tuple(rows), note)


def _sure(one: DiscConfidence, has_members: bool) -> list[str]:
    cells = [number(one.mean_probability, 2), number(one.ring_entropy, 2)]
    if has_members:
        volume_sd_mm3 = one.member_volume_sd_mm3
        cells += [number(one.member_dice, 2), f"{one.n_members_with_disc} of {one.n_members}"]
        cells.append(number(None if volume_sd_mm3 is None else volume_sd_mm3 / 1000, 2))
    return [*cells, "yes" if one.touches_border else "no"]


def registration_table(result: ExamResult) -> Table | None:
    """How each disc came onto its atlas disc; None of an exam without registration."""
    if not result.registered:
        return None
    aligned = {one.alignment.level: one.alignment for one in result.registered}
    names = ("disc", "Dice", "Dice, centroid only", "SD of det J", "smallest det J", "folded voxels")
    rows = []
    for level in reversed(measured_levels(result.mask)) if result.mask is not None else ():
        one = aligned.get(level)
        cells = ["not registered", *[NONE] * 4]
        if one is not None:
            cells = [number(one.dice, 3), number(one.dice_after_centroid, 2)]
            cells += [number(one.sd_jacobian, 3), number(one.min_jacobian, 2), f"{one.n_folded}"]
        rows.append(_row(level, cells))
    note = "Dice: overlap with the atlas disc. det J: volume in the patient per volume in the atlas."
    return Table("Registration to the atlas", tuple(Column(name) for name in names), tuple(rows), note)


def echo_table(result: ExamResult) -> Table | None:
    """How far each image lies from the first one; None where there is nothing to compare."""
    if not result.motion:
        return None
    names = ("image", "farthest disc voxel (mm)", "rows (mm)", "columns (mm)", "rotation (°)", "moved back")
    rows = []
    for one in result.motion:
        cells = [number(one.displacement_mm, 2), number(one.rows_mm, 2), number(one.columns_mm, 2)]
        cells += [number(one.rotation_deg, 2), "yes" if one.corrected else "no"]
        rows.append(Row(f"{QUANTITY_NAMES[one.role]}, {one.time_ms:g} ms", tuple(cells)))
    note = "Against the first image of the decay, in the plane of the slices. A dash: could not be compared."
    return Table("Motion between the images", tuple(Column(name) for name in names), tuple(rows), note)


_Places = dict[tuple[Level, Region, Quantity], DiscMeasurement]


def _by_place(measurements: Sequence[DiscMeasurement]) -> _Places:
    return {(row.level, row.region, row.quantity): row for row in measurements}


def _row(level: Level, cells: Sequence[str]) -> Row:
    return Row(LEVEL_NAMES[level], tuple(cells), LEVEL_COLOURS[level])
