"""The numbers of a cohort's analyses as CSV: of regions, of clusters, and how many voxels survive; maps as arrays."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processing.cohort.inference import Control
from processing.display import RESEARCH_USE_ONLY
from service.cohort.models import ModelFinding
from service.cohort.run import CohortFinding


def write_regions(findings: Sequence[CohortFinding], path: Path) -> None:
    """The same questions asked of whole disc, nucleus and annuli: ``effect`` is r, or ms; P uncorrected."""
    rows = (
        {
            **_where(one),
            "region": row.region.value,
            "effect": row.effect,
            "kind": one.analysis.kind,
            "low": row.low,
            "high": row.high,
            "t": row.t,
            "p": row.p,
            "n": row.n,
        }
        for one in findings
        for row in one.analysis.regions
    )
    names = ("analysis", "level", "quantity", "region", "effect", "kind", "low", "high", "t", "p", "n", "use")
    write_rows(path, names, rows)


def write_clusters(findings: Sequence[CohortFinding], path: Path) -> None:
    """Every cluster above the forming height, of either sign, with its P by each control."""
    controls = [one for one in Control if any(one in row.p for f in findings for row in f.analysis.inference.clusters)]
    rows = (
        {
            **_where(one),
            "sign": row.sign,
            "voxels": row.size,
            "mass": row.mass,
            "peak_t": row.peak_t,
            **dict(zip(("slice", "row", "column"), row.peak_index, strict=True)),
            **{f"p_{control.value}": row.p.get(control, math.nan) for control in controls},
        }
        for one in findings
        for row in one.analysis.inference.clusters
    )
    names = ("analysis", "level", "quantity", "sign", "voxels", "mass", "peak_t", "slice", "row", "column")
    write_rows(path, (*names, *(f"p_{control.value}" for control in controls), "use"), rows)


def write_summary(
    findings: Sequence[CohortFinding], path: Path, alpha: float, models: Sequence[ModelFinding] = ()
) -> None:
    """A row for each analysis: subjects, voxels, and how many voxels survive each control; models by their notes."""
    controls = [one for one in Control if any(one in f.analysis.inference.p for f in findings)]
    rows = []
    for one in findings:
        inference = one.analysis.inference
        row: dict[str, Any] = {
            **_where(one),
            "subjects": len(one.analysis.units),
            "voxels": len(one.analysis.effect),
            "voxels_in_family": int(inference.in_family.sum()),
            "smallest_p": inference.smallest_p,
        }
        if inference.smoothness is not None:
            row["fwhm_voxels"] = " x ".join(
                f"{width:.2f}" for width in inference.smoothness.fwhm if math.isfinite(width)
            )
        for control in controls:
            if control in inference.p:
                row[f"n_{control.value}"] = int(inference.survives(control, alpha).sum())
        row["notes"] = "; ".join((*inference.notes, *one.left_out))
        rows.append(row)
    for model in models:
        notes = (f"model of the {model.region}", *model.left_out)
        if model.target is not None:
            target = model.target
            told = f"{target.words}, {target.visit}"
            notes = (notes[0], f"{told}: {target.estimate.estimate:.3g} ms, P {target.estimate.p:.3g}", *notes[1:])
        where = {"analysis": model.name, "level": model.level, "quantity": model.quantity}
        use = RESEARCH_USE_ONLY.lower()
        rows.append(where | {"subjects": model.n_subjects, "notes": "; ".join(notes), "use": use})
    names = ("analysis", "level", "quantity", "subjects", "voxels", "voxels_in_family", "fwhm_voxels", "smallest_p")
    write_rows(path, (*names, *(f"n_{control.value}" for control in controls), "notes", "use"), rows)


def write_maps(finding: CohortFinding, folder: Path) -> Path:
    """Effect, interval, n and P of every voxel as arrays on the level's grid (.npz, NaN outside); returns the file."""
    analysis = finding.analysis
    mask = analysis.maps.mask
    arrays: dict[str, Any] = {"regions": analysis.maps.regions, "spacing_mm": np.array(analysis.maps.spacing_mm)}
    per_voxel = {"effect": analysis.effect, "low": analysis.low, "high": analysis.high, "n": analysis.n}
    per_voxel |= {f"p_{control.value}": values for control, values in analysis.inference.p.items()}
    if analysis.groups is not None:
        for name in ("means", "sds", "maxima"):
            first, second = getattr(analysis.groups, name)
            per_voxel |= {f"first_{name}": first, f"second_{name}": second}
    for name, values in per_voxel.items():
        picture = np.full(mask.shape, np.nan, np.float32)
        picture[mask] = values
        arrays[name] = picture
    path = folder / f"{finding.name}_{finding.level.name}_{finding.quantity.replace(' ', '_')}.npz"
    np.savez_compressed(path, **arrays)
    return path


def _where(one: CohortFinding) -> dict[str, Any]:
    return {"analysis": one.name, "level": one.level.name, "quantity": one.quantity, "use": RESEARCH_USE_ONLY.lower()}


def write_rows(path: Path, names: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Rows as CSV under the names of their columns."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _text(value) for name, value in row.items()})


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value
