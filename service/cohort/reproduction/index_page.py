"""The first page of a reproduction: what was planted and found, which scans were measured, and where the rest lies."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from processing.cohort.inference import CONTROL_NAMES, Control
from processing.display import LEVEL_NAMES, QUANTITY_NAMES
from processing.results import Level, Quantity
from service.cohort.reproduction.effects import ODI_CENTRE, ODI_LEVEL, ODI_RADIUS, ODI_T1RHO_MS, ODI_T2_MS
from service.cohort.reproduction.planted import ALPHA, EffectFound, FalseFindings, Verdict, headline
from service.cohort.reproduction.records import LABEL, Cohort
from service.cohort.reproduction.scans import ScanOutcome
from service.reports import words
from service.reports.document import Block, Column, Document, Notice, Page, Row, Table, Text, Tone
from service.reports.rendering import render

_CITATION = "Iriondo C, Pedoia V, Majumdar S. Magn Reson Med 2020;84:1376–1390"


def write_index(folder: Path, verdict: Verdict, outcomes: Sequence[ScanOutcome], *, seed: int) -> None:
    """Write index.html and index.pdf."""
    made = render(index_page(verdict, outcomes, seed=seed))
    (folder / "index.html").write_text(made.html, encoding="utf-8")
    (folder / "index.pdf").write_bytes(made.pdf)


def index_page(verdict: Verdict, outcomes: Sequence[ScanOutcome], *, seed: int) -> Document:
    """The page as a document."""
    pages = [Page(LABEL, tuple(_first(verdict, outcomes)))]
    for run in dict.fromkeys(one.run for one in verdict.effects):
        rows = [one for one in verdict.effects if one.run == run]
        pages.append(Page(f"{run}: what was planted", (_effects_table(rows, headline(run)),)))
    return Document(LABEL, words.USE, f"seed {seed}", tuple(pages))


def _first(verdict: Verdict, outcomes: Sequence[ScanOutcome]) -> Iterator[Block]:
    yield Notice(
        Tone.CAUTION,
        f"{LABEL}: nobody was scanned",
        (f"The analyses are those of {_CITATION}; the people, their images and every effect are simulated.",),
    )
    yield Text("What was planted", tuple(_planted_in_words()))
    yield from _scans(outcomes)
    yield _elsewhere_table(verdict.elsewhere)
    yield Text(
        "Where the rest lies",
        (
            "items/report.html: every table and figure of the paper, as published and corrected.",
            "A-paper, A-corrected, B-paper, B-corrected: each run with its report.html, maps, tables and figures; the"
            " plan of each beside it.",
            "verdict.csv, false-findings.csv, verdict.json: the numbers of these pages, of every control.",
            "scans: the images, the result and the truth of each scan; cohort-A.csv and cohort-B.csv: the people.",
        ),
    )


def _planted_in_words() -> Iterator[str]:
    centre, radius = (", ".join(f"{one:g}" for one in numbers) for numbers in (ODI_CENTRE, ODI_RADIUS))
    slopes = "; ".join(
        f"{cohort}: T1ρ {ODI_T1RHO_MS[cohort]:+g} ms for each point of the ODI"
        + (f", T2 {ODI_T2_MS[cohort]:+g} ms" if cohort is Cohort.B else "")
        for cohort in Cohort
    )
    yield "Grade: T1ρ and T2 of the nucleus fall with the Pfirrmann grade, at every level; the annulus does not."
    yield (
        f"ODI: at {LEVEL_NAMES[ODI_LEVEL]} alone, in an ellipsoid about the back of the nucleus and the posterior"
        f" annulus (centre {centre} and radii {radius} of the half depth, half width and half height). {slopes}. The"
        " effect is large on purpose: with 15 people a correlation of about .9 survives the correction of a whole disc."
    )
    yield (
        "Nothing else: the ODI does nothing at other levels, and neither the IPAQ (B) nor the mental score of the SF-36"
        " (A) does anything. The ODI was dealt out so that it goes with neither age, sex, BMI nor the grade of that"
        " disc."
    )
    yield (
        "The planted region on the atlas follows from the model that disc and atlas share; registration is not asked."
    )


def _scans(outcomes: Sequence[ScanOutcome]) -> Iterator[Block]:
    doubtful = [one for one in outcomes if one.status != "ok"]
    count = f"{len(outcomes)} scans were made"
    if not doubtful:
        yield Notice(Tone.GOOD, f"{count}; all were measured without doubts")
        return
    lines = [
        f"{one.scan.subject} {one.scan.visit}: {one.status.replace('_', ' ')}. {'; '.join(one.reasons)}"
        for one in doubtful
    ]
    refused = sum(one.status == "refused" for one in doubtful)
    title = f"{count}: {refused} refused and left out, {len(doubtful) - refused} measured and asking for review"
    yield Notice(Tone.CAUTION, title, tuple(lines))


def _effects_table(rows: Sequence[EffectFound], control: Control) -> Table:
    columns = (
        Column("Level, question"),
        Column("of", is_text=True),
        Column("planted"),
        Column("found"),
        Column("beside"),
        Column("Dice"),
        Column("r or ms there"),
        Column("P of disc"),
        Column("P of a part"),
        Column("seen by", is_text=True),
    )
    lines = tuple(
        Row(
            f"{LEVEL_NAMES[Level[one.level]]}, {one.question}",
            (
                QUANTITY_NAMES[Quantity(one.quantity)],
                str(one.planted),
                str(one.right),
                str(one.beside),
                f"{one.dice:.2f}",
                f"{one.effect:.2f}",
                _p(one.p_disc),
                _p(one.p_region),
                _seen_by(one),
            ),
        )
        for one in rows
        if one.control == control.value
    )
    note = (
        f"Voxels: {CONTROL_NAMES[control]}, P ≤ {ALPHA:g}. Found: in the planted region and of its sign; beside: where"
        " nothing of it is. P of the mean of the disc, and the smallest of nucleus and annuli, each by itself."
    )
    return Table("By question", columns, lines, note, is_dense=True)


def _seen_by(one: EffectFound) -> str:
    by_disc = one.p_disc <= ALPHA
    if one.right:
        return "both" if by_disc else "voxels, not the disc"
    return "the disc alone" if by_disc else "neither"


def _elsewhere_table(rows: Sequence[FalseFindings]) -> Table:
    lines = []
    for run in dict.fromkeys(one.run for one in rows):
        for control in Control:
            own = [one for one in rows if one.run == run and one.control == control.value]
            if own:
                tests, found = sum(one.tests for one in own), sum(one.found for one in own)
                cells = (CONTROL_NAMES[control], str(tests), str(found), f"{ALPHA * tests:.1f}")
                lines.append(Row(run, cells))
    columns = (
        Column("Run"),
        Column("control", is_text=True),
        Column("maps"),
        Column("with a voxel"),
        Column("by chance"),
    )
    note = (
        "Maps of questions and levels where nothing was planted. The questions about the ODI are asked of the same"
        " maps, so they are not independent of each other."
    )
    return Table(f"Where nothing is: maps with a voxel of P ≤ {ALPHA:g}", columns, tuple(lines), note, is_dense=True)


def _p(p: float) -> str:
    return words.NONE if math.isnan(p) else "< .0001" if p < 1e-4 else f"{p:.4f}"
