"""What the parts of a reproduction hand to each other: the scans with their truth, and the folder that holds all."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from processing.results import FloatArray, LabelArray

#: Stands on every page, table and figure of a reproduction.
LABEL = "Reproduction on simulated data"


class Cohort(StrEnum):
    """The paper's two sets."""

    A = "A"  # T1rho FSE, one slice, one visit
    B = "B"  # MAPSS, T1rho and T2, some with a second visit


@dataclass(frozen=True, slots=True)
class ReproducedScan:
    """One scan: ``images`` (DICOM), ``result`` (as of ``discnode process``), ``truth`` (see :func:`read_truth`).

    ``values``: the columns of the cohort's table: grade_L5S1 ..., odi, age, ...; the table is ``cohort-<A|B>.csv``.
    """

    cohort: Cohort
    subject: str
    visit: str
    images: Path
    result: Path
    truth: Path
    values: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class ScanTruth:
    """On the relaxometry grid (slices, rows, columns): levels (0 outside, 1 = L5S1 ..), times in ms (NaN outside)."""

    labels: LabelArray
    t1rho_ms: FloatArray
    t2_ms: FloatArray
    affine: npt.NDArray[np.float64]


def write_truth(truth: ScanTruth, path: Path) -> None:
    """As compressed arrays (.npz)."""
    np.savez_compressed(
        path, labels=truth.labels, t1rho_ms=truth.t1rho_ms, t2_ms=truth.t2_ms, affine=np.asarray(truth.affine)
    )


def read_truth(path: Path) -> ScanTruth:
    """What :func:`write_truth` wrote.

    Raises:
        OSError: it is not there.
    """
    with np.load(path) as held:
        return ScanTruth(held["labels"], held["t1rho_ms"], held["t2_ms"], held["affine"])


def table_path(folder: Path, cohort: Cohort) -> Path:
    """The table of a cohort's scans in the folder of a reproduction."""
    return folder / f"cohort-{cohort}.csv"


def write_scans(folder: Path, scans: Sequence[ReproducedScan]) -> None:
    """The tables of both cohorts: subject, visit, result, images, truth (relative to ``folder``), and the values."""
    for cohort in Cohort:
        rows = [one for one in scans if one.cohort is cohort]
        names = list(dict.fromkeys(name for one in rows for name in one.values))
        with table_path(folder, cohort).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["subject", "visit", "result", "images", "truth", *names])
            for one in rows:
                paths = [str(path.relative_to(folder)) for path in (one.result, one.images, one.truth)]
                writer.writerow([one.subject, one.visit, *paths, *(one.values.get(name, "") for name in names)])


def read_scans(folder: Path) -> tuple[ReproducedScan, ...]:
    """All scans of a reproduction, A before B.

    Raises:
        OSError: a table is not there.
    """
    scans = []
    for cohort in Cohort:
        with table_path(folder, cohort).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                images, result, truth = (folder / row.pop(name) for name in ("images", "result", "truth"))
                subject, visit = row.pop("subject"), row.pop("visit")
                scans.append(ReproducedScan(cohort, subject, visit, images, result, truth, dict(row)))
    return tuple(scans)
