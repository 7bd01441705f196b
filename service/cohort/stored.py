"""What a run found, kept so that its report can be made again without computing anything anew.

``record/`` of a run's folder holds, for each analysis, its arrays (.npz, as computed) and, in one file, all that is no
array; maps of single subjects are not in it.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from processing.cohort.analysis import MapAnalysis, RegionRow
from processing.cohort.association import GroupDifference
from processing.cohort.inference import ClusterRow, Control, Inference
from processing.cohort.level_maps import LevelMaps
from processing.cohort.random_fields import Smoothness
from processing.results import Level
from service.cohort.run import CohortFinding
from service.cohort.table import CohortError

_CLUSTERS, _REGIONS = TypeAdapter(tuple[ClusterRow, ...]), TypeAdapter(tuple[RegionRow, ...])
_SMOOTHNESS, _THRESHOLDS = TypeAdapter(Smoothness | None), TypeAdapter(dict[Control, float])
_INDEX = "analyses.json"


def store_analyses(findings: Sequence[CohortFinding], folder: Path) -> None:
    """Write all findings into a folder, which is made."""
    folder.mkdir()
    index = []
    for number, one in enumerate(findings):
        file = f"{number:03d}.npz"
        np.savez_compressed(folder / file, **_arrays(one.analysis))
        index.append({"file": file, **_described(one)})
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def stored_analyses(folder: Path) -> tuple[CohortFinding, ...]:
    """What :func:`store_analyses` wrote, without the maps of subjects.

    Raises:
        CohortError: a file is missing, or was not written so.
    """
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return tuple(_finding(one, folder) for one in index)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise CohortError(f"{folder}: is not what a run wrote ({type(error).__name__})") from error


def _described(one: CohortFinding) -> dict[str, Any]:
    analysis = one.analysis
    inference = analysis.inference
    return {
        "name": one.name,
        "level": one.level.name,
        "quantity": one.quantity,
        "left_out": one.left_out,
        "title": analysis.title,
        "kind": analysis.kind,
        "maps_quantity": analysis.maps.quantity,
        "units": analysis.units,
        "regions": _REGIONS.dump_python(analysis.regions, mode="json"),
        "clusters": _CLUSTERS.dump_python(inference.clusters, mode="json"),
        "smoothness": _SMOOTHNESS.dump_python(inference.smoothness, mode="json"),
        "thresholds": _THRESHOLDS.dump_python(inference.thresholds, mode="json"),
        "smallest_p": inference.smallest_p,
        "notes": inference.notes,
    }


def _arrays(analysis: MapAnalysis) -> dict[str, Any]:
    maps, inference = analysis.maps, analysis.inference
    arrays: dict[str, Any] = {"regions": maps.regions, "spacing_mm": np.array(maps.spacing_mm)}
    arrays |= {name: getattr(analysis, name) for name in ("effect", "low", "high", "n")}
    arrays["in_family"] = inference.in_family
    arrays |= {f"p:{control}": values for control, values in inference.p.items()}
    if analysis.groups is not None:
        arrays |= {f"groups:{one.name}": getattr(analysis.groups, one.name) for one in fields(GroupDifference)}
    return arrays


def _finding(told: dict[str, Any], folder: Path) -> CohortFinding:
    with np.load(folder / told["file"]) as held:
        arrays = {name: held[name] for name in held.files}
    level = Level[told["level"]]
    slice_mm, row_mm, column_mm = (float(one) for one in arrays["spacing_mm"])
    units = tuple(told["units"])
    maps = LevelMaps(
        level,
        told["maps_quantity"],
        arrays["regions"],
        (slice_mm, row_mm, column_mm),
        np.full((len(units), len(arrays["effect"])), np.nan, np.float32),
        units,
    )
    inference = Inference(
        p={Control(name[2:]): values for name, values in arrays.items() if name.startswith("p:")},
        in_family=arrays["in_family"],
        clusters=_CLUSTERS.validate_python(told["clusters"]),
        smoothness=_SMOOTHNESS.validate_python(told["smoothness"]),
        smallest_p=told["smallest_p"],
        notes=tuple(told["notes"]),
        thresholds=_THRESHOLDS.validate_python(told["thresholds"]),
    )
    groups = None
    if "groups:means" in arrays:
        groups = GroupDifference(**{one.name: arrays[f"groups:{one.name}"] for one in fields(GroupDifference)})
    analysis = MapAnalysis(
        told["title"],
        told["kind"],
        maps,
        arrays["effect"],
        arrays["low"],
        arrays["high"],
        arrays["n"],
        inference,
        _REGIONS.validate_python(told["regions"]),
        units,
        groups,
    )
    return CohortFinding(told["name"], level, told["quantity"], analysis, tuple(told["left_out"]))
