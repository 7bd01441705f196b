"""Automatic discs against the true ones: Tables 2 and 3, Figs 2, 3, S3 and S4 of the paper."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from models.inference import OnnxModel
from models.registry import load_model
from processing.agreement import pooled_dice
from processing.agreement_figures import Picture as MaskPicture
from processing.agreement_figures import by_grade_figure, masks_figure, times_figure
from processing.display import LEVEL_NAMES, QUANTITY_NAMES
from processing.results import LUMBAR_LEVELS, Level, Quantity
from service.cohort.reproduction.compared_scans import picture_of
from service.cohort.reproduction.item_files import ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_sources import ItemSources
from service.cohort.reproduction.records import Cohort, ReproducedScan
from service.evaluation import Comparison, ExamOutcome, Outcome, Table2Row, Table3Row, table_2, table_3
from service.evaluation_files import table2_row, table3_row
from service.reports import words
from service.reports.document import Block, Column, Row, Table, Text

_METRICS = {
    "dice": ("Dice", 3),
    "msd_px": ("surface distance (pixels)", 2),
    "volume_difference_percent": ("volume difference (%)", 1),
    "sensitivity": ("sensitivity", 3),
    "precision": ("precision", 3),
}
#: What the paper gives for all levels together, on its own exams (Table 2).
_PUBLISHED_2 = {
    Cohort.A: dict(zip(_METRICS, (".904", ".94", "+0.1", ".904", ".912"), strict=True)),
    Cohort.B: dict(zip(_METRICS, (".898", ".24", "−3.5", ".913", ".888"), strict=True)),
}
#: r, bias and limits of agreement of all levels together (Table 3).
_PUBLISHED_3 = {
    (Cohort.A, Quantity.T1RHO): ".995; −0.74 (−4.35, 2.87)",
    (Cohort.B, Quantity.T1RHO): ".990; −0.01 (−4.36, 4.33)",
    (Cohort.B, Quantity.T2): ".984; 0.12 (−3.55, 3.79)",
}
_COMPARED = {Cohort.A: Comparison.SINGLE_SLICES, Cohort.B: Comparison.VOLUMES}
_COLUMNS: tuple[Level | None, ...] = (*LUMBAR_LEVELS, None)


def table_2_items(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Agreement of masks per level, 2-D for A and 3-D for B, mean and 95 % interval."""
    yield _not_compared(sources)
    for cohort in Cohort:
        rows = table_2([outcome for _, outcome in sources.compared(cohort)])
        files.numbers(f"table2_{cohort}", [table2_row(row) for row in rows])
        shown = {(row.metric, row.level): row for row in rows if row.comparison is _COMPARED[cohort]}
        if not shown:
            kind = _COMPARED[cohort].value
            yield Text(f"Table 2, cohort {cohort}", (f"No exam of cohort {cohort} could be compared in {kind}.",))
            continue
        yield files.table(f"table2_{cohort}", _table_2(cohort, shown))


def _table_2(cohort: Cohort, shown: dict[tuple[str, Level | None], Table2Row]) -> Table:
    body = []
    for metric, (name, digits) in _METRICS.items():
        cells = [_interval(shown[metric, level], digits) for level in _COLUMNS]
        body.append(Row(name, (*cells, _PUBLISHED_2[cohort][metric])))
    counts = [str(shown["dice", level].interval.n) for level in _COLUMNS]
    body.append(Row("discs", (*counts, words.NONE)))
    note = (
        "Mean (95 % confidence interval) over discs; differences read truth − automatic. The truth is the simulation's"
        " own, where the paper has outlines drawn by hand; its values for all levels stand in the last column. A disc"
        " that was missed has Dice and sensitivity 0."
    )
    heads = (Column("measure"), *(Column(_level(level)) for level in _COLUMNS), Column("paper, all"))
    title = f"Table 2, cohort {cohort}: automatic against true discs, {_COMPARED[cohort].value}"
    return Table(title, heads, tuple(body), note, is_dense=True)


def _interval(row: Table2Row, digits: int) -> str:
    found = row.interval
    mean, low, high = (words.number(one, digits) for one in (found.mean, found.low, found.high))
    return f"{mean} ({low}, {high})"


def _not_compared(sources: ItemSources) -> Text:
    told = [
        f"{scan.subject} {scan.visit} of cohort {scan.cohort}: {outcome.outcome.value},"
        f" {'; '.join(f'{reason.code.value}: {words.in_words(reason.detail)}' for reason in outcome.reasons)}"
        for scan, outcome in zip(sources.scans, sources.outcomes, strict=True)
        if outcome.outcome is not Outcome.COMPARED
    ]
    n = len(sources.scans) - len(told)
    return Text("Scans", (f"{n} of {len(sources.scans)} scans were held against their truth.", *told))


def table_3_items(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Agreement of times under both masks per level: r, bias, limits of agreement; and the figure (Fig 3)."""
    lines: list[dict[str, Any]] = []
    body = []
    for cohort in Cohort:
        for row in table_3([outcome for _, outcome in sources.compared(cohort)]):
            lines.append({"cohort": cohort.value, **table3_row(row)})
            body.append(_row_of_table_3(cohort, row))
    if not body:
        raise ItemUnavailable("no scan has echoes to fit")
    files.numbers("table3", lines)
    heads = (
        "cohort, map, level",
        "n",
        "r",
        "paired t, P",
        "bias (ms)",
        "limits of agreement (ms)",
        "paper: r; bias (limits)",
    )
    note = (
        "Mean time of each disc, fitted in the patient's space under the true and under the automatic mask; bias is"
        " truth − automatic, the limits are bias ± 1.96 SD (Bland and Altman 1986)."
    )
    columns = tuple(Column(head) for head in heads)
    yield files.table("table3", Table("Table 3: times under true and automatic masks", columns, tuple(body), note))


def _row_of_table_3(cohort: Cohort, row: Table3Row) -> Row:
    found = row.agreement
    limits = f"({words.number(found.lower_limit_ms, 2)}, {words.number(found.upper_limit_ms, 2)})"
    published = _PUBLISHED_3.get((cohort, row.quantity), "") if row.level is None else ""
    return Row(
        f"{cohort} {QUANTITY_NAMES[row.quantity]}, {_level(row.level)}",
        (
            str(found.n),
            words.number(found.r, 4),
            "< .001" if found.p_paired_t < 0.001 else words.number(found.p_paired_t, 3),
            words.number(found.bias_ms, 2),
            limits,
            published or words.NONE,
        ),
    )


def figure_2(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Image, truth, automatic discs and probability of two typical scans of each cohort."""
    wanted = sources.settings.segmentation
    model = OnnxModel(load_model(wanted.model, wanted.weights_dir), threads=wanted.threads)
    pictures: list[tuple[str, MaskPicture]] = []
    lines = []
    for cohort in Cohort:
        for word, scan, outcome in _typical(sources.compared(cohort)):
            dice = pooled_dice([outcome.agreement]) if outcome.agreement else math.nan
            name = f"{cohort}, {scan.subject} {scan.visit}".strip()
            pictures.append((f"{name}\n{word}, Dice {dice:.3f}", picture_of(scan, sources.settings, model)))
            lines.append({"cohort": cohort.value, "subject": scan.subject, "visit": scan.visit, "pooled_dice": dice})
    files.numbers("fig2", lines)
    caption = (
        "Fig 2. Image, true discs, automatic discs and the network's probability of disc, in the slice that shows most"
        " disc: the median and the least Dice coefficient of each cohort."
    )
    yield files.figure("fig2", masks_figure(pictures, reference="true"), caption)


def _typical(
    compared: Sequence[tuple[ReproducedScan, ExamOutcome]],
) -> list[tuple[str, ReproducedScan, ExamOutcome]]:
    """The scan of the median Dice and that of the least."""
    ranked = sorted(
        ((pooled_dice([outcome.agreement]), k) for k, (_, outcome) in enumerate(compared) if outcome.agreement),
    )
    chosen = {"median": ranked[len(ranked) // 2][1]}
    if len(ranked) > 1:
        chosen["least"] = ranked[0][1]
    return [(word, *compared[k]) for word, k in chosen.items()]


def figure_3(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Scatter and Bland-Altman of each quantity, level by level and together."""
    for cohort in Cohort:
        compared = sources.compared(cohort)
        for quantity in Quantity:
            held = [(scan, row) for scan, outcome in compared for row in outcome.times if row.quantity is quantity]
            if not held:
                continue
            name = f"fig3_{cohort}_{quantity.value}"
            files.numbers(
                name,
                [
                    {
                        **{"subject": scan.subject, "visit": scan.visit, "level": row.level.name},
                        **{"true_mask_ms": row.manual_ms, "automatic_mask_ms": row.automatic_ms},
                    }
                    for scan, row in held
                ],
            )
            caption = (
                f"Fig 3, cohort {cohort}: mean {QUANTITY_NAMES[quantity]} of each disc under the true and under the"
                " automatic mask. Above: scatter with the line of identity; below: Bland–Altman, bias and 95 % limits"
                " of agreement."
            )
            yield files.figure(name, times_figure([row for _, row in held], quantity, reference="true"), caption)


def figure_s3(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Dice, surface distance and volume difference by grade."""
    for cohort in Cohort:
        lines = [
            {
                **{"grade": grade, "subject": scan.subject, "visit": scan.visit, "level": disc.level.name},
                **{metric: getattr(disc, metric) for metric in ("dice", "msd_px", "volume_difference_percent")},
            }
            for scan, outcome in sources.compared(cohort)
            for disc in (outcome.agreement.discs if outcome.agreement else ())
            if (grade := sources.grades(cohort).get((scan.subject, scan.visit, disc.level))) is not None
        ]
        if not lines:
            raise ItemUnavailable(f"the table of cohort {cohort} has no grade of a disc")
        files.numbers(f"figS3_{cohort}", lines)
        panels = {
            "Dice": [line["dice"] for line in lines],
            "surface distance (pixels)": [line["msd_px"] for line in lines],
            "volume difference (%)": [line["volume_difference_percent"] for line in lines],
        }
        figure = by_grade_figure(f"Cohort {cohort}: segmentation by grade", [line["grade"] for line in lines], panels)
        yield files.figure(
            f"figS3_{cohort}", figure, f"Fig S3, cohort {cohort}: automatic against true discs by grade."
        )


def figure_s4(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Times by grade under both masks, and their difference."""
    for cohort in Cohort:
        grades = sources.grades(cohort)
        held = [
            (grade, scan, row)
            for scan, outcome in sources.compared(cohort)
            for row in outcome.times
            if (grade := grades.get((scan.subject, scan.visit, row.level))) is not None
        ]
        if not held:
            raise ItemUnavailable(f"no disc of cohort {cohort} has both a grade and a time")
        for quantity in (one for one in Quantity if any(row.quantity is one for _, _, row in held)):
            own = [(grade, scan, row) for grade, scan, row in held if row.quantity is quantity]
            name, shown = f"figS4_{cohort}_{quantity.value}", QUANTITY_NAMES[quantity]
            files.numbers(
                name,
                [
                    {
                        **{"grade": grade, "subject": scan.subject, "visit": scan.visit, "level": row.level.name},
                        **{"true_mask_ms": row.manual_ms, "automatic_mask_ms": row.automatic_ms},
                    }
                    for grade, scan, row in own
                ],
            )
            panels = {
                f"{shown}, true mask (ms)": [row.manual_ms for _, _, row in own],
                f"{shown}, automatic mask (ms)": [row.automatic_ms for _, _, row in own],
                "true − automatic (ms)": [row.manual_ms - row.automatic_ms for _, _, row in own],
            }
            title = f"Cohort {cohort}: {shown} by grade"
            caption = (
                f"Fig S4, cohort {cohort}: mean {shown} of each disc by grade, under the true and the automatic mask."
            )
            yield files.figure(name, by_grade_figure(title, [grade for grade, _, _ in own], panels), caption)


def _level(level: Level | None) -> str:
    return LEVEL_NAMES[level] if level else "all"
