"""All that the items of the paper are made from: scans held against their truth, runs of the plans, the network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from processing.results import LUMBAR_LEVELS
from service.cohort.reproduction.compared_scans import compare_scan, grade_of
from service.cohort.reproduction.item_files import ItemUnavailable
from service.cohort.reproduction.records import Cohort, ReproducedScan
from service.cohort.run_folder import FinishedRun, finished_run
from service.cohort.table import CohortError
from service.evaluation import ExamOutcome, Outcome
from service.grades import Grades

#: Which ways of analysis there are of a cohort: as published, and with correction for the number of voxels.
WAYS = {"paper": "As published: P not corrected, scans as independent", "corrected": "Corrected"}


@dataclass(frozen=True, slots=True, eq=False)
class ItemSources:
    """A reproduction as its items need it; ``outcomes`` in the order of ``scans``.

    ``runs``: by cohort and way; one that is not there is in ``missing`` with the reason.
    """

    folder: Path
    settings: Settings
    scans: tuple[ReproducedScan, ...]
    outcomes: tuple[ExamOutcome, ...]
    runs: dict[tuple[Cohort, str], FinishedRun]
    missing: dict[tuple[Cohort, str], str]
    seed: int | None

    def of(self, cohort: Cohort) -> tuple[ReproducedScan, ...]:
        """The scans of a cohort."""
        return tuple(one for one in self.scans if one.cohort is cohort)

    def outcomes_of(self, cohort: Cohort) -> tuple[ExamOutcome, ...]:
        """What became of a cohort's scans."""
        return tuple(outcome for scan, outcome in zip(self.scans, self.outcomes, strict=True) if scan.cohort is cohort)

    def compared(self, cohort: Cohort) -> list[tuple[ReproducedScan, ExamOutcome]]:
        """The scans of a cohort that were held against their truth.

        Raises:
            ItemUnavailable: there is none.
        """
        found = [
            (scan, outcome)
            for scan, outcome in zip(self.scans, self.outcomes, strict=True)
            if scan.cohort is cohort and outcome.outcome is Outcome.COMPARED
        ]
        if not found:
            raise ItemUnavailable(f"no scan of cohort {cohort} has a result that could be held against its truth")
        return found

    def grades(self, cohort: Cohort) -> Grades:
        """The grade of each disc of a cohort, as far as the table has them."""
        return {
            (scan.subject, scan.visit, level): grade
            for scan in self.of(cohort)
            for level in LUMBAR_LEVELS
            if (grade := grade_of(scan, level)) is not None
        }


def read_sources(
    folder: Path,
    scans: Sequence[ReproducedScan],
    settings: Settings,
    *,
    seed: int | None = None,
    progress: Callable[[str, float], None] = lambda _name, _share: None,
) -> ItemSources:
    """Hold every scan against its truth and read the runs.

    Raises:
        OSError: images or truth of a scan are not there.
    """
    outcomes = []
    for number, scan in enumerate(scans):
        progress(f"{scan.subject} {scan.visit} against its truth", number / len(scans))
        outcomes.append(compare_scan(scan, settings))
    runs, missing = {}, {}
    for cohort in Cohort:
        for way in WAYS:
            try:
                runs[cohort, way] = finished_run(folder / f"{cohort}-{way}")
            except CohortError as reason:
                missing[cohort, way] = str(reason).replace(f"{folder}/", "")
    return ItemSources(folder, settings, tuple(scans), tuple(outcomes), runs, missing, seed)
