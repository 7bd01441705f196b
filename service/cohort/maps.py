"""The maps of all scans of a cohort in atlas space, by level and quantity; only what may be compared comes together."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config.cohort_plans import CohortPlan
from dicom_io.result_reader import UnreadableResult, read_atlas_maps
from processing.cohort.level_maps import LevelMaps
from processing.results import Level, Quantity
from service.cohort.table import CohortError, Scan

#: Values that the paper leaves out, ms: T1rho where it was measured alone, with T2, and T2.
PAPER_CEILINGS_MS = {"T1rho_alone": 250.0, "T1rho": 200.0, "T2": 150.0}

#: What must be the same in all results of a cohort, by its name in ``versions`` of result.json.
_SAME = {"atlas_sha256": "atlas", "protocol": "protocol", "registration_preset": "registration"}
_WARNED = {"discnode": "version of discnode", "model_sha256": "networks", "settings_digest": "settings"}


@dataclass(frozen=True, slots=True, eq=False)
class CohortMaps:
    """Maps by level and quantity, rows in the order of ``keys`` ("subject" or "subject, visit"); what was left out."""

    maps: dict[tuple[Level, Quantity], LevelMaps]
    warnings: tuple[str, ...]
    versions: dict[str, str]


def key_of(scan: Scan) -> str:
    """How a scan is called in maps: a subject has a scan at a visit once."""
    return f"{scan.subject}\x1f{scan.visit}"


def check_results(scans: Sequence[Scan]) -> tuple[str, ...]:
    """Whether the results can come together, as far as their ``result.json`` tells; returns what is to bear in mind.

    Raises:
        CohortError: one cannot be read or was refused, or they are of different protocols or atlases.
    """
    return _check_alike(scans, [_document(scan) for scan in scans])


def load_maps(
    scans: Sequence[Scan], plan: CohortPlan, progress: Callable[[float], None] = lambda _: None
) -> CohortMaps:
    """Read all maps that a plan asks for.

    Raises:
        CohortError: a result cannot be read or was refused, or results of different protocols or atlases are mixed.
    """
    documents = [_document(scan) for scan in scans]
    warnings = list(_check_alike(scans, documents))
    levels = [Level[name] for name in plan.levels]
    quantities = [Quantity(name) for name in plan.quantities]
    rows: dict[tuple[Level, Quantity], list[tuple[str, np.ndarray[Any, Any]]]] = {}
    shapes: dict[Level, tuple[np.ndarray[Any, Any], tuple[float, float, float]]] = {}
    for place, scan in enumerate(scans):
        try:
            found = read_atlas_maps(scan.result)
        except UnreadableResult as error:
            raise CohortError(f"line {scan.line}: {error}") from error
        for level in levels:
            disc = found.get(level)
            if disc is None:
                warnings.append(f"{scan.subject} {scan.visit}: {level.name} was not measured".replace("  ", " "))
                continue
            regions, spacing_mm = shapes.setdefault(level, (disc.regions, disc.spacing_mm))
            if not np.array_equal(regions, disc.regions) or not np.allclose(spacing_mm, disc.spacing_mm, rtol=1e-4):
                raise CohortError(f"line {scan.line}: {level.name} lies on another atlas than the scans before")
            for quantity in quantities:
                if quantity not in disc.times_ms:
                    continue
                values = disc.times_ms[quantity][regions > 0].astype(np.float64)
                if plan.paper:
                    values = np.where(values < _ceiling(quantity, documents[place]), values, np.nan)
                rows.setdefault((level, quantity), []).append((key_of(scan), values))
        progress((place + 1) / len(scans))
    maps = {
        (level, quantity): LevelMaps(
            level,
            quantity.value,
            shapes[level][0],
            shapes[level][1],
            np.stack([values for _, values in held]),
            tuple(key for key, _ in held),
        )
        for (level, quantity), held in rows.items()
    }
    warnings += [
        f"no scan has {quantity.value} at {level.name}"
        for level in levels
        for quantity in quantities
        if (level, quantity) not in maps
    ]
    return CohortMaps(maps, tuple(warnings), dict(documents[0]["versions"]))


def _document(scan: Scan) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((scan.result / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CohortError(f"line {scan.line}: result.json cannot be read ({type(error).__name__})") from error
    if not isinstance(document, dict) or not isinstance(document.get("versions"), dict):
        raise CohortError(f"line {scan.line}: result.json is not of a result")
    if document.get("status") == "refused":
        codes = ", ".join(one["code"] for one in document.get("reasons", ()))
        raise CohortError(f"line {scan.line}: {scan.subject}: the exam was refused ({codes})")
    for path in (str(one.get("path")) for one in document.get("objects", ())):
        if "atlas" in Path(path).name and not (scan.result / path).is_file():
            raise CohortError(f"line {scan.line}: {scan.subject}: {path} stands in result.json and is missing")
    return document


def _check_alike(scans: Sequence[Scan], documents: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    for key, name in _SAME.items():
        held: dict[str, list[int]] = {}
        for scan, document in zip(scans, documents, strict=True):
            held.setdefault(str(document["versions"].get(key, "not known")), []).append(scan.line)
        if len(held) > 1:
            told = "; ".join(f"{value[:24]} (lines {', '.join(map(str, at[:4]))})" for value, at in held.items())
            raise CohortError(f"results of more than one {name} cannot be one map: {told}")
    warnings = []
    for key, name in _WARNED.items():
        kinds = {str(document["versions"].get(key, "")) for document in documents}
        if len(kinds) > 1:
            warnings.append(f"results were made with {len(kinds)} different {name}")
    reviewed = [scan for scan, one in zip(scans, documents, strict=True) if one.get("status") == "needs_review"]
    if reviewed:
        warnings.append(f"{len(reviewed)} results ask for review: lines {', '.join(str(one.line) for one in reviewed)}")
    return tuple(warnings)


def _ceiling(quantity: Quantity, document: dict[str, Any]) -> float:
    if quantity is Quantity.T2:
        return PAPER_CEILINGS_MS["T2"]
    has_t2 = any(one.get("t2_times_ms") for one in document.get("inputs", ()))
    return PAPER_CEILINGS_MS["T1rho" if has_t2 else "T1rho_alone"]
