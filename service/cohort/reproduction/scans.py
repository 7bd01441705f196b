"""The scans of simulated cohorts: images written, measured by the pipeline, with the truth beside; only what lacks."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path

from config.settings import Settings
from dicom_io.simulated_appointment import Appointment
from dicom_io.simulated_scanner import write_exam
from processing.phantom import PhantomExam, simulate_exam
from service.cohort.reproduction.records import Cohort, ReproducedScan, ScanTruth, write_truth
from service.cohort.reproduction.subjects import FOLLOW_UP, CohortSubject
from service.pipeline import analyse_job, open_instruments
from service.progress import Progress

_SNR = 40.0
_SLICES = {Cohort.A: (1, 4.0), Cohort.B: (6, 8.0)}  # how many, and their distance in mm
_PROTOCOL = {Cohort.A: "t1rho-fse", Cohort.B: "mapss"}
_RECIPE = "recipe.json"
_DEADLINE_S = 1800.0  # of a disc: nobody waits for it, and the machine may be busy with other things


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """What became of a scan. ``status``: of result.json, ``reasons`` in words. ``again``: it had been made before."""

    scan: ReproducedScan
    status: str
    reasons: tuple[str, ...]
    again: bool


def visits_of(people: Iterable[CohortSubject]) -> tuple[CohortSubject, ...]:
    """Everyone at every visit, the people in their order."""
    return tuple(one for person in people for one in (person, person.later) if one is not None)


def measure_scans(
    people: Sequence[CohortSubject], folder: Path, *, workers: int, tell: Progress
) -> tuple[ScanOutcome, ...]:
    """Simulate and measure the scans of people at their visits, side by side; what is there and whole is left.

    Args:
        people: of both cohorts, a row for each visit.
        folder: of the reproduction; ``scans/NAME-VISIT`` in it holds ``images``, ``result`` and ``truth.npz``.
        workers: processes; each does one scan at a time, with one thread.
        tell: told after each scan.

    Returns:
        One for each, in order. A scan that was refused is among them.
    """
    outcomes: dict[int, ScanOutcome] = {}
    todo = []
    for place, one in enumerate(people):
        if _is_whole(one, folder):
            outcomes[place] = _outcome(one, folder, again=True)
        else:
            todo.append(place)
    if not todo:
        return tuple(outcomes[place] for place in range(len(people)))
    # spawn: onnxruntime and itk do not survive a fork
    pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn"))
    try:
        running = {pool.submit(measure_scan, people[place], folder): place for place in todo}
        for future in as_completed(running):
            future.result()
            place = running[future]
            outcomes[place] = _outcome(people[place], folder, again=False)
            tell(f"{_name(people[place])}: {outcomes[place].status}", len(outcomes) / len(people))
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(outcomes[place] for place in range(len(people)))


def measure_scan(one: CohortSubject, folder: Path) -> None:
    """Simulate one scan and measure it as ``discnode process`` does. The recipe is written last."""
    at = _place(one, folder)
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    exam = simulate(one)
    write_exam(exam, at / "images", appointment=_appointment(one), with_anatomy=False)
    write_truth(ScanTruth(exam.labels, exam.t1rho_ms, exam.t2_ms, exam.affine), at / "truth.npz")
    end_registration_at_exit()
    analyse_job([at / "images"], at / "result", scan_settings(), datetime.now(UTC), progress=lambda _step, _share: None)
    write_recipe(one, folder)


@cache
def end_registration_at_exit() -> None:
    """Let the registration process of this process end before this one does.

    A process of multiprocessing waits for its children before anything that ``atexit`` knows is done; the registration
    process would wait for a word from its parent, and each for the other.
    """
    Finalize(None, open_instruments(scan_settings()).registration.close, exitpriority=10)


def write_recipe(one: CohortSubject, folder: Path) -> None:
    """Say that a scan is whole, and of what it was made."""
    text = json.dumps({"digest": _digest(one)}) + "\n"
    (_place(one, folder) / _RECIPE).write_text(text, encoding="utf-8")


def simulate(one: CohortSubject, *, snr: float = _SNR) -> PhantomExam:
    """The images of a person at a visit, with the truth."""
    n_slices, spacing_mm = _SLICES[one.cohort]
    return simulate_exam(
        one.seed,
        n_slices=n_slices,
        slice_spacing_mm=spacing_mm,
        anatomy_matrix=32,  # the T2 FSE is not sent
        snr=snr,
        protocol=_PROTOCOL[one.cohort],  # type: ignore[arg-type]
        subject=one.spine,
        visit=2 if one.visit == FOLLOW_UP else 1,
        change=one.change,
    )


def scan_of(one: CohortSubject, folder: Path) -> ReproducedScan:
    """Where everything about a scan lies."""
    at = _place(one, folder)
    return ReproducedScan(
        one.cohort, one.name, one.visit, at / "images", at / "result", at / "truth.npz", dict(one.values)
    )


def scan_settings() -> Settings:
    """As the node's, but one thread and one registration process: the scans are measured side by side."""
    usual = Settings()
    return usual.model_copy(
        update={
            "registration": usual.registration.model_copy(update={"processes": 1, "deadline_s": _DEADLINE_S}),
            "segmentation": usual.segmentation.model_copy(update={"threads": 1}),
        }
    )


def _appointment(one: CohortSubject) -> Appointment:
    began = date(2026 - one.age, 1, 1)
    return Appointment(patient_id=one.name, birth_date=began, sex="F" if one.female else "M")


def _name(one: CohortSubject) -> str:
    return f"{one.name}-{one.visit}"


def _place(one: CohortSubject, folder: Path) -> Path:
    return folder / "scans" / _name(one)


def _digest(one: CohortSubject) -> str:
    """Of all that the images and their result follow from."""
    parts = (one.seed, one.spine, one.visit, one.change, _SLICES[one.cohort], _SNR, version("discnode"))
    text = "\n".join([*map(repr, parts), scan_settings().analysis_digest])
    return hashlib.sha256(text.encode()).hexdigest()


def _is_whole(one: CohortSubject, folder: Path) -> bool:
    try:
        recipe = json.loads((_place(one, folder) / _RECIPE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return recipe == {"digest": _digest(one)} and (_place(one, folder) / "result" / "result.json").is_file()


def _outcome(one: CohortSubject, folder: Path, *, again: bool) -> ScanOutcome:
    scan = scan_of(one, folder)
    document = json.loads((scan.result / "result.json").read_text(encoding="utf-8"))
    reasons = tuple(f"{reason['code']}: {reason['detail']}" for reason in document["reasons"])
    return ScanOutcome(scan, document["status"], reasons, again)
