"""A simulated trial on disk: images in the order in which they are sent, plan, tables, and what is expected."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.precision_profiles import load_profile
from config.trial_plans import TrialPlan
from dicom_io.simulated_appointment import Appointment, TrialEntry
from dicom_io.simulated_scanner import study_uid_of, write_exam
from processing.phantom import PhantomExam, simulate_exam
from processing.spine_shape import shape_entry
from service.trials.simulation.expectation import PRIMARY, Expected, Limits, expectations
from service.trials.simulation.scenario import SHORT_TSL_MS, VISITS, Fault, Scan, Scenario, draw_scenario
from service.trials.simulation.subjects import SITES
from service.trials.simulation.truth import TrueTimes, drawn_shapes, drawn_truth, imaged_truth

PROTOCOL_ID = "SIMULATED-DISCS"
PRECISION = "borrowed-cartilage"
_SHORT_CARD = "site-mapss-short"
_SHORT_DESCRIPTION = "SPINLOCK SHORT"
_COIL = "Spine 16"

Told = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How large the images are. ``matrix`` below 64 is too small to be measured: for a stand-in of the analysis."""

    n_slices: int = 4
    matrix: int = 256
    snr: float = 40.0

    @property
    def is_measurable(self) -> bool:
        """Whether the networks can find discs in it."""
        return self.matrix >= 128


def write_trial(out: Path, n_subjects: int, seed: int, size: Size, *, tell: Told) -> Scenario:
    """Write a whole simulated trial into ``out``, which must be new or empty.

    It then holds ``scans/`` (a folder for each exam), ``scans.csv`` (in the order of arrival), ``trials/`` (the plan
    and the treated levels), ``protocols/`` (the card of another table of times), ``subjects.csv``, ``expected.csv``,
    ``truth.json`` and ``node.yaml``.

    Raises:
        ValueError: too few subjects.
        FileExistsError: the folder holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: is not empty; choose another folder with --out")
    limits = limits_of(PRECISION)
    scenario = draw_scenario(n_subjects, seed, 2 * limits.same_scanner)
    truth: dict[str, TrueTimes] = {}
    rows, studies = [], {}
    for scan in scenario.scans:
        tell(f"scan {scan.arrives} of {len(scenario.scans)}", scan.arrives / (len(scenario.scans) + 1))
        exam = simulate(scan, seed, size)
        study_uid, n_files = write_scan(scan, exam, out / "scans" / scan.name)
        truth[scan.name] = imaged_truth(exam) if size.is_measurable else drawn_truth(scan, seed)
        rows.append(_scan_row(scan, study_uid, n_files))
        studies[study_uid] = _study_truth(scan, seed, truth[scan.name])
    _write_table(out / "scans.csv", rows)
    _write_table(out / "expected.csv", [_expected_row(one) for one in expectations(scenario, truth, limits)])
    (out / "truth.json").write_text(json.dumps(studies, indent=1) + "\n", encoding="utf-8")
    _write_plan(out, scenario, size)
    _write_node(out)
    return scenario


def limits_of(profile_name: str) -> Limits:
    """The limits of a profile for the primary quantity, on the log scale."""
    quantity, region = PRIMARY[0]
    entries = load_profile(profile_name).entries
    entry = next(one for one in entries if one.quantity == quantity.value and region.value in one.regions)
    within = math.log(1 + entry.within_cv**2)  # variances on the log scale
    between = math.log(1 + (entry.between_cv or 0.0) ** 2)
    factor = 1.959964 * math.sqrt(2)
    return Limits(factor * math.sqrt(within), factor * math.sqrt(within + between))


def simulate(scan: Scan, seed: int, size: Size) -> PhantomExam:
    """The images of a scan, with the truth behind them."""
    return simulate_exam(
        seed,
        n_slices=size.n_slices,
        matrix=size.matrix,
        anatomy_matrix=32,  # the T2 FSE is not sent
        snr=size.snr,
        subject=scan.spine.phantom,
        visit=scan.phantom_visit,
        variant=scan.spine.variant,
        change=scan.change,
        spin_lock_ms=scan.spin_lock_ms,
    )


def write_scan(scan: Scan, exam: PhantomExam, folder: Path) -> tuple[str, int]:
    """Write the DICOM files of a scan; its StudyInstanceUID and how many files there are."""
    appointment = appointment_of(scan)
    paths = write_exam(exam, folder, appointment=appointment, with_anatomy=False)
    for path in paths[len(paths) - scan.lacking :]:
        path.unlink()
    return study_uid_of(exam, appointment), len(paths) - scan.lacking


def appointment_of(scan: Scan) -> Appointment:
    """What was entered at the scanner."""
    return Appointment(
        patient_id=scan.patient_id,
        patient_name=f"Simulated^{scan.subject.subject_id}",
        birth_date=scan.subject.birth_date,
        sex=scan.subject.sex,
        began=scan.at,
        trial=TrialEntry(
            protocol_id=PROTOCOL_ID,
            site_id=scan.site_id,
            subject_id=scan.subject.subject_id,
            time_point_id=scan.visit,
            protocol_name="Simulated discs",
            sponsor="discnode simulated",
        ),
        serial_number=scan.serial_number,
        software_versions=scan.software_versions,
        receive_coil=_COIL,
        series_description=_SHORT_DESCRIPTION if scan.fault is Fault.OTHER_TSL else "",
    )


def _scan_row(scan: Scan, study_uid: str, n_files: int) -> dict[str, Any]:
    return {
        "arrives": scan.arrives,
        "folder": f"scans/{scan.name}",
        "study_uid": study_uid,
        "files": n_files,
        "times_sent": scan.times_sent,
        "subject": scan.subject.subject_id,
        "visit": scan.visit,
        "at": scan.at.isoformat(timespec="minutes"),
        "fault": scan.fault.value,
    }


def _expected_row(one: Expected) -> dict[str, Any]:
    change = one.true_log_change
    return {
        "subject": one.subject_id,
        "visit": one.visit,
        "fault": one.fault.value,
        "state": one.state,
        "code": one.code,
        "first_state": one.first_state,
        "first_code": one.first_code,
        "person": one.person,
        "deviation": one.deviation,
        "level": "" if one.cell is None else one.cell.level.name,
        "region": "" if one.cell is None else one.cell.region.value,
        "quantity": "" if one.cell is None else one.cell.quantity.value,
        "verdicts": "|".join(verdict.value for verdict in one.verdicts),
        "true_baseline_ms": _rounded(one.true_baseline_ms, 2),
        "true_ms": _rounded(one.true_ms, 2),
        "true_log_change": _rounded(change, 4),
        "limit_log": _rounded(one.limit_log, 4),
    }


def _rounded(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _study_truth(scan: Scan, seed: int, truth: TrueTimes) -> dict[str, Any]:
    """What is true of a study, for whoever wants to stand in for the analysis."""
    return {
        "ms": {
            f"{cell.level.name} {cell.region.value} {cell.quantity.value}": round(ms, 4)
            for cell, ms in truth.of_cell.items()
        },
        "shapes": {level.name: shape_entry(shape) for level, shape in drawn_shapes(scan, seed).items()},
    }


def _write_plan(out: Path, scenario: Scenario, size: Size) -> None:
    plan = {
        "protocol_id": PROTOCOL_ID,
        "name": "Simulated discs",
        "sponsor": "discnode simulated",
        "sites": [{"id": site, "name": f"Simulated site {site}", "time_zone": "Europe/Paris"} for site in SITES],
        "subject_pattern": r"^0[12]-[0-9]{3}$",
        "visits": [
            {
                "name": name,
                "day": day,
                "before_days": before,
                "after_days": after,
                **({} if day else {"baseline": True}),
            }
            for name, day, before, after in VISITS
        ],
        "protocol": "ge-mapss",
        "treated_levels": "treated.csv",
        "primary": [{"quantity": quantity.value, "region": region.value} for quantity, region in PRIMARY],
        "change": {"precision": PRECISION, "voxels": "common" if size.is_measurable else "each"},
        "release": "hold_on_warning",
        "destinations": ["archive"],
        "blinding": {"show_treated_level": True, "withhold_site_reports": False},
    }
    TrialPlan.model_validate(plan)
    folder = out / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(plan, sort_keys=False, allow_unicode=True)
    (folder / "simulated.yaml").write_text(f"# A simulated trial. For research use only.\n{text}", encoding="utf-8")
    treated = [{"subject": one.subject_id, "level": one.treated.name} for one in scenario.subjects]
    _write_table(folder / "treated.csv", treated)
    _write_table(
        out / "subjects.csv",
        [
            {
                "subject_id": one.subject_id,
                "site_id": one.site_id,
                "patient_id": one.patient_id,
                "birth_year": one.birth_date.year,
                "sex": one.sex,
            }
            for one in scenario.subjects
        ],
    )
    (out / "protocols").mkdir(exist_ok=True)
    (out / "protocols" / f"{_SHORT_CARD}.yaml").write_text(_short_card(), encoding="utf-8")


def _short_card() -> str:
    card = {
        "name": _SHORT_CARD,
        "description": "MAPSS with other spin-lock times, as a site once scanned a subject of the simulated trial",
        "role": "relaxometry",
        "match": {"manufacturer": r"^GE\b", "series_description": f"^{_SHORT_DESCRIPTION}$"},
        "match_in_words": f"series of GE that are called {_SHORT_DESCRIPTION}",
        "times": {
            "rule": "echo_time",
            "t1rho_ms": [0, *SHORT_TSL_MS],
            "t2_ms": [0, 12.8, 25.7, 51.4],
            "tolerance_ms": 0.5,
        },
        "expected": {"min_slices": 3, "max_slices": 64},
        "scaling": "rescale_if_present",
        "spin_lock_frequency_hz": 300,
    }
    return str(yaml.safe_dump(card, sort_keys=False))


def _write_node(out: Path) -> None:
    settings = {
        "storage_dir": "node",
        "trials_dir": "trials",
        "protocols_dir": "protocols",
        "completion": {"idle_s": 20, "sweep_s": 1},
        "peers": [{"ae_title": "SCANNER", "host": "127.0.0.1"}],
        "destinations": [{"name": "archive", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}],
    }
    text = yaml.safe_dump(settings, sort_keys=False)
    (out / "node.yaml").write_text(
        f"# A node for the simulated trial: discnode serve --config node.yaml\n{text}", encoding="utf-8"
    )
