"""The report of an evaluation: one HTML page that needs no other file, and the same tables as text for a terminal."""

import base64
import html
import math
from collections.abc import Iterable, Sequence

from processing.agreement import MeanInterval
from processing.display import LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, Level
from service.evaluation import Comparison, Outcome, Summary, Table2Row
from service.evaluation_files import Evaluation

_COLUMNS: tuple[Level | None, ...] = (*LUMBAR_LEVELS, None)
_METRIC_NAMES = {
    "dice": ("Dice coefficient", 3),
    "msd_px": ("symmetric mean surface distance, px", 2),
    "msd_mm": ("symmetric mean surface distance, mm", 2),
    "volume_difference_percent": ("volume difference, % (manual − automatic)", 1),
    "sensitivity": ("sensitivity", 3),
    "precision": ("precision", 3),
}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2530; background: #fff; max-width: 74rem; margin: 2rem auto;
  padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.use { color: #8a1c12; font-weight: 600; } .faint { color: #5a6670; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #dde3e8; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
thead th { border-bottom: 2px solid #9aa5ad; } td small { color: #5a6670; display: block; white-space: nowrap; }
.wide { overflow-x: auto; } figure { margin: 1.2rem 0; } figure img { max-width: 100%; border: 1px solid #dde3e8; }
figcaption { color: #5a6670; }
"""


def report_page(evaluation: Evaluation) -> str:
    """The page (HTML)."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>discnode evaluation</title><style>{_STYLE}</style></head><body>",
        f"<h1>Automatic against manual discs</h1><p class='use'>{RESEARCH_USE_ONLY}</p>",
        f"<p class='faint'>{html.escape(_origin(evaluation))}</p>",
        "<h2>In short</h2>",
        _table(("", ""), summary_lines(evaluation.summary), words=True),
        _not_compared(evaluation),
        *_table2_sections(evaluation),
        _table3_section(evaluation),
        *(
            f"<figure><img alt='{html.escape(figure.caption)}' src='data:image/png;base64,"
            f"{base64.b64encode(figure.png).decode()}'><figcaption>{html.escape(figure.caption)} Numbers:"
            f" {figure.name}.csv.</figcaption></figure>"
            for figure in evaluation.figures
        ),
        _notes(),
        f"<p class='use'>{RESEARCH_USE_ONLY}</p></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def report_text(evaluation: Evaluation) -> str:
    """The short lines and the Dice, distance and time tables, for a terminal."""
    lines = [f"{name}: {value}" for name, value in summary_lines(evaluation.summary)]
    for comparison in Comparison:
        rows = [row for row in evaluation.table2 if row.comparison is comparison]
        if not rows:
            continue
        lines += ["", f"Table 2, {comparison.value}, mean (95 % CI)"]
        lines += _columns(("", *_level_names()), [(name, *cells) for name, cells in _table2_cells(rows, " ")])
    if evaluation.table3:
        lines += ["", "Table 3, manual - automatic"]
        heads = ("", "n", "r", "paired t p", "bias ms", "limits of agreement ms")
        lines += _columns(heads, list(_table3_cells(evaluation)))
    return "\n".join((*lines, "", RESEARCH_USE_ONLY)) + "\n"


def summary_lines(summary: Summary) -> list[tuple[str, str]]:
    """What is said in short: (name, value)."""
    outcomes = ", ".join(f"{count} {name}" for name, count in summary.outcomes.items() if count)
    shown = summary.n_annotated - summary.n_in_refused_exams
    lines = [
        ("exams", f"{summary.n_exams} of {summary.n_subjects} subjects: {outcomes}"),
        (
            "annotated discs found",
            f"{summary.n_found} of {summary.n_annotated} ({_number(100 * summary.found_share, 1)} %);"
            f" {summary.n_found} of {shown} in the exams that were not refused",
        ),
        ("discs under a wrong name", f"{summary.n_wrongly_named} of {summary.n_found} found"),
        ("automatic discs that are not annotated", f"{summary.n_unannotated}"),
        ("Dice coefficient, all voxels pooled", _number(summary.pooled_dice, 3)),
        ("mean absolute volume difference", f"{_number(summary.mean_absolute_volume_difference_percent, 1)} %"),
        (
            "ring entropy against Dice (Spearman)",
            f"{_number(summary.entropy_dice_spearman, 2)}, {summary.n_entropy} discs",
        ),
        ("segmentation", f"{_number(summary.cpu_s_per_slice, 2)} CPU-s per slice"),
    ]
    if summary.n_member_dice:
        value = f"{_number(summary.member_dice_spearman, 2)}, {summary.n_member_dice} discs"
        lines.insert(-1, ("agreement of the members against Dice (Spearman)", value))
    if summary.refusals:
        lines.insert(1, ("refused", ", ".join(f"{code} {count}" for code, count in summary.refusals.items())))
    return lines


def _origin(evaluation: Evaluation) -> str:
    record = evaluation.record
    text = f"{evaluation.software}, network {record.name} {record.version} (SHA-256 {record.sha256[:16]}…)"
    networks = "one network" if len(record.members) == 1 else f"an ensemble of {len(record.members)} networks"
    text += f", {networks}, threshold {evaluation.threshold:g}; "
    text += (
        "each exam was segmented by the one network that had not seen its subject (out of fold)"
        if evaluation.out_of_fold
        else "figures of subjects that it was trained on flatter it"
    )
    return f"{text}. {evaluation.produced_at:%Y-%m-%d %H:%M} UTC."


def _not_compared(evaluation: Evaluation) -> str:
    rows = []
    for one in evaluation.outcomes:
        said = "; ".join(f"{reason.code}: {reason.detail}" for reason in one.reasons)
        if one.missing:
            said = "; ".join(
                part for part in (said, f"not annotated: {', '.join(LEVEL_NAMES[x] for x in one.missing)}") if part
            )
        if one.outcome is not Outcome.COMPARED or said:
            rows.append((one.name, one.outcome.value, said))
    if not rows:
        return ""
    return "<h2>Exams that were not compared, or with a doubt</h2>" + _table(("exam", "outcome", ""), rows, words=True)


def _table2_sections(evaluation: Evaluation) -> Iterable[str]:
    for comparison in Comparison:
        rows = [row for row in evaluation.table2 if row.comparison is comparison]
        if rows:
            yield f"<h2>Table 2: agreement of masks, {comparison.value}, mean and 95 % confidence interval</h2>"
            yield _table(("", *_level_names()), [(name, *cells) for name, cells in _table2_cells(rows, "\n")])


def _table2_cells(rows: Sequence[Table2Row], between: str) -> Iterable[tuple[str, list[str]]]:
    """(name of the metric, one cell for each level and all) and a last line with n."""
    by_place = {(row.metric, row.level): row.interval for row in rows}
    for metric, (name, digits) in _METRIC_NAMES.items():
        yield name, [_interval(by_place[metric, level], digits, between) for level in _COLUMNS]
    yield "discs", [str(by_place["dice", level].n) for level in _COLUMNS]


def _table3_section(evaluation: Evaluation) -> str:
    if not evaluation.table3:
        return "<h2>Table 3: agreement of times</h2><p>No exam has echoes to fit.</p>"
    heads = ("", "n", "Pearson r", "paired t, p", "bias, ms", "limits of agreement, ms")
    return "<h2>Table 3: agreement of times, manual − automatic</h2>" + _table(heads, list(_table3_cells(evaluation)))


def _table3_cells(evaluation: Evaluation) -> Iterable[tuple[str, ...]]:
    for row in evaluation.table3:
        found = row.agreement
        yield (
            f"{row.quantity} {LEVEL_NAMES[row.level] if row.level else 'all'}",
            str(found.n),
            _number(found.r, 3),
            _number(found.p_paired_t, 3),
            _number(found.bias_ms, 2, sign=True),
            f"({_number(found.lower_limit_ms, 2)}, {_number(found.upper_limit_ms, 2)})",
        )


def _notes() -> str:
    return (
        "<h2>How to read this</h2><ul>"
        "<li>A disc is found when one automatic disc, under whatever name, has a Dice coefficient of at least 0.5 with"
        " it. Discs of refused exams count as not found and are in no table.</li>"
        "<li>A disc that is missing or under a wrong name has Dice and sensitivity 0 at its level; surface distance"
        " and, if missing, precision are undefined and not in the mean.</li>"
        "<li>The surface distance in 3-D counts the end faces of the stack, which often coincide: in thick slices it"
        " is smaller than in 2-D, and the two must not be compared.</li>"
        "<li>Pixels (px) are those of the exam's own images.</li>"
        "<li>Intervals take discs, and slices, as independent; those of one spine are not quite, so that the intervals"
        " are somewhat too narrow, most of all those over slices.</li>"
        "<li>The levels are those of the annotation; from lumbar images alone a transitional vertebra can shift"
        " both.</li></ul>"
    )


def _level_names() -> list[str]:
    return [LEVEL_NAMES[level] if level else "all" for level in _COLUMNS]


def _interval(interval: MeanInterval, digits: int, between: str) -> str:
    low, high = _number(interval.low, digits), _number(interval.high, digits)
    return f"{_number(interval.mean, digits)}{between}({low}, {high})"


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "–"
    if digits == 3 and 0 < value < 0.001:
        return "< 0.001"
    rounded = round(value, digits) + 0.0  # no "-0.0"
    return f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """A table; the second line of a cell is set small."""
    head = "".join(f"<th>{html.escape(one)}</th>" for one in heads)
    lines = []
    for row in rows:
        cells = []
        for cell in row:
            first, _, rest = cell.partition("\n")
            cells.append(f"<td>{html.escape(first)}{f'<small>{html.escape(rest)}</small>' if rest else ''}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    shown = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    kind = " class='words'" if words else ""
    return f"<div class='wide'><table{kind}>{shown}<tbody>{''.join(lines)}</tbody></table></div>"


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(heads))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
