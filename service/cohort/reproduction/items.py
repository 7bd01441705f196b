"""Every table and figure of the paper from one reproduction, as files and as one report; what is missing is told.

Each item is a function of :class:`ItemSources`; this page lists them and puts the report together.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from config.settings import Settings
from processing.display import RESEARCH_USE_ONLY
from service.cohort.reproduction.compared_scans import result_document
from service.cohort.reproduction.item_agreement import (
    figure_2,
    figure_3,
    figure_s3,
    figure_s4,
    table_2_items,
    table_3_items,
)
from service.cohort.reproduction.item_files import LINE, ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_maps import figure_5, figure_6, figure_7, figure_over_time, figure_s5, figure_s6
from service.cohort.reproduction.item_network import table_s1, table_s7_s9
from service.cohort.reproduction.item_people import table_1
from service.cohort.reproduction.item_registration import figure_4, figure_s2, figures_s10_s11
from service.cohort.reproduction.item_sources import ItemSources, read_sources
from service.cohort.reproduction.records import LABEL, Cohort, ReproducedScan
from service.reports import words
from service.reports.document import Block, Column, Document, Notice, Page, Row, Table, Text, Tone
from service.reports.rendering import render
from service.versions import PACKAGES

_CITATION = "Iriondo C, Pedoia V, Majumdar S. Magn Reson Med 2020;84:1376–1390, doi 10.1002/mrm.28210"
_PACKAGES = (*PACKAGES, "statsmodels", "matplotlib")


@dataclass(frozen=True, slots=True)
class Item:
    """One table or figure of the paper; ``make`` writes its files and gives what the report shows."""

    key: str
    title: str
    make: Callable[[ItemSources, ItemFolder], Iterator[Block]]


@dataclass(frozen=True, slots=True)
class MadeItem:
    """What became of an item: ``blocks`` for the report; ``reason`` why it, or the rest of it, is not there."""

    item: Item
    blocks: tuple[Block, ...]
    reason: str = ""


ITEMS = (
    Item("Table 1", "Subjects and acquisition", table_1),
    Item("Table 2", "Segmentation", table_2_items),
    Item("Table 3", "Agreement of relaxation times", table_3_items),
    Item("Fig 2", "Image, truth, probability", figure_2),
    Item("Fig 3", "Scatter and Bland–Altman by level", figure_3),
    Item("Fig 4", "Before and after registration", figure_4),
    Item("Fig 5", "Voxels by grade", figure_5),
    Item("Fig 6", "T1ρ by disability (ODI)", figure_6),
    Item("Fig 7", "T1ρ by T2", figure_7),
    Item("Over time", "Change from baseline to follow-up", figure_over_time),
    Item("S1", "The network", table_s1),
    Item("S2", "Registration driven by grey values", figure_s2),
    Item("S3", "Segmentation by grade", figure_s3),
    Item("S4", "Relaxation times by grade", figure_s4),
    Item("S5", "T2 by disability (ODI)", figure_s5),
    Item("S6", "Fat fraction of the muscles", figure_s6),
    Item("S7–S9", "U-Nets", table_s7_s9),
    Item("S10, S11", "Other atlases", figures_s10_s11),
)


def write_items(
    folder: Path,
    scans: Sequence[ReproducedScan],
    out: Path,
    *,
    settings: Settings | None = None,
    seed: int | None = None,
    items: Sequence[Item] = ITEMS,
    progress: Callable[[str, float], None] = lambda _name, _share: None,
) -> tuple[MadeItem, ...]:
    """Write every item into ``out``: ``figures/``, ``items.csv``, ``report.html`` and ``report.pdf``.

    Args:
        folder: of the reproduction, as :mod:`service.cohort.reproduction.records` describes it.
        scans: as :func:`~service.cohort.reproduction.records.read_scans` gives them.
        out: is made; files of an earlier run are replaced.
        settings: those the scans were analysed with.
        seed: of the simulation, as it is told in the report.
        items: which of them.
        progress: is told what is made and the finished share.

    Returns:
        What became of each item, in the order of the report.

    Raises:
        OSError: images or truth of a scan are not there, or ``out`` cannot be written.
    """
    files = ItemFolder(out / "figures")
    files.path.mkdir(parents=True, exist_ok=True)
    settings = settings or Settings()
    sources = read_sources(folder, scans, settings, seed=seed, progress=lambda name, share: progress(name, 0.3 * share))
    made = []
    for number, item in enumerate(items):
        progress(item.key, 0.3 + 0.7 * number / len(items))
        made.append(make_item(item, sources, files))
    _write_index(made, out / "items.csv")
    report = render(items_report(sources, made))
    (out / "report.html").write_text(report.html, encoding="utf-8")
    (out / "report.pdf").write_bytes(report.pdf)
    progress("done", 1.0)
    return tuple(made)


def make_item(item: Item, sources: ItemSources, files: ItemFolder) -> MadeItem:
    """One item; what it cannot be made of is its reason, and what came before that stays."""
    blocks: list[Block] = []
    try:
        for block in item.make(sources, files):
            blocks.append(block)  # noqa: PERF402 - what was made before a reason stays
    except ItemUnavailable as reason:
        return MadeItem(item, tuple(blocks), str(reason))
    return MadeItem(item, tuple(blocks))


def items_report(sources: ItemSources, made: Sequence[MadeItem]) -> Document:
    """The report: what this is, how it was made, and a page for each item."""
    pages = [Page(LABEL, tuple(_head(sources, made)))]
    for one in made:
        blocks = list(one.blocks)
        if one.reason:
            title = "Not there" if not blocks else "Not all of it is there"
            blocks.append(Notice(Tone.CAUTION, title, (_sentence(one.reason),)))
        pages.append(Page(f"{one.item.key}: {one.item.title}", (*_labelled(blocks),)))
    return Document(f"{LABEL}: {_CITATION}", words.USE, LINE, tuple(pages))


def _labelled(blocks: Sequence[Block]) -> Iterator[Block]:
    yield Text("", (LINE,))
    yield from blocks


def _head(sources: ItemSources, made: Sequence[MadeItem]) -> Iterator[Block]:
    counts = {cohort: len(sources.of(cohort)) for cohort in Cohort}
    yield Notice(
        Tone.CAUTION,
        f"{LABEL}: no finding about people",
        (
            f"Cohort A: {counts[Cohort.A]} scans, cohort B: {counts[Cohort.B]} scans, all simulated. What is found was"
            " planted, or is chance.",
            f"The paper: {_CITATION}. Its own numbers stand beside ours only where a column says so.",
        ),
    )
    rows = tuple(
        Row(one.item.key, (one.item.title, "there" if not one.reason else _sentence(one.reason))) for one in made
    )
    heads = (Column("key"), Column("item", is_text=True), Column("state", is_text=True))
    yield Table("Items", heads, rows, LINE)
    yield Text("Methods", tuple(_methods(sources)))
    yield _made_with(sources)


def _methods(sources: ItemSources) -> Iterator[str]:
    yield (
        "Spines were simulated with set relaxation times, grades and local effects, imaged as the paper's protocols do"
        " (A: T1ρ FSE, one sagittal slice; B: MAPSS with T1ρ and T2) and written as DICOM. Every scan then went through"
        " the analysis that patients' scans go through: segmentation by the networks, naming of levels, registration of"
        " each disc to the atlas by its mask, deformation of the echoes, mono-exponential fit voxel by voxel."
    )
    yield (
        "Masks were compared with the simulation's own (2-D for A, 3-D for B): Dice, symmetric mean surface distance,"
        " volume difference, sensitivity, precision; means with t-based 95 % intervals over discs. Times under both"
        " masks: Pearson's r, paired t-test, bias and limits of agreement. Differences read truth − automatic."
    )
    yield (
        "Associations were tested at each voxel of each level by itself. As published: Pearson's or partial"
        " correlation, unpaired t-test, P not corrected for the number of voxels, scans of one subject as independent,"
        " times above the published ceilings left out. Corrected: one scan for each subject, no ceiling, and the"
        " control that each figure names over the voxels of a disc."
    )
    for (cohort, way), run in sorted(sources.runs.items()):
        yield (
            f"Plan {cohort}-{way}: {len(run.plan.analyses)} analyses, seed {run.plan.seed},"
            f" {'no permutation' if run.plan.paper else f'{run.plan.inference.permutations:,} permutations'}, SHA-256"
            f" {run.facts.plan_sha256}."
        )
    for (cohort, way), reason in sorted(sources.missing.items()):
        yield f"Plan {cohort}-{way}: {_sentence(reason)}"
    yield f"Seed of the simulation: {'not told' if sources.seed is None else sources.seed}."


def _made_with(sources: ItemSources) -> Table:
    """Software here, and what the results say they were made with."""
    rows = [Row(f"{package}", (version(package), "")) for package in ("discnode", *_PACKAGES)]
    held: dict[str, dict[str, None]] = {}
    for scan in sources.scans:
        for name, value in ((result_document(scan) or {}).get("versions") or {}).items():
            held.setdefault(name, {})[str(value)] = None
    named = {row.name: row for row in rows}
    table = [
        Row(
            name,
            (here.cells[0] if (here := named.get(name)) else words.NONE, "; ".join(held.get(name, ())) or words.NONE),
        )
        for name in dict.fromkeys((*named, *held))
    ]
    heads = (Column("what"), Column("this report", is_text=True), Column("the scans' results", is_text=True))
    return Table("Made with", heads, tuple(table), LINE, is_dense=True)


def _write_index(made: Sequence[MadeItem], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["item", "title", "there", "reason", "label", "use"])
        for one in made:
            there = "yes" if not one.reason else "in part" if one.blocks else "no"
            writer.writerow([one.item.key, one.item.title, there, one.reason, LABEL, RESEARCH_USE_ONLY])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '…')) else '.'}"
