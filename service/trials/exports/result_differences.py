"""Two sets of results of the same exams, say made with other weights: which numbers differ, and by how much.

Nothing is changed or written over: both sets are read, and a report is written beside them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from config.sections import SettingsError
from processing.display import QUANTITY_NAMES, REGION_NAMES, RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, Quantity, Region
from service.reports import words
from service.reports.document import Column, Document, Fact, Facts, Notice, Page, Picture, Table, Text, Tone
from service.reports.document import Row as TableRow
from service.reports.html import html_page
from service.trials.exports.columns import Row
from service.trials.exports.csv_files import write_table

_KEYS = {Quantity.T1RHO: "t1rho_ms", Quantity.T2: "t2_ms"}
_COLUMNS = ("exam", "level", "region", "quantity", "before_ms", "after_ms", "difference_ms", "n_before", "n_after")
_DPI = 110


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one region and quantity over all exams and levels that both sets have; ``after`` minus ``before``, ms.

    ``lower_ms`` and ``upper_ms``: limits of agreement, bias -+ 1.96 SD (Bland and Altman, Lancet 1986;327:307-310);
    None with fewer than three pairs.
    """

    region: Region
    quantity: Quantity
    n: int
    n_different: int
    largest_ms: float
    bias_ms: float
    lower_ms: float | None
    upper_ms: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """What was found. ``rows``: every number of either set. ``versions``: name -> (before, after) where not equal."""

    n_exams: int
    only_before: int
    only_after: int
    versions: Mapping[str, tuple[str, str]]
    rows: list[Row]
    statuses: list[tuple[str, str, str]]  # exam, before, after; where they differ
    agreements: tuple[Agreement, ...]

    @property
    def has_differences(self) -> bool:
        """Whether any number, any status or the exams themselves differ."""
        unequal = any(row["before_ms"] != row["after_ms"] or row["n_before"] != row["n_after"] for row in self.rows)
        return unequal or bool(self.statuses or self.only_before or self.only_after)

    def summary(self) -> list[str]:
        """For a terminal."""
        lines = [f"{self.n_exams} exams in both; {self.only_before} only before, {self.only_after} only after"]
        lines += [f"  {name}: {old} -> {new}" for name, (old, new) in self.versions.items()]
        for one in self.agreements:
            text = f"  {one.quantity.value} {one.region.value}: {one.n_different} of {one.n} differ"
            if one.n_different:
                text += f", at most by {one.largest_ms:.3f} ms"
            if one.n_different and one.lower_ms is not None and one.upper_ms is not None:
                text += f"; bias {one.bias_ms:+.3f}, limits {one.lower_ms:+.3f} to {one.upper_ms:+.3f} ms"
            lines.append(text)
        return lines


def compare_results(before: Path, after: Path, versions: tuple[int, int] | None = None) -> Differences:
    """Compare all results below two folders, exam by exam; exams are told by the series that were measured.

    Args:
        before: a folder with results; of a node's, the newest version of each exam counts.
        after: another one, or the same.
        versions: which version of each exam counts, in folders of a node.

    Raises:
        SettingsError: a folder has no result, or two results of the same exam.
    """
    older, newer = (None, None) if versions is None else versions
    first, second = _results_in(before, older), _results_in(after, newer)
    both = [key for key in first if key in second]
    rows: list[Row] = []
    statuses = []
    made_with: dict[str, tuple[str, str]] = {}
    for key in both:
        name = hashlib.sha256(key.encode()).hexdigest()[:12]  # no UID leaves
        old, new = first[key], second[key]
        rows += _rows_of(name, old, new)
        if old.get("status") != new.get("status"):
            statuses.append((name, str(old.get("status")), str(new.get("status"))))
        for part in sorted(old.get("versions", {}).keys() | new.get("versions", {}).keys()):
            pair = str(old.get("versions", {}).get(part, "")), str(new.get("versions", {}).get(part, ""))
            if pair[0] != pair[1]:
                made_with[part] = pair
    return Differences(
        n_exams=len(both),
        only_before=len(first) - len(both),
        only_after=len(second) - len(both),
        versions=made_with,
        rows=rows,
        statuses=statuses,
        agreements=tuple(_agreements(rows)),
    )


def _results_in(folder: Path, version: int | None) -> dict[str, dict[str, Any]]:
    """Series of the exam, joined -> content of its result.json. Of a node's exam folder its newest version counts."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.rglob("result.json" if version is None else f"v{version}/result.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        key = " ".join(sorted(one["series_uid"] for one in content.get("inputs", ())))
        if not key or content.get("phantom"):
            continue
        if key in found and path.parent not in found[key][0].parents and found[key][0].parent not in path.parents:
            raise SettingsError(f"{folder}: two results of the same exam: {found[key][0]} and {path}")
        if key not in found:
            found[key] = path, content
    if not found:
        raise SettingsError(f"{folder}: no result.json of an exam in it")
    return {key: content for key, (_, content) in found.items()}


def _rows_of(exam: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row]:
    rows = []
    for level in LUMBAR_LEVELS:
        for region in Region:
            for quantity in Quantity:
                pair = [_entry(one, level.name, region, quantity) for one in (old, new)]
                if pair == [{}, {}]:
                    continue
                first, second = (one.get("mean") for one in pair)
                difference = None if first is None or second is None else second - first
                values = (exam, level.name, region.value, quantity.value, first, second, difference)
                rows.append(dict(zip(_COLUMNS, (*values, *(one.get("n") for one in pair)), strict=True)))
    return rows


def _entry(result: Mapping[str, Any], level: str, region: Region, quantity: Quantity) -> dict[str, Any]:
    for disc in result.get("discs", ()):
        if disc["level"] == level:
            place = disc if region is Region.WHOLE_DISC else disc["regions"].get(region.value, {})
            found: dict[str, Any] = place.get(_KEYS[quantity]) or {}
            return found
    return {}


def _pairs(rows: Sequence[Row], region: Region, quantity: Quantity) -> npt.NDArray[np.float64]:
    """(2, n): before and after, of the cells that both have."""
    chosen = [
        (row["before_ms"], row["after_ms"])
        for row in rows
        if row["region"] == region.value and row["quantity"] == quantity.value and row["difference_ms"] is not None
    ]
    return np.array(chosen, dtype=np.float64).reshape(-1, 2).T


def _agreements(rows: Sequence[Row]) -> list[Agreement]:
    found = []
    for quantity in Quantity:
        for region in Region:
            before, after = _pairs(rows, region, quantity)
            if not before.size:
                continue
            gaps = after - before
            bias = float(gaps.mean())
            half = 1.96 * float(gaps.std(ddof=1)) if gaps.size >= 3 else None
            found.append(
                Agreement(
                    region=region,
                    quantity=quantity,
                    n=gaps.size,
                    n_different=int((gaps != 0).sum()),
                    largest_ms=float(np.abs(gaps).max()),
                    bias_ms=bias,
                    lower_ms=None if half is None else bias - half,
                    upper_ms=None if half is None else bias + half,
                )
            )
    return found


def write_differences(found: Differences, out: Path) -> None:
    """Write differences.csv and differences.html into a new folder.

    Raises:
        SettingsError: it exists; nothing is written over.
    """
    if out.exists():
        raise SettingsError(f"{out}: exists; nothing is written over")
    out.mkdir(parents=True)
    write_table(out / "differences.csv", _COLUMNS, found.rows)
    (out / "differences.html").write_text(html_page(_page(found)), encoding="utf-8")


def _page(found: Differences) -> Document:
    different = sum(one.n_different for one in found.agreements)
    numbers = sum(one.n for one in found.agreements)
    title = f"{different} of {numbers} numbers differ" if found.has_differences else "No number differs"
    lines = [f"Exam {name}: {old} before, {new} after." for name, old, new in found.statuses]
    if found.only_before or found.only_after:
        lines.append(f"{found.only_before} exams only before, {found.only_after} only after: not compared.")
    facts = [Fact(name, f"{old or words.NONE} → {new or words.NONE}") for name, (old, new) in found.versions.items()]
    blocks: list[Any] = [
        Notice(Tone.CAUTION if found.has_differences else Tone.GOOD, title, tuple(lines)),
        Facts("Made with: before → after", tuple(facts or [Fact("Versions", "the same")]), in_row=1),
        _table(found.agreements),
    ]
    if different:
        png, width, height = _picture(found)
        caption = "After minus before, against the mean of both; lines: bias and limits of agreement."
        blocks.append(Picture(png, width, height, "Bland-Altman plots by region.", caption))
    blocks.append(Text("How to read it", (_HOW,)))
    document_title = "Two sets of results of the same exams"
    return Document(document_title, words.USE, RESEARCH_USE_ONLY, (Page(document_title, tuple(blocks)),))


_HOW = (
    "Both sets are kept as they are; a trial that is frozen counts only results of its frozen versions. Exams are told"
    " by the series that were measured, and named here by a digest. Every number is in differences.csv."
)


def _table(agreements: Sequence[Agreement]) -> Table:
    heads = ("Region", "compared", "differ", "largest, ms", "bias, ms", "limits, ms")
    rows = []
    for one in agreements:
        limits = words.NONE
        if one.lower_ms is not None and one.upper_ms is not None:
            limits = f"{words.number(one.lower_ms, 2)} to {words.number(one.upper_ms, 2)}"
        numbers = words.number(one.largest_ms, 2), words.number(one.bias_ms, 2), limits
        name = f"{QUANTITY_NAMES[one.quantity]} {REGION_NAMES[one.region]}"
        rows.append(TableRow(name, (f"{one.n:,}", f"{one.n_different:,}", *numbers)))
    return Table("By region, over all levels and exams", tuple(Column(head) for head in heads), tuple(rows))


def _picture(found: Differences) -> tuple[bytes, int, int]:
    quantities = [one for one in Quantity if any(each.quantity is one for each in found.agreements)]
    regions = list(Region)
    figure = Figure(figsize=(11.0, 2.7 * len(quantities)), dpi=_DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(quantities), len(regions), squeeze=False, sharey="row")
    for line, quantity in zip(panels, quantities, strict=True):
        for axes, region in zip(line, regions, strict=True):
            before, after = _pairs(found.rows, region, quantity)
            axes.scatter((before + after) / 2, after - before, s=12, color="#0072b2")
            one = next((each for each in found.agreements if (each.region, each.quantity) == (region, quantity)), None)
            if one is not None:
                axes.axhline(one.bias_ms, color="#1b2530", lw=1)
                for limit in (one.lower_ms, one.upper_ms):
                    if limit is not None:
                        axes.axhline(limit, color="#d55e00", lw=0.9, ls="--")
            axes.set_title(f"{QUANTITY_NAMES[quantity]} {REGION_NAMES[region]}", fontsize=9)
            axes.tick_params(labelsize=7)
        line[0].set_ylabel("after − before, ms", fontsize=8)
    canvas.draw()
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": "discnode"})
    width, height = canvas.get_width_height()
    return stream.getvalue(), width, height
