"""Everything about one run of a cohort's plan as one report (HTML and PDF), and each figure as SVG, PDF and PNG."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from config.cohort_plans import ByGroup, CohortPlan, OverTime, OverVisits
from processing.cohort.analysis import MapAnalysis
from processing.cohort.figures import draw_groups, draw_maps
from processing.cohort.inference import CONTROL_NAMES, Control
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import Level, Quantity
from service.cohort.methods import headline_of, how_asked, how_corrected, what_chance_finds
from service.cohort.model_report import model_pages, targets_table
from service.cohort.models import ModelFinding
from service.cohort.run import CohortFinding
from service.reports import words
from service.reports.document import Block, Column, Document, Notice, Page, Picture, Row, Table, Text, Tone
from service.reports.rendering import render

_CITATION = "Iriondo C, Pedoia V, Majumdar S. Magn Reson Med 2020;84:1376–1390"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a report tells of its run: SHA-256 of plan and table, what to bear in mind, and versions.

    ``packages``: with which the numbers were made; ``made_of``: what the results of single exams were made with;
    ``precision_sha256``: of a site's own files of precision, by their names.
    """

    plan_sha256: str
    warnings: tuple[str, ...]
    packages: Mapping[str, str]
    made_of: Mapping[str, str]
    table_sha256: str = ""
    precision_sha256: Mapping[str, str] = field(default_factory=dict)


def write_report(
    plan: CohortPlan,
    findings: Sequence[CohortFinding],
    folder: Path,
    *,
    facts: RunFacts,
    models: Sequence[ModelFinding] = (),
) -> None:
    """Write ``report.html``, ``report.pdf`` and ``figures/`` into a folder."""
    (folder / "figures").mkdir(exist_ok=True)
    rendered = render(cohort_report(plan, findings, folder / "figures", facts=facts, models=models))
    (folder / "report.html").write_text(rendered.html, encoding="utf-8")
    (folder / "report.pdf").write_bytes(rendered.pdf)


def cohort_report(
    plan: CohortPlan,
    findings: Sequence[CohortFinding],
    figures: Path,
    *,
    facts: RunFacts,
    models: Sequence[ModelFinding] = (),
) -> Document:
    """The report; its figures are also written to the folder ``figures``."""
    control = headline_of(plan)
    pages = [Page(f"Cohort: {plan.name}", tuple(_head(plan, findings, facts, models)))]
    for name in dict.fromkeys(one.name for one in findings):
        mine = [one for one in findings if one.name == name]
        for quantity in dict.fromkeys(one.quantity for one in mine):
            chosen = [one for one in mine if one.quantity == quantity]
            pages.append(Page(_heading(chosen[0]), tuple(_section(plan, chosen, control, figures))))
    pages += model_pages(plan, models, figures, _picture)
    footer = f"plan {facts.plan_sha256[:16]}, seed {plan.seed}"
    return Document(f"Cohort: {plan.name}", words.USE, footer, tuple(pages))


def _head(
    plan: CohortPlan,
    findings: Sequence[CohortFinding],
    facts: RunFacts,
    models: Sequence[ModelFinding],
) -> Iterator[Block]:
    if plan.paper:
        lines = [
            "P values are not corrected for the number of voxels.",
            "Times above the published ceilings are left out.",
        ]
        if any(getattr(one, "visit", None) == "" for one in plan.analyses):
            lines.insert(1, "Scans of one subject count as independent.")
        yield Notice(Tone.CAUTION, "Paper mode: as published, for comparison with the publication only", tuple(lines))
    if facts.warnings:
        yield Notice(Tone.CAUTION, "To bear in mind", facts.warnings)
    alpha = plan.inference.alpha
    asked = []
    if findings:
        asked.append(what_chance_finds(plan, len(findings)))
    if models:
        asked.append(f"{len(models)} repeated-measures models of the means of regions were fitted.")
    files = {"Table": facts.table_sha256, **facts.precision_sha256}
    hashes = tuple(f"{name} SHA-256 {sha256}." for name, sha256 in files.items() if sha256)
    yield Text("What was asked", (*asked, f"Plan SHA-256 {facts.plan_sha256}; seed {plan.seed}.", *hashes))
    if findings:
        yield _control_table(findings, alpha)
    if models:
        yield targets_table(models, 1 - alpha)
    yield Text("Methods", tuple(_methods(plan, findings, facts)))


def _section(plan: CohortPlan, findings: Sequence[CohortFinding], control: Control, folder: Path) -> Iterator[Block]:
    by_level: dict[Level, MapAnalysis] = {one.level: one.analysis for one in findings}
    first = findings[0]
    used = control if all(control in one.inference.p for one in by_level.values()) else Control.FDR_BH
    stem = f"{first.name}_{first.quantity.replace(' ', '_')}"
    heading = _heading(first)
    yield Text("How", (how_asked(plan, next(one for one in plan.analyses if one.name == first.name)),))
    n_slices = min(2, max(one.maps.regions.shape[0] for one in by_level.values()))
    figure = draw_maps(by_level, used, alpha=plan.inference.alpha, n_slices=n_slices, heading=heading)
    outlined = f"outlined: {CONTROL_NAMES[used]}"
    yield _picture(
        figure, folder / stem, f"{heading}. Left: effect; right: P of each voxel, not corrected; {outlined}."
    )
    if all(one.groups is not None for one in by_level.values()):
        labels = _group_names(plan, first.name)
        groups = draw_groups(by_level, labels, n_slices=1, heading=heading)
        yield _picture(groups, folder / f"{stem}_groups", f"Means of the groups: {labels[0]}, and {labels[1]}.")
    yield _region_table(findings)
    notes = dict.fromkeys(
        f"{LEVEL_NAMES[one.level]}: {note}."
        for one in findings
        for note in (*one.analysis.inference.notes, *one.left_out)
    )
    if notes:
        yield Text("Left out, and to bear in mind", tuple(notes))


def _heading(one: CohortFinding) -> str:
    heading = f"{one.name}: {one.analysis.title}"
    for quantity, shown in QUANTITY_NAMES.items():
        heading = heading.replace(quantity.value, shown)
    return heading


def _group_names(plan: CohortPlan, name: str) -> tuple[str, str]:
    asked = next(one for one in plan.analyses if one.name == name)
    if isinstance(asked, ByGroup) and asked.above is not None:
        return f"{asked.column} ≤ {asked.above:g}", f"{asked.column} > {asked.above:g}"
    second = asked.second if isinstance(asked, ByGroup | OverTime | OverVisits) else ""
    return f"not {second}", second


def _region_table(findings: Sequence[CohortFinding]) -> Table:
    unit = "r" if findings[0].analysis.kind == "r" else "difference (ms)"
    columns = (Column("Mean of"), Column(unit), Column("95 % interval"), Column("P"), Column("n"))
    rows = tuple(
        Row(
            f"{LEVEL_NAMES[one.level]}, {REGION_NAMES[row.region]}",
            (f"{row.effect:.2f}", f"{row.low:.2f} to {row.high:.2f}", _p(row.p), str(row.n)),
        )
        for one in findings
        for row in one.analysis.regions
    )
    return Table("The same asked of region means", columns, rows, "P of each row by itself, not corrected.")


def _control_table(findings: Sequence[CohortFinding], alpha: float) -> Table:
    controls = [one for one in Control if any(one in f.analysis.inference.p for f in findings)]
    columns = (Column("Voxels"), Column("tested"), *(Column(_SHORT[one]) for one in controls))
    rows = tuple(
        Row(
            f"{one.name}, {one.quantity}, {LEVEL_NAMES[one.level]}".replace("T1rho", QUANTITY_NAMES[Quantity.T1RHO]),
            (
                str(int(one.analysis.inference.in_family.sum())),
                *(
                    str(int(one.analysis.inference.survives(control, alpha).sum()))
                    if control in one.analysis.inference.p
                    else words.NONE
                    for control in controls
                ),
            ),
        )
        for one in findings
    )
    names = "; ".join(f"{_SHORT[one]}: {CONTROL_NAMES[one]}" for one in controls)
    return Table(f"Voxels with P ≤ {alpha:g}", columns, rows, f"{names}.")


_SHORT = {
    Control.UNCORRECTED: "none",
    Control.BONFERRONI: "Bonf.",
    Control.FDR_BH: "FDR",
    Control.FDR_BY: "FDR-BY",
    Control.RANDOM_FIELD: "RFT",
    Control.RANDOM_FIELD_CLUSTER: "RFT cl.",
    Control.MAX_T: "max t",
    Control.CLUSTER_SIZE: "size",
    Control.CLUSTER_MASS: "mass",
    Control.THRESHOLD_FREE: "TFCE",
}


def _methods(plan: CohortPlan, findings: Sequence[CohortFinding], facts: RunFacts) -> Iterator[str]:
    yield (
        "Relaxation times were fitted voxel by voxel after each disc had been registered to the disc of its level in an"
        f" atlas ({_CITATION}). Maps of levels were analysed separately and never pooled."
    )
    if findings:
        yield from how_corrected(plan)
    quantities = " and ".join(QUANTITY_NAMES[Quantity(one)] for one in plan.quantities)
    yield f"Maps of {quantities}. Made with {', '.join(f'{name} {found}' for name, found in facts.packages.items())}."
    if facts.made_of:
        told = ", ".join(f"{name} {found[:16]}" for name, found in sorted(facts.made_of.items()))
        yield f"Results of the exams were made with: {told}."


def _picture(figure: Figure, stem: Path, caption: str) -> Picture:
    with rc_context({"svg.hashsalt": "discnode"}):  # the same figure gives the same bytes
        figure.savefig(stem.with_name(f"{stem.name}.svg"), metadata={"Date": None})
    figure.savefig(stem.with_name(f"{stem.name}.pdf"), metadata={"CreationDate": None})
    held = io.BytesIO()
    figure.savefig(held, format="png", metadata={"Software": "discnode"})
    stem.with_name(f"{stem.name}.png").write_bytes(held.getvalue())
    with Image.open(held) as image:
        width, height = image.size
    return Picture(held.getvalue(), width, height, caption, caption)


def _p(p: float) -> str:
    return words.NONE if p != p else "< .0001" if p < 1e-4 else f"{p:.4f}"
