"""What a site's own test-retest exams tell of its precision, for people: tables, a figure, how to read them."""

import csv
import io
import math

from processing.change_limits import log_sd_of_cv, reference_change_values, upper_bound_factor
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES, RESEARCH_USE_ONLY
from processing.precision import Interval, Repeatability
from processing.precision_figures import draw_repeats
from processing.results import Level
from service.reports.document import Block, Column, Document, Fact, Facts, Page, Picture, Row, Table, Text
from service.trials.precision_study import PrecisionStudy

_FEW = 35  # pairs: below, an upper bound is well above the estimate


def precision_document(found: PrecisionStudy, name: str, software: str) -> Document:
    """The report of a study; ``name`` of the profile, ``software`` that made it."""
    pooled = [one for one in found.cells if one.level is None]
    png, width, height = draw_repeats(found.values, found.levels, found.cells)
    facts = Facts(
        "",
        (
            Fact("Profile", name),
            Fact("Subjects", f"{len(found.subjects)}, each scanned {found.n_scans} times"),
            Fact("Scanner", found.scanner or "not known"),
            Fact("Last scan", "not known" if found.measured_on is None else found.measured_on.isoformat()),
        ),
    )
    blocks: list[Block] = [facts, _repeatability(pooled), _agreement(pooled)]
    caption = (
        "Second less first scan over their mean. Line: bias; dashed: 95 % limits of agreement, grey: their 95 %"
        " confidence intervals. Colours: levels."
    )
    blocks.append(Picture(png, width, height, "Bland-Altman plots of each quantity and region", caption))
    second: list[Block] = [_by_level(found), _method(found)]
    if found.notes:
        second.append(Text("Notes on the data", found.notes))
    title = "Precision of T1ρ and T2 from scan and rescan"
    return Document(title, RESEARCH_USE_ONLY, software, (Page(title, tuple(blocks)), Page("By level", tuple(second))))


def _repeatability(pooled: list[Repeatability]) -> Table:
    columns = (
        "what",
        "subjects / discs",
        "mean, ms",
        "wSD, ms",
        "wCV, %",
        "RMS-CV, %",
        "SDC, ms",
        "RCV, %",
        "RCV used, %",
    )
    rows = []
    for one in pooled:
        bound = upper_bound_factor(one.n_subjects * (one.n_scans - 1))
        low, high = reference_change_values(bound * log_sd_of_cv(one.within_cv.value))
        cells = (
            f"{one.n_subjects} / {one.n_discs}",
            f"{one.mean_ms:.1f}",
            _interval(one.within_sd_ms, 2),
            _interval(one.within_cv, 1, 100),
            f"{100 * one.rms_cv:.1f}",
            f"±{one.sdc_ms:.1f}",
            f"{one.rcv_percent[0]:+.1f} to {one.rcv_percent[1]:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
        )
        rows.append(Row(_name(one), cells))
    note = (
        "wSD, wCV: SD and coefficient of variation of repeated measurements within a subject (95 % confidence"
        " interval), all levels together. SDC, RCV: what a change of one cell must exceed, symmetric in ms or"
        " asymmetric in per cent. RCV used: with the upper 95 % bound of wCV, as trials use it by default."
    )
    return Table("Repeatability", tuple(Column(one) for one in columns), tuple(rows), note)


def _agreement(pooled: list[Repeatability]) -> Table:
    columns = ("what", "ICC(2,1)", "bias, ms", "lower limit, ms", "upper limit, ms", "slope, p", "error in")
    rows = []
    for one in pooled:
        agreement = one.bland_altman
        cells = (
            _interval(one.icc, 2),
            _interval(agreement.bias_ms, 1),
            _interval(agreement.lower_limit_ms, 1),
            _interval(agreement.upper_limit_ms, 1),
            f"{_number(agreement.slope, 2)}, {_number(agreement.p_slope, 2)}",
            "ms" if one.error_scale.scale == "ms" else "%",
        )
        rows.append(Row(_name(one), cells))
    reasons = dict.fromkeys(f"{one.error_scale.scale}: {one.error_scale.reason}" for one in pooled)
    note = (
        f"Error in (Breusch-Pagan test): {'; '.join(reasons)}."
        " Second less first scan, with 95 % confidence intervals. Intervals of bias, limits and ICC take discs as"
        " independent; those of one subject are not quite, so that they are somewhat too narrow."
    )
    return Table("Agreement of scan and rescan", tuple(Column(one) for one in columns), tuple(rows), note)


def _by_level(found: PrecisionStudy) -> Table:
    columns = ("what", "discs", "mean, ms", "wSD, ms", "wCV, %", "RMS-CV, %", "ICC(2,1)")
    rows = [
        Row(
            f"{LEVEL_NAMES[Level[one.level]]} {_name(one)}",
            (
                str(one.n_discs),
                f"{one.mean_ms:.1f}",
                _interval(one.within_sd_ms, 2),
                _interval(one.within_cv, 1, 100),
                f"{100 * one.rms_cv:.1f}",
                _interval(one.icc, 2),
            ),
        )
        for one in found.cells
        if one.level is not None
    ]
    return Table("Each level by itself", tuple(Column(one) for one in columns), tuple(rows))


def _method(found: PrecisionStudy) -> Text:
    factor = upper_bound_factor(len(found.subjects) * (found.n_scans - 1))
    few = (
        f" {len(found.subjects)} subjects are few: the upper 95 % bound of the within-subject SD is {factor:.2f} times"
        " the estimate, and so are the limits of change."
        if len(found.subjects) * (found.n_scans - 1) < _FEW
        else ""
    )
    return Text(
        "How to read this",
        (
            "wSD² is the mean of the subjects' variances over their scans; wCV the same of logarithms; RMS-CV the root"
            " mean square of the subjects' coefficients of variation. SDC = 2.77 wSD; RCV = exp(±2.77 σ) − 1 with σ the"
            " SD of the logarithms. ICC(2,1): one scan, absolute agreement, scans as random (Shrout and Fleiss 1979)."
            " Degrees of freedom are those of subjects, not of discs." + few,
            "Scans of one session tell the error of measurement, not how discs change during a day, nor what another"
            " scanner, software or coil adds. The profile has no between_cv: changes after such a change are not judged"
            " with it until one is written into it.",
            RESEARCH_USE_ONLY,
        ),
    )


def precision_table(found: PrecisionStudy) -> str:
    """All cells as CSV, unrounded enough to compute with."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        (
            *("quantity", "region", "level", "n_subjects", "n_discs", "n_scans", "mean_ms"),
            *("within_sd_ms", "within_sd_low_ms", "within_sd_high_ms", "within_cv", "within_cv_low", "within_cv_high"),
            *("rms_cv", "sdc_ms", "rcv_low_percent", "rcv_high_percent", "icc_2_1", "icc_low", "icc_high"),
            *("bias_ms", "lower_limit_ms", "upper_limit_ms", "slope", "p_slope", "error_scale", "use"),
        )
    )
    for one in found.cells:
        agreement = one.bland_altman
        numbers = (
            *(one.mean_ms, one.within_sd_ms.value, one.within_sd_ms.low, one.within_sd_ms.high),
            *(one.within_cv.value, one.within_cv.low, one.within_cv.high, one.rms_cv, one.sdc_ms, *one.rcv_percent),
            *(one.icc.value, one.icc.low, one.icc.high, agreement.bias_ms.value),
            *(agreement.lower_limit_ms.value, agreement.upper_limit_ms.value, agreement.slope, agreement.p_slope),
        )
        told = [f"{number:.6g}" if math.isfinite(number) else "" for number in numbers]
        names = (one.quantity.value, one.region.value, one.level or "all")
        counts = (one.n_subjects, one.n_discs, one.n_scans)
        writer.writerow((*names, *counts, *told, one.error_scale.scale, RESEARCH_USE_ONLY.lower()))
    return stream.getvalue()


def _name(one: Repeatability) -> str:
    return f"{QUANTITY_NAMES[one.quantity]} {REGION_NAMES[one.region]}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _interval(one: Interval, digits: int, factor: float = 1.0) -> str:
    value, low, high = (_number(factor * part, digits) for part in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})"
