"""Table 1 of the paper: who was scanned, and how."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from processing.cohort.descriptives import fisher_exact, summarise_numbers, two_sided_t
from processing.results import LUMBAR_LEVELS
from service.cohort.reproduction.compared_scans import grade_of, result_document
from service.cohort.reproduction.item_files import ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_sources import ItemSources
from service.cohort.reproduction.records import Cohort, ReproducedScan
from service.reports import words
from service.reports.document import Block, Column, Row, Table

#: Columns of a cohort's table as they are called in print; others are shown under their own names.
_NAMES = {
    "age": "age (years)",
    "sex": "sex",
    "bmi": "BMI (kg/m²)",
    "height": "height (cm)",
    "height_cm": "height (cm)",
    "height_m": "height (m)",
    "odi": "ODI",
    "lbp": "low back pain",
    "sf36_physical": "SF-36, physical",
    "sf36_mental": "SF-36, mental",
    "vas_mean": "VAS, mean",
    "vas_max": "VAS, maximum",
    "ipaq": "IPAQ",
    "fat": "muscle fat fraction, mean of the levels",
}
_PAIN = ("lbp", "low_back_pain", "pain", "group")
_YES_NO = {"0": "no", "1": "yes"}
_LEVEL_ENDINGS = tuple(f"_{level.name}" for level in LUMBAR_LEVELS)


@dataclass(frozen=True, slots=True)
class _Groups:
    """How a cohort is divided: ``of`` gives the group of a subject, one of ``names``."""

    names: tuple[str, str]
    column: str  # of the table that says so; empty where none does
    of: Callable[[ReproducedScan], str]


def table_1(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Subjects of both cohorts by group, and the acquisition as the headers give it."""
    lines: list[dict[str, Any]] = []
    for cohort in Cohort:
        subjects = _first_scans(sources.of(cohort))
        if not subjects:
            continue
        table, rows = _people(cohort, subjects, _groups(cohort, sources.of(cohort)))
        lines += rows
        yield files.table(f"table1_{cohort}", table)
        files.numbers(f"table1_{cohort}", rows)
    if not lines:
        raise ItemUnavailable("neither cohort has a scan")
    acquisition, rows = _acquisition(sources)
    files.numbers("table1_acquisition", rows)
    yield files.table("table1_acquisition", acquisition)


def _first_scans(scans: Sequence[ReproducedScan]) -> list[ReproducedScan]:
    """One for each subject: the first in the table, its baseline."""
    return list({one.subject: one for one in reversed(scans)}.values())[::-1]


def _groups(cohort: Cohort, scans: Sequence[ReproducedScan]) -> _Groups | None:
    """Low back pain against controls, where the table tells; else those scanned twice against the others."""
    for column in _PAIN:
        values = sorted({one.values.get(column, "") for one in scans})
        if len(values) == 2 and "" not in values:
            first, second = (_pain_name(column, value) for value in values)
            return _Groups((first, second), column, lambda one, column=column: _pain_name(column, one.values[column]))  # type: ignore[misc]
    subjects = [one.subject for one in scans]
    twice = {one for one in subjects if subjects.count(one) > 1}
    if cohort is Cohort.B and twice and len(twice) < len(set(subjects)):
        names = ("one visit", "with follow-up")
        return _Groups(names, "", lambda one: names[one.subject in twice])
    return None


def _pain_name(column: str, value: str) -> str:
    told = {"1": "low back pain", "yes": "low back pain", "true": "low back pain", "0": "control", "no": "control"}
    text = told.get(value.strip().lower())
    return text if text is not None else value if column == "group" else f"{column} {value}"


def _people(
    cohort: Cohort, subjects: Sequence[ReproducedScan], groups: _Groups | None
) -> tuple[Table, list[dict[str, Any]]]:
    parts = [("all", list(subjects))]
    if groups is not None:
        parts += [(name, [one for one in subjects if groups.of(one) == name]) for name in groups.names]
    rows, lines = [], []
    for what, kind, values_of in _described(subjects, groups.column if groups else ""):
        held = {name: [values_of(one) for one in own] for name, own in parts}
        p = float("nan")
        if groups is not None:
            first, second = (held[name] for name in groups.names)
            p = fisher_exact(_known(first), _known(second)) if kind == "category" else _t_of(first, second)
        cells = [_category(own) if kind == "category" else _number(own) for own in held.values()]
        rows.append(Row(what, (*cells, _p(p)) if groups else tuple(cells)))
        lines += [_line(cohort, what, kind, name, own, p) for name, own in held.items()]
    graded = [_grades(own) for _, own in parts]
    if any(graded):
        rows.append(Row("discs by grade", (*graded, words.NONE) if groups else tuple(graded)))
    heads = [Column("variable")] + [Column(f"{name} (n = {len(own)})", is_text=True) for name, own in parts]
    heads += [Column("P")] if groups else []
    note = (
        "Numbers: mean ± SD (lowest to highest), compared by Student's two-sided t-test; categories: counts, compared"
        " by Fisher's exact test. One row for each subject, at the first visit. Discs of one spine are not independent:"
        " their grades are counted and not tested."
    )
    return Table(f"Table 1, cohort {cohort}: subjects", tuple(heads), tuple(rows), note), lines


def _described(
    subjects: Sequence[ReproducedScan], left_out: str
) -> Iterator[tuple[str, str, Callable[[ReproducedScan], str]]]:
    """What each column is called, whether it is a number or a category, and its value of a subject."""
    names = [name for name in dict.fromkeys(name for one in subjects for name in one.values) if name != left_out]
    stems = dict.fromkeys(name.rsplit("_", 1)[0] for name in names if name.endswith(_LEVEL_ENDINGS))
    for name in (one for one in names if not one.endswith(_LEVEL_ENDINGS)):
        values = [one.values.get(name, "").strip() for one in subjects]
        known = [value for value in values if value]
        if known:
            is_number = all(_is_number(value) for value in known) and len(set(known)) > 2
            shown = _NAMES.get(name.lower(), name.replace("_", " "))
            yield shown, "number" if is_number else "category", lambda one, name=name: one.values.get(name, "").strip()  # type: ignore[misc]
    for stem in (one for one in stems if one != "grade"):
        shown = _NAMES.get(stem.split("_")[0], f"{stem.replace('_', ' ')}, mean of the levels")
        yield shown, "number", lambda one, stem=stem: _mean_of_levels(one, stem)  # type: ignore[misc]


def _mean_of_levels(scan: ReproducedScan, stem: str) -> str:
    values = [float(text) for end in _LEVEL_ENDINGS if (text := scan.values.get(f"{stem}{end}", "").strip())]
    return f"{sum(values) / len(values):.6g}" if values else ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _known(values: Sequence[str]) -> list[str]:
    return [value for value in values if value]


def _t_of(first: Sequence[str], second: Sequence[str]) -> float:
    return two_sided_t([float(one) for one in _known(first)], [float(one) for one in _known(second)])


def _number(values: Sequence[str]) -> str:
    found = summarise_numbers([float(one) for one in _known(values)])
    if not found.n:
        return words.NONE
    digits = 0 if found.highest >= 500 else 1 if found.highest >= 2.5 else 2
    mean, sd, low, high = (words.number(x, digits) for x in (found.mean, found.sd, found.lowest, found.highest))
    missing = f", {len(values) - found.n} missing" if found.n < len(values) else ""
    return f"{mean} ± {sd} ({low} to {high}){missing}"


def _category(values: Sequence[str]) -> str:
    known = _known(values)
    said = _YES_NO if set(known) <= _YES_NO.keys() else {}
    counts = "; ".join(f"{said.get(name, name)} {known.count(name)}" for name in sorted(set(known))[::-1]) or words.NONE
    return f"{counts}, {len(values) - len(known)} missing" if len(known) < len(values) else counts


def _grades(subjects: Sequence[ReproducedScan]) -> str:
    found = [grade for one in subjects for level in LUMBAR_LEVELS if (grade := grade_of(one, level)) is not None]
    return "; ".join(f"{grade}: {found.count(grade)}" for grade in sorted(set(found)))


def _line(cohort: Cohort, what: str, kind: str, group: str, values: Sequence[str], p: float) -> dict[str, Any]:
    line: dict[str, Any] = {"cohort": cohort.value, "variable": what, "kind": kind, "group": group}
    if kind == "category":
        known = _known(values)
        counts = {name: known.count(name) for name in sorted(set(known))}
        line |= {"n": len(known), "counts": json.dumps(counts, ensure_ascii=False)}
    else:
        found = summarise_numbers([float(one) for one in _known(values)])
        line |= {"n": found.n, "mean": found.mean, "sd": found.sd, "lowest": found.lowest, "highest": found.highest}
    return line | {"p": p if group == "all" else float("nan"), "test": "Fisher" if kind == "category" else "t"}


def _p(p: float) -> str:
    return words.NONE if math.isnan(p) else "< .001" if p < 0.001 else f"{p:.3f}"


_ACQUIRED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "scanner": lambda one: f"{one['manufacturer']} {one['model']}".strip(),
    "field strength (T)": lambda one: one["field_strength_t"],
    "protocol": lambda one: one["protocol"],
    "spin-lock frequency (Hz)": lambda one: one["spin_lock_hz"],
    "spin-lock times (ms)": lambda one: " / ".join(f"{ms:g}" for ms in one["t1rho_times_ms"]),
    "T2 preparation times (ms)": lambda one: " / ".join(f"{ms:g}" for ms in one["t2_times_ms"]),
    "repetition time (ms)": lambda one: one["repetition_time_ms"],
    "matrix": lambda one: " × ".join(map(str, one["matrix"])) if one["matrix"] else None,
    "field of view (mm)": lambda one: _field_of_view(one),
    "pixel (mm)": lambda one: " × ".join(f"{mm:g}" for mm in one["pixel_spacing_mm"] or ()),
    "slice thickness (mm)": lambda one: one["slice_thickness_mm"],
    "distance of slices (mm)": lambda one: one["slice_spacing_mm"],
    "slices": lambda one: one["n_slices"],
}


def _field_of_view(one: dict[str, Any]) -> str | None:
    if not one["matrix"] or not one["pixel_spacing_mm"]:
        return None
    return " × ".join(f"{n * mm:.0f}" for n, mm in zip(one["matrix"], one["pixel_spacing_mm"], strict=True))


def _acquisition(sources: ItemSources) -> tuple[Table, list[dict[str, Any]]]:
    """Every value that occurs in the headers of a cohort's scans."""
    documents = {cohort: [result_document(one) for one in sources.of(cohort)] for cohort in Cohort}
    held = {
        cohort: [one["acquisition"] for one in own if one and one.get("acquisition")]
        for cohort, own in documents.items()
    }
    if not any(held.values()):
        raise ItemUnavailable("no result tells how it was acquired")
    rows, lines = [], []
    for what, value_of in _ACQUIRED.items():
        cells = []
        for own in held.values():
            values = list(dict.fromkeys(_shown(value_of(one)) for one in own))
            cells.append("; ".join(value for value in values if value) or words.NONE)
        rows.append(Row(what, tuple(cells)))
        lines += [
            {"parameter": what, "cohort": cohort.value, "value": cell} for cohort, cell in zip(held, cells, strict=True)
        ]
    heads = (
        Column("parameter"),
        *(Column(f"cohort {one} ({len(own)} scans)", is_text=True) for one, own in held.items()),
    )
    note = "Read from the headers of the measured images; a dash: they do not tell."
    return Table("Table 1: acquisition", heads, tuple(rows), note), lines


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
