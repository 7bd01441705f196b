"""A phantom's scan through the pipeline: a result without discs, maps and report of it; never taken for a subject."""

import csv
import json
import math
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from peers import need

from config.phantom_templates import load_templates
from config.settings import Settings
from dicom_io.simulated_scanner import write_exam
from processing.phantom_vials import VialExam, simulate_vials
from service.pipeline import analyse_job
from service.result_schema import ResultDocument

PRODUCED_AT = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
TEMPLATE = load_templates()[0]
PLAN = """
protocol_id: DISC-1
sites: [{id: "01"}]
visits: [{name: BL, day: 0, baseline: true}]
protocol: ge-mapss
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[VialExam, Path]:
    folder = tmp_path_factory.mktemp("phantom")
    scan = simulate_vials(TEMPLATE, 3, n_slices=3)
    write_exam(scan.exam, folder / "images")
    summary = analyse_job([folder / "images"], folder / "out", Settings(), PRODUCED_AT)
    assert (summary.status, summary.is_phantom) == ("ok", True)
    return scan, folder / "out"


def test_the_result_has_the_vials_and_no_discs(measured: tuple[VialExam, Path]) -> None:
    scan, out = measured
    content = json.loads((out / "result.json").read_text())
    ResultDocument.model_validate(content)
    assert content["discs"] == []
    phantom = content["phantom"]
    assert (phantom["template"], phantom["slices"]) == ("reference-6", [0, 1, 2])
    assert phantom["scanner"] == {
        "device_serial": "0",
        "software_versions": "simulated",
        "receive_coil": "",
        "protocol": "ge-mapss",
    }
    assert phantom["acquired_at"] == "2026-01-12T10:03:00"
    for one in phantom["vials"]:
        truth = (scan.t1rho_ms if one["quantity"] == "T1rho" else scan.t2_ms)[one["vial"]]
        margin = max(0.01 * truth, 0.5) if one["slice"] is None else max(0.02 * truth, 1.0)
        assert math.isclose(one["mean_ms"], truth, abs_tol=margin)
    with (out / "vials.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 6 * 4
    assert {row["use"] for row in rows} == {"research use only"}


def test_the_objects_say_that_they_show_a_phantom(measured: tuple[VialExam, Path]) -> None:
    _, out = measured
    content = json.loads((out / "result.json").read_text())
    assert [one["kind"] for one in content["objects"]] == ["mr"] * 3 + ["pmap"] * 6 + ["pdf"]
    for one in content["objects"]:
        dataset = pydicom.dcmread(out / one["path"])
        assert "BodyPartExamined" not in dataset
        if one["kind"] == "pmap":
            (anatomy,) = dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
            assert anatomy.AnatomicRegionSequence[0].CodeMeaning == "Phantom"
    report = pydicom.dcmread(out / "dicom" / "report.dcm")
    assert report.EncapsulatedDocument[:5] == b"%PDF-"


@pytest.mark.peers
def test_the_objects_conform(measured: tuple[VialExam, Path]) -> None:
    _, out = measured
    need("dciodvfy")
    for path in sorted((out / "dicom").glob("*.dcm")):
        checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr, path.name


def test_the_same_scan_gives_the_same_bytes(measured: tuple[VialExam, Path], tmp_path: Path) -> None:
    _, out = measured
    analyse_job([out.parent / "images"], tmp_path / "out", Settings(), PRODUCED_AT)
    names = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes(), name


def test_a_phantom_put_in_wrongly_is_refused_by_its_patient_id(tmp_path: Path) -> None:
    """The pattern of the trials says that it is a phantom: it never goes the way of discs."""
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "plan.yaml").write_text(PLAN)
    (tmp_path / "trials" / "broken.yaml").write_text("protocol_id: [")
    scan = simulate_vials(TEMPLATE, 3, n_slices=3, mirrored=True, subject="QC_07")
    write_exam(scan.exam, tmp_path / "images")
    settings = Settings(trials_dir=tmp_path / "trials")
    summary = analyse_job([tmp_path / "images"], tmp_path / "out", settings, PRODUCED_AT)
    assert summary.status == "refused"
    (reason,) = summary.reasons
    assert reason.code == "REVIEW_REQUIRED"
    assert "PatientID is that of a QC phantom" in reason.detail
    assert "mirrored" in reason.detail
    assert "QC_07" not in (tmp_path / "out" / "result.json").read_text()


@pytest.mark.parametrize("vendor", ["philips", "siemens"])
def test_every_vendor_reads_the_same(tmp_path: Path, vendor: str) -> None:
    scan = simulate_vials(TEMPLATE, 3, n_slices=3)
    write_exam(scan.exam, tmp_path / "images", vendor=vendor, enhanced=vendor == "philips")
    analyse_job([tmp_path / "images"], tmp_path / "out", Settings(), PRODUCED_AT)
    vials = json.loads((tmp_path / "out" / "result.json").read_text())["phantom"]["vials"]
    assert len(vials) == 2 * 6 * 4
    for one in vials:
        truth = (scan.t1rho_ms if one["quantity"] == "T1rho" else scan.t2_ms)[one["vial"]]
        assert math.isclose(one["mean_ms"], truth, abs_tol=max(0.02 * truth, 1.0))
