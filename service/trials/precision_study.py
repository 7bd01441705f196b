"""A site's own test-retest exams: their results read, checked to be comparable, and what follows for its precision."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from config.precision_profiles import PrecisionEntry, PrecisionFile, Profile
from config.trial_plans import Acceptance
from dicom_io.acquisition import acquisition_of_entry
from dicom_io.result_reader import read_atlas_maps
from processing.common_voxels import VisitMaps, observe
from processing.comparability import compare_acquisitions
from processing.precision import Repeatability, Values, repeatability
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Acquisition, Cell

_PairCell = tuple[Quantity, Region]

#: A region that has a value in fewer of its voxels is no measurement of it.
_MAX_EXCLUDED_SHARE = 0.5


class StudyError(Exception):
    """The exams cannot tell a precision; the message names the subject and what is wrong."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """One subject and the folders of its results, in the order of the scans."""

    subject: str
    folders: tuple[Path, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionStudy:
    """What was found. ``values`` (discs, scans) of each quantity and region, with level and subject of each row.

    ``cells``: all levels together first, then each level. ``notes``: what to know about the data, in words.
    """

    scanner: str
    measured_on: date | None
    subjects: tuple[str, ...]
    n_scans: int
    values: Mapping[_PairCell, Values]
    levels: Mapping[_PairCell, tuple[Level, ...]]
    cells: tuple[Repeatability, ...]
    notes: tuple[str, ...] = ()


def repeats_in(folders: Sequence[Path]) -> tuple[Repeats, ...]:
    """The scans of each subject: each folder is one subject's and holds two results or more, at any depth.

    Raises:
        StudyError: a folder that holds fewer.
    """
    found = []
    for folder in folders:
        results = sorted(path.parent for path in folder.rglob("result.json"))
        if len(results) < 2:
            raise StudyError(f"{folder}: holds {len(results)} results; a subject needs two or more")
        found.append(Repeats(folder.name, tuple(results)))
    return tuple(found)


def repeats_of_table(path: Path) -> tuple[Repeats, ...]:
    """The scans of a table (CSV): columns subject, first, second and perhaps more; folders relative to the table's.

    Raises:
        StudyError: naming row and rule.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path}: cannot be read as a table ({error})") from error
    if not rows or not {"subject", "first", "second"} <= set(rows[0]):
        raise StudyError(f"{path}: needs the columns subject, first, second, and a row for each subject")
    found = []
    for number, row in enumerate(rows, start=2):
        subject = (row.pop("subject") or "").strip()
        folders = tuple(path.parent / text.strip() for text in row.values() if isinstance(text, str) and text.strip())
        if not subject or len(folders) < 2:
            raise StudyError(f"{path}: row {number}: needs a subject and two results")
        for folder in folders:
            if not (folder / "result.json").is_file():
                raise StudyError(f"{path}: row {number}: {folder} holds no result.json")
        found.append(Repeats(subject, folders))
    return tuple(found)


def study(repeats: Sequence[Repeats], *, common: bool = True) -> PrecisionStudy:
    """Read all results and compute the precision of every quantity and region.

    Args:
        repeats: of each subject.
        common: over the voxels that have a value in all scans of a subject, as changes are judged by default.

    Raises:
        StudyError: too few subjects, one twice, results without maps, scans that differ in what must be equal.
        UnreadableResult: a result is not as it was written.
    """
    names = [one.subject for one in repeats]
    if len(names) < 2 or len(set(names)) < len(names):
        raise StudyError("at least two subjects are needed, each once")
    n_scans = min(len(one.folders) for one in repeats)
    notes: list[str] = []
    acquisitions: list[Acquisition] = []
    rows: dict[_PairCell, list[tuple[Level, str, list[float]]]] = {}
    for one in repeats:
        visits, acquired = _read(one, n_scans)
        acquisitions += acquired
        notes += _check(one.subject, acquired)
        for cell, observed in observe(visits, common=common, max_excluded_share=_MAX_EXCLUDED_SHARE).items():
            values = [each.value_ms for each in observed if each.excluded_share <= _MAX_EXCLUDED_SHARE]
            told = [value for value in values if value is not None]
            if len(told) == n_scans:
                rows.setdefault((cell.quantity, cell.region), []).append((cell.level, one.subject, told))
            else:
                notes.append(f"{one.subject}: {_words(cell)} has no value in every scan and is left out")
    if not any(len(of_cell) >= 2 for of_cell in rows.values()):
        raise StudyError("no disc has a value in every scan of two subjects")
    return _study(tuple(names), n_scans, rows, acquisitions, notes)


def _read(one: Repeats, n_scans: int) -> tuple[list[VisitMaps], list[Acquisition]]:
    visits, acquired = [], []
    for number, folder in enumerate(one.folders[:n_scans]):
        document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        acquisition = acquisition_of_entry(document.get("acquisition"))
        if document.get("status") == "refused" or acquisition is None:
            raise StudyError(f"{one.subject}: {folder}: is no result with an acquisition block; reprocess the exam")
        discs = read_atlas_maps(folder)
        if not discs:
            raise StudyError(f"{one.subject}: {folder}: has no maps in atlas space")
        visits.append(VisitMaps(str(number), 0, discs, document["versions"]["atlas_sha256"]))
        acquired.append(acquisition)
    return visits, acquired


def _check(subject: str, acquired: Sequence[Acquisition]) -> list[str]:
    """What differs between a subject's scans, in words.

    Raises:
        StudyError: another protocol or scanner: that would not be repeatability.
    """
    notes = []
    for other in acquired[1:]:
        for difference in compare_acquisitions(acquired[0], other, Acceptance(min_slices=1)):
            if difference.hard or (difference.widens and "not known" not in difference.text):
                text = difference.text.partition(";")[0]
                raise StudyError(f"{subject}: {text}: scan and rescan must be alike to tell how well they repeat")
            if "not known" not in difference.text:
                notes.append(f"{subject}: {difference.text}")
    return notes


def _study(
    subjects: tuple[str, ...],
    n_scans: int,
    rows: Mapping[_PairCell, Sequence[tuple[Level, str, list[float]]]],
    acquisitions: Sequence[Acquisition],
    notes: list[str],
) -> PrecisionStudy:
    values = {cell: np.array([row[2] for row in of_cell]) for cell, of_cell in rows.items() if len(of_cell) > 1}
    for (quantity, region), array in values.items():
        if float(np.ptp(array, axis=1).max()) == 0:
            raise StudyError(
                f"{quantity} {region}: scan and rescan are the same to the last digit: copies of one exam?"
            )
    order = sorted(values, key=lambda cell: (list(Quantity).index(cell[0]), list(Region).index(cell[1])))
    cells = [repeatability(*cell, None, values[cell], [subject for _, subject, _ in rows[cell]]) for cell in order]
    for cell in order:
        for level in LUMBAR_LEVELS:
            of_level = [row for row in rows[cell] if row[0] is level]
            if len(of_level) > 1:
                array = np.array([row[2] for row in of_level])
                cells.append(repeatability(*cell, level.name, array, [row[1] for row in of_level]))
    first = acquisitions[0]
    days = [one.acquired_at.date() for one in acquisitions if one.acquired_at is not None]
    parts = (first.manufacturer, first.model, first.software_versions, first.protocol)
    return PrecisionStudy(
        scanner=", ".join(part for part in parts if part),
        measured_on=max(days, default=None),
        subjects=subjects,
        n_scans=n_scans,
        values=values,
        levels={cell: tuple(level for level, _, _ in rows[cell]) for cell in values},
        cells=tuple(cells),
        notes=tuple(dict.fromkeys(notes)),
    )


def own_profile(found: PrecisionStudy, name: str) -> PrecisionFile:
    """The profile that follows: one entry for each quantity and region, all levels together.

    ``n_pairs`` counts subjects and not discs: the discs of one scan share its errors.
    """
    entries = []
    for one in found.cells:
        if one.level is not None:
            continue
        source = (
            f"own test-retest: {one.n_subjects} subjects x {one.n_scans} scans, {one.n_discs} discs; {found.scanner}"
        )
        entries.append(
            PrecisionEntry(
                quantity=one.quantity.value,
                regions=(one.region.value,),
                within_cv=round(one.within_cv.value, 5),
                within_sd_ms=round(one.within_sd_ms.value, 4),
                n_pairs=one.n_subjects * (one.n_scans - 1),
                source=source,
                borrowed=False,
            )
        )
    description = f"own test-retest of {len(found.subjects)} subjects"
    profile = Profile(name=name, description=description, measured_on=found.measured_on, entries=tuple(entries))
    return PrecisionFile(profiles=(profile,))


def _words(cell: Cell) -> str:
    return f"{cell.level.name} {cell.region.value.replace('_', ' ')} {cell.quantity}"
