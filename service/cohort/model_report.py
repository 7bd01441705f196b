"""The models of a cohort in its report: means over visits, differences, responders, missing visits, and the methods."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from config.cohort_models import VisitModel
from config.cohort_plans import CohortPlan
from processing.cohort.missing_data import MissingDataResult, Pooled
from processing.cohort.repeated_measures import Estimate
from processing.cohort.visit_figures import draw_deltas, draw_visits
from processing.cohort.visit_models import ContrastRow, MeanRow
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import Level, Quantity, Region
from service.cohort.models import ModelFinding
from service.reports import words
from service.reports.document import Block, Column, Page, Picture, Row, Table, Text

Draw = Callable[[Figure, Path, str], Picture]


def model_pages(plan: CohortPlan, findings: Sequence[ModelFinding], figures: Path, draw: Draw) -> Iterator[Page]:
    """A page for each model of the plan; its figures are also written by ``draw``."""
    for asked in plan.models:
        mine = [one for one in findings if one.name == asked.name]
        if mine:
            yield Page(_title(asked), tuple(_blocks(plan, asked, mine, figures, draw)))


def targets_table(findings: Sequence[ModelFinding], confidence: float) -> Table:
    """What each model was asked first."""
    has_holm = any(_has_holm(row) for one in findings for row in one.targets)
    columns = (
        Column("Model"),
        Column("Difference"),
        Column("ms"),
        Column(_interval(confidence)),
        *_p_columns(has_holm),
    )
    rows = tuple(
        Row(
            f"{one.name}, {level_name(one.level)}",
            (f"{row.words}, {row.visit}", *_value(row.estimate), *_p_cells(row, has_holm)),
        )
        for one in findings
        for row in one.targets
    )
    return Table("What the models were asked first", columns, rows, _p_note(has_holm))


def _title(asked: VisitModel) -> str:
    """Short enough for the head of a page."""
    what = "change of " if asked.response == "change" else ""
    return f"{asked.name}: {what}{QUANTITY_NAMES[Quantity(asked.quantity)]}, {REGION_NAMES[Region(asked.region)]}"


def _heading(asked: VisitModel) -> str:
    what = f"{QUANTITY_NAMES[Quantity(asked.quantity)]} of the {REGION_NAMES[Region(asked.region)]}"
    told = f"change of {what} from {asked.baseline}" if asked.response == "change" else what
    return f"{asked.name}: {told} over visits"


def _blocks(
    plan: CohortPlan, asked: VisitModel, findings: Sequence[ModelFinding], figures: Path, draw: Draw
) -> Iterator[Block]:
    confidence = 1 - plan.inference.alpha
    panels: dict[str, list[MeanRow]] = {}
    for one in findings:
        for row in one.means:
            panels.setdefault(level_name(row.level), []).append(row)
    is_change = asked.response == "change"
    label = f"{'change of ' if is_change else ''}{QUANTITY_NAMES[Quantity(asked.quantity)]} (ms)"
    figure = draw_visits(panels, heading=_heading(asked), label=label, zero=is_change, confidence=confidence)
    yield draw(figure, figures / f"model_{asked.name}", f"{_heading(asked)}: estimated means and their intervals.")
    yield _means(findings, confidence)
    if any(one.contrasts for one in findings):
        yield _contrasts(findings, confidence)
    yield _spread(findings)
    if any(one.responders for one in findings):
        yield from _responders(findings, confidence)
    results = [(one, result) for one in findings for result in one.missing]
    if results:
        names = [level_name(one.level) for one, _ in results]
        figure = draw_deltas(
            [result for _, result in results],
            names,
            heading=f"{_title(asked)}, missing visits imputed",
            alpha=plan.inference.alpha,
        )
        yield draw(figure, figures / f"model_{asked.name}_missing", "The difference where imputed values are worse.")
        yield _missing(results, plan.inference.alpha, confidence)
    yield Text("Methods of the model", tuple(_methods(plan, asked, findings)))
    left_out = tuple(f"{level_name(one.level)}: {told}." for one in findings for told in one.left_out)
    if left_out:
        yield Text("Left out", tuple(dict.fromkeys(left_out)))


def level_name(level: str) -> str:
    """A level as it is shown; several are shown one by one."""
    return ", ".join(LEVEL_NAMES[Level[one]] if one in Level.__members__ else one for one in level.split(", "))


def _means(findings: Sequence[ModelFinding], confidence: float) -> Table:
    columns = (Column("Group at visit"), Column("n"), Column("measured (ms)"), Column("SD"), Column("estimated (ms)"),
               Column(_interval(confidence)))  # fmt: skip
    rows = tuple(
        Row(
            ", ".join(one for one in (level_name(row.level), row.group, row.visit) if one),
            (str(row.n), f"{row.mean_ms:.2f}", f"{row.sd_ms:.2f}", *_value(row.estimate)),
        )
        for one in findings
        for row in one.means
    )
    return Table("Means", columns, rows, "Estimated: of subjects of average baseline and covariates.")


def _contrasts(findings: Sequence[ModelFinding], confidence: float) -> Table:
    has_holm = any(_has_holm(row) for one in findings for row in one.contrasts)
    columns = (
        Column("Difference"),
        Column("ms"),
        Column(_interval(confidence)),
        Column("SE"),
        Column("df"),
        *_p_columns(has_holm),
    )
    rows = []
    for one in findings:
        for row in one.contrasts:
            cells = (
                *_value(row.estimate),
                f"{row.estimate.standard_error:.2f}",
                f"{row.estimate.df:.1f}",
                *_p_cells(row, has_holm),
            )
            level = level_name(row.level) if row.level else "all levels"
            rows.append(Row(f"{level}, {row.words}, {row.visit}", cells))
    return Table("Differences", columns, tuple(rows), _p_note(has_holm))


def _spread(findings: Sequence[ModelFinding]) -> Table:
    """SDs and correlations of the occasions."""
    rows = []
    for one in findings:
        covariance = np.array(one.covariance)
        sd = np.sqrt(np.diag(covariance))
        for i, occasion in enumerate(one.occasions):
            others = "  ".join(f"{covariance[i, j] / sd[i] / sd[j]:.2f}" for j in range(i))
            name = f"{level_name(occasion.level)}, {occasion.visit}"
            rows.append(Row(name, (str(one.n_known[i]), f"{sd[i]:.2f}", others or words.NONE)))
    columns = (Column("Occasion"), Column("n"), Column("SD (ms)"), Column("correlation with those above"))
    return Table("Unstructured covariance", columns, tuple(rows), "Of what the fixed terms leave.")


def _responders(findings: Sequence[ModelFinding], confidence: float) -> Iterator[Block]:
    columns = (Column("Responders"), Column("of"), Column("share"), Column(_interval(confidence)), Column("P"))
    for place, title in enumerate(("missing subjects left out", "missing subjects as non-responders")):
        rows = []
        for one in findings:
            if not one.responders:
                continue
            table = one.responders[place]
            level = level_name(one.level)
            for row in table.shares:
                cells = (
                    f"{row.n_responders} of {row.n}",
                    f"{100 * row.share:.1f} %",
                    _share(row.low, row.high),
                    words.NONE,
                )
                rows.append(Row(", ".join(x for x in (level, row.group) if x), cells))
            for difference in table.differences:
                name = f"{level}, {difference.group} less {difference.reference}"
                cells = (words.NONE, f"{100 * difference.difference:+.1f} %", _share(difference.low, difference.high),
                         p_text(difference.p))  # fmt: skip
                rows.append(Row(name, cells))
        limits = "; ".join(dict.fromkeys(one.limit for one in findings if one.limit))
        yield Table(f"Responders, {title}", columns, tuple(rows), f"A responder: {limits}. {_p_note(False)}")


def _missing(results: Sequence[tuple[ModelFinding, MissingDataResult]], alpha: float, confidence: float) -> Table:
    columns = (Column("Imputed"), Column("ms"), Column(_interval(confidence)), Column("df"), Column("P"))
    rows = []
    for one, result in results:
        name = f"{level_name(one.level)}, {result.group} less {result.reference}, {result.visit}"
        rows.append(Row(f"{name}: at random", _pooled(result.at_random)))
        rows += [Row(f"{name}: {row.delta_ms:+.1f} ms", _pooled(row.pooled)) for row in result.deltas if row.delta_ms]
        if result.jump is not None:
            rows.append(Row(f"{name}: jump to reference", _pooled(result.jump)))
    told = "; ".join(
        f"{level_name(one.level)}, {result.group}: "
        + (
            f"{result.tipping_ms:+.1f} ms"
            if result.tipping_ms is not None
            else f"none within ±{result.searched_ms:.0f} ms"
        )
        + f" ({result.n_imputed[0]} and {result.n_imputed[1]} imputed)"
        for one, result in results
    )
    return Table(
        "Where missing visits were worse",
        columns,
        tuple(rows),
        f"Delta at which P crosses {alpha:g}: {told}. {_p_note(False)}",
    )


def _methods(plan: CohortPlan, asked: VisitModel, findings: Sequence[ModelFinding]) -> Iterator[str]:
    fixed = []
    if asked.group:
        fixed.append(f"{asked.group} × visit" if asked.levels_as != "together" else f"{asked.group} × level × visit")
    else:
        fixed.append("visit" if asked.levels_as != "together" else "level × visit")
    if asked.response == "change":
        fixed.append("baseline × visit")
    fixed += list(asked.covariates)
    if asked.site and plan.site:
        fixed.append(plan.site)
    units = {
        "each": "Each level has a model of its own.",
        "mean": "The mean over the levels of each subject was analysed; a scan without one of the levels is missing.",
        "together": "Levels and visits of a subject are occasions of one covariance, so that its discs do not count as"
        " independent subjects.",
    }[asked.levels_as]
    method = {"kenward-roger": "Kenward and Roger", "satterthwaite": "Satterthwaite"}[asked.degrees_of_freedom]
    yield (
        f"Repeated measures by restricted maximum likelihood with an unstructured covariance; fixed terms:"
        f" {', '.join(fixed)}. Degrees of freedom by {method}. One independent unit for each subject. {units} Missing"
        " visits are taken as missing at random."
    )
    numbers = "; ".join(
        f"{level_name(one.level)}: {one.n_subjects} subjects, {one.n_values} values" for one in findings
    )
    yield f"In the model: {numbers}."
    if asked.responders is not None:
        yield (
            "Shares have Wilson's intervals, their differences Newcombe's hybrid score intervals; P by Fisher's exact"
            " test. The limit was set in the plan. Subjects without a baseline are missing, too."
        )
    if asked.missing is not None:
        yield (
            f"Missing visits were imputed {asked.missing.imputations} times from the model (Gibbs sampler, seed"
            f" {plan.seed}), a delta added in all groups but {asked.reference}; analyses of covariance were pooled by"
            " Rubin's rules with the degrees of freedom of Barnard and Rubin. Jump to reference: after the last known"
            f" visit as if of {asked.reference}."
        )


def _has_holm(row: ContrastRow) -> bool:
    return not math.isnan(row.p_holm)


def _p_columns(has_holm: bool) -> tuple[Column, ...]:
    return (Column("P"), Column("P, Holm")) if has_holm else (Column("P"),)


def _p_cells(row: ContrastRow, has_holm: bool) -> tuple[str, ...]:
    return (p_text(row.estimate.p), *((p_text(row.p_holm),) if has_holm else ()))


def _p_note(has_holm: bool) -> str:
    holm = "; Holm: of one model, for its levels (each a model) and groups at a visit, not for visits"
    return f"P of each row by itself{holm if has_holm else ''}."


def _interval(confidence: float) -> str:
    return f"{100 * confidence:g} % interval"


def _value(one: Estimate) -> tuple[str, str]:
    return f"{one.estimate:z.2f}", f"{one.low:z.2f} to {one.high:z.2f}"


def _pooled(one: Pooled) -> tuple[str, ...]:
    return f"{one.estimate:z.2f}", f"{one.low:z.2f} to {one.high:z.2f}", f"{one.df:.1f}", p_text(one.p)


def _share(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def p_text(p: float) -> str:
    """A P value as reports show it."""
    return words.NONE if p != p else "< .0001" if p < 1e-4 else f"{p:.4f}"
