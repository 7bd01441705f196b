"""The files of a result: as documented, complete or absent, the same every time, and free of the patient's identity."""

import csv
import dataclasses
import json
from datetime import datetime
from pathlib import Path

import example_exam
import numpy as np
import pytest
from matplotlib.image import imread
from pydicom import dcmread

from config.settings import ObjectKind, ReportSettings, SubjectLine
from dicom_io.acquisition import acquisition_of_entry
from processing.montage import draw_montage
from processing.refusal import Reason, ReasonCode
from processing.registration_page import draw_registration_page
from processing.results import Level, Quantity, Region, Verdict
from processing.visits import Acquisition
from service import result_files, result_schema
from service.result_files import result_document, write_refusal, write_result
from service.result_schema import ResultDocument, schema_text
from service.result_versions import Edition


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    result = example_exam.exam_result()
    folder = tmp_path_factory.mktemp("exam") / "out"
    summary = write_result(result, example_exam.exam_images(result), folder)
    return result, summary, folder


@pytest.fixture(scope="module")
def one_disc(tmp_path_factory):
    """The same of an exam of one disc, for what does not depend on how many there are."""
    result = example_exam.exam_result((Level.L4L5,))
    folder = tmp_path_factory.mktemp("exam") / "out"
    summary = write_result(result, example_exam.exam_images(result), folder)
    return result, summary, folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_all_files_are_there_and_nothing_else(written):
    _, summary, folder = written
    names = {"result.json", "discs.csv", "qc.png", "qc_registration.png", "report.html", "report.pdf"}
    assert contents(folder).keys() == names | {str(one.path) for one in summary.objects}
    assert {"seg", "t1rho", "t2", "sr", "overlay", "report"} <= {one.path.stem for one in summary.objects}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert (summary.status, summary.reasons) == (Verdict.NEEDS_REVIEW, example_exam.exam_result().reasons)
    for one in summary.objects:
        assert str(dcmread(folder / one.path).SOPInstanceUID) == one.sop_instance_uid


def test_result_json_holds_the_result(written):
    result, summary, folder = written
    document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (document["schema"], document["status"]) == ("discnode.result/1", "needs_review")
    assert document["reasons"][0]["code"] == "REGISTRATION_POOR"
    assert document["inputs"] == [
        {
            "series_uid": example_exam.SERIES_UID,
            "protocol": "ge-mapss",
            "t1rho_times_ms": [0, 10, 40, 80],
            "t2_times_ms": [0, 12.8, 25.7, 51.4],
        }
    ]
    assert [disc["level"] for disc in document["discs"]] == ["L5S1", "L4L5", "L3L4", "L2L3", "L1L2"]
    keys = {Quantity.T1RHO: "t1rho_ms", Quantity.T2: "t2_ms"}
    for row in result.measurements:
        disc = document["discs"][row.level - 1]
        part = disc if row.region is Region.WHOLE_DISC else disc["regions"][row.region.value]
        values = part[keys[row.quantity]]
        assert values["mean"] == pytest.approx(row.mean_ms, abs=1e-6)
        assert values["sd"] == pytest.approx(row.sd_ms, abs=1e-6)
        assert values["median"] == pytest.approx(row.median_ms, abs=1e-6)
        assert (values["n"], values["n_excluded"], values["excluded"]) == (row.n, row.n_excluded, row.excluded)
    assert document["discs"][1]["t2_ms"]["excluded"] == {"NO_DECAY": 1}
    assert document["discs"][2]["registration"] == {
        "dice": 0.93,
        "sd_jacobian": 0.13,
        "min_jacobian": 0.5,
        "sd_jacobian_bspline": 0.11,
        "min_jacobian_bspline": 0.6,
        "sd_jacobian_patient": None,
        "min_jacobian_patient": None,
    }
    assert document["discs"][0]["volume_mm3"] == 2850.0
    assert [(one["kind"], one["path"], one["sop_instance_uid"]) for one in document["objects"]] == [
        (one.kind, str(one.path), one.sop_instance_uid) for one in summary.objects
    ]
    assert (document["timings_s"], document["versions"]) == (result.timings_s, result.versions)


def test_result_json_follows_the_published_schema(written):
    _, _, folder = written
    ResultDocument.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    nothing = dataclasses.replace(written[0].measurements[0], mean_ms=float("nan"), sd_ms=float("nan"), n=0)
    for result in (
        example_exam.exam_result((Level.L4L5,), with_maps=False),
        dataclasses.replace(written[0], measurements=(nothing,), registered=()),
    ):
        document = result_document(result, example_exam.exam_images(result), written[1].objects)
        ResultDocument.model_validate_json(json.dumps(document, allow_nan=False))
        assert document["discs"][0]["registration"] == {}


@pytest.fixture(scope="module")
def ensemble_result():
    """Five networks; L4L5 is seen by one of them, so that its mean has no spread."""
    result = example_exam.exam_result()
    rows = []
    for row in result.measurements:
        if row.region is Region.WHOLE_DISC:
            alone = row.level is Level.L4L5
            row = dataclasses.replace(
                row, member_sd_ms=None if alone else 0.25 * row.level, n_members=1 if alone else 5
            )
        rows.append(row)
    confidence = tuple(
        dataclasses.replace(
            one,
            member_dice=0.9 + 0.01 * one.level,
            member_volume_sd_mm3=10.0 * one.level,
            n_members=5,
            n_members_with_disc=1 if one.level is Level.L4L5 else 5,
        )
        for one in result.mask.confidence
    )
    mask = dataclasses.replace(result.mask, confidence=confidence)
    return dataclasses.replace(result, measurements=tuple(rows), mask=mask)


def test_what_the_networks_agree_on_stands_with_each_disc(ensemble_result, written):
    document = result_document(ensemble_result, example_exam.exam_images(ensemble_result), written[1].objects)
    ResultDocument.model_validate_json(json.dumps(document, allow_nan=False))
    assert document["discs"][0]["segmentation"] == {
        "mean_probability": 0.95,
        "ring_entropy": 0.2,
        "touches_border": False,
        "n_members": 5,
        "n_members_with_disc": 5,
        "member_dice": 0.91,
        "member_volume_sd_mm3": 10.0,
    }
    assert document["discs"][1]["segmentation"]["n_members_with_disc"] == 1
    expected = [(0.25, 5), (None, 1), (0.75, 5), (1.0, 5), (1.25, 5)]
    for disc, (spread, members) in zip(document["discs"], expected, strict=True):
        for key in ("t1rho_ms", "t2_ms"):
            assert (disc[key]["member_sd"], disc[key]["n_members"]) == (spread, members)
            assert not {"member_sd", "n_members"} & disc["regions"]["nucleus"][key].keys()


def test_a_single_network_has_no_spread(written):
    document = json.loads((written[2] / "result.json").read_text(encoding="utf-8"))
    for disc in document["discs"]:
        assert (disc["t2_ms"]["member_sd"], disc["t2_ms"]["n_members"]) == (None, None)
        assert (disc["segmentation"]["n_members"], disc["segmentation"]["member_dice"]) == (1, None)


def test_a_result_written_before_there_were_ensembles_still_follows_the_schema(written):
    document = json.loads((written[2] / "result.json").read_text(encoding="utf-8"))
    for disc in document["discs"]:
        del disc["segmentation"]
        for key in ("t1rho_ms", "t2_ms"):
            del disc[key]["member_sd"], disc[key]["n_members"]
    ResultDocument.model_validate_json(json.dumps(document))


def test_discs_csv_holds_the_spread_with_the_whole_disc(ensemble_result, tmp_path):
    unregistered = dataclasses.replace(ensemble_result, registered=())  # without the page and the maps of the atlas
    write_result(unregistered, example_exam.exam_images(unregistered), tmp_path / "out")
    with (tmp_path / "out" / "discs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        level = Level[row["level"]]
        whole = row["region"] == "whole_disc"
        spread = str(0.25 * level) if whole and level is not Level.L4L5 else ""
        assert (row["member_sd_ms"], row["use"]) == (spread, "research use only")
        assert row["member_dice"] == (str(round(0.9 + 0.01 * level, 6)) if whole else "")
        assert row["ring_entropy"] == ("0.2" if whole else "")


def test_result_json_tells_the_motion_of_each_image(written):
    document = json.loads((written[2] / "result.json").read_text(encoding="utf-8"))
    moved, unknown = document["motion"]
    assert moved == {
        "quantity": "T1rho",
        "time_ms": 10,
        "displacement_mm": 1.125,
        "rows_mm": 0.25,
        "columns_mm": -0.5,
        "rotation_deg": 0.75,
        "corrected": True,
    }
    assert (unknown["time_ms"], unknown["displacement_mm"], unknown["corrected"]) == (51.4, None, False)


def test_the_published_schema_is_that_of_the_code():
    published = Path(result_schema.__file__).with_name("result_schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run: python -m service.result_schema > service/result_schema.json"


def test_discs_csv_holds_one_row_per_level_region_and_quantity(written):
    result, _, folder = written
    with (folder / "discs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(result.measurements) == 40
    for row, measured in zip(rows, result.measurements, strict=True):
        assert (row["level"], row["region"], row["quantity"]) == (
            measured.level.name,
            measured.region,
            measured.quantity,
        )
        assert float(row["mean_ms"]) == pytest.approx(measured.mean_ms, abs=1e-6)
        assert float(row["median_ms"]) == pytest.approx(measured.median_ms, abs=1e-6)
        assert (int(row["n"]), int(row["n_excluded"])) == (measured.n, measured.n_excluded)
        assert row["volume_mm3"] == (str(result.volumes_mm3[measured.level]) if row["region"] == "whole_disc" else "")
        assert row["use"] == "research use only"


def test_discs_csv_of_an_exam_without_echoes_holds_volumes(tmp_path):
    result = example_exam.exam_result(with_maps=False)
    write_result(result, example_exam.exam_images(result), tmp_path / "out")
    with (tmp_path / "out" / "discs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["volume_mm3"]) for row in rows] == list(result.volumes_mm3.values())
    assert {row["mean_ms"] for row in rows} == {""}


def test_qc_png_is_the_overview_and_says_research_use(written):
    result, _, folder = written
    shown = (imread(folder / "qc.png")[..., :3] * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(shown, draw_montage(result))
    assert b"Research use only" in (folder / "qc.png").read_bytes()


def test_qc_registration_png_is_the_page_of_the_registration(written):
    result, _, folder = written
    shown = (imread(folder / "qc_registration.png")[..., :3] * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(shown, draw_registration_page(result))
    assert b"Research use only" in (folder / "qc_registration.png").read_bytes()


def test_no_file_but_the_dicom_objects_tells_who_the_patient_is(written):
    _, _, folder = written
    header = example_exam.source_exam().grid_instances[0]
    secrets = [str(header[name].value) for name in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber")]
    secrets += [header.ReferringPhysicianName.family_name, header.ClinicalTrialSubjectID, "Ångström"]
    for name in ("result.json", "discs.csv", "qc.png", "qc_registration.png"):
        data = (folder / name).read_bytes()
        assert [one for one in secrets if one.encode("utf-8") in data or one.encode("latin-1") in data] == []


def test_the_report_is_the_one_in_the_dicom_object(written):
    _, summary, folder = written
    (one,) = [one for one in summary.objects if one.kind is ObjectKind.PDF]
    document = dcmread(folder / one.path)
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength] == (folder / "report.pdf").read_bytes()
    assert "P-0815" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_later_report_is_another_document(one_disc, tmp_path):
    result, summary, _ = one_disc
    later = write_result(result, example_exam.exam_images(result), tmp_path / "out", edition=Edition(2, 1))
    uids = [{one.path.name: one.sop_instance_uid for one in made.objects} for made in (summary, later)]
    assert {name for name in uids[0] if uids[0][name] != uids[1][name]} == {"report.dcm"}
    assert "replaces version 1" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_the_same_analysed_again_later_is_not_taken_for_the_objects_sent_before(one_disc, tmp_path):
    """An object goes to a destination once: with its old UIDs the newest result would not have gone there."""
    result, summary, _ = one_disc
    images, again = example_exam.exam_images(result), Edition(4, 3, is_again=True)
    uids = [
        {one.sop_instance_uid for one in write_result(result, images, tmp_path / name, edition=again).objects}
        for name in ("out", "retried")
    ]
    assert uids[0] == uids[1]
    assert uids[0].isdisjoint(one.sop_instance_uid for one in summary.objects)


def test_the_subject_is_shown_as_the_settings_say(written, tmp_path):
    result = example_exam.exam_result((Level.L4L5,), with_maps=False)
    settings = ReportSettings(subject=SubjectLine.NONE)
    write_result(result, example_exam.exam_images(result), tmp_path / "out", settings=settings)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "not shown" in page
    assert "P-0815" not in page


def test_writing_twice_gives_the_same_bytes(written, tmp_path):
    result = example_exam.exam_result()
    write_result(result, example_exam.exam_images(result), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(written[2])


def test_a_failure_leaves_nothing_behind(one_disc, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(result_files, "write_objects", fail)
    with pytest.raises(OSError, match="disk full"):
        write_result(one_disc[0], example_exam.exam_images(one_disc[0]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_gets_new_results_and_keeps_the_rest(one_disc, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    without = example_exam.exam_result((Level.L4L5,), with_maps=False)
    result = one_disc[0]
    first = write_result(result, example_exam.exam_images(result), tmp_path / "out")
    assert len(contents(tmp_path / "out")) == 7 + len(first.objects)
    second = write_result(without, example_exam.exam_images(without), tmp_path / "out")
    assert len(second.objects) < len(first.objects)
    names = {"notes.txt", "result.json", "discs.csv", "qc.png", "report.html", "report.pdf"} | {
        str(one.path) for one in second.objects
    }
    assert contents(tmp_path / "out").keys() == names
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@dataclasses.dataclass(frozen=True)
class Facts:
    series_uid: str


def test_a_refusal_says_why_and_of_which_series(tmp_path):
    reasons = (Reason(ReasonCode.ECHO_UNRESOLVED, "EchoTime is 0 in all images"),)
    summary = write_refusal(reasons, [Facts("1.2.4"), Facts("1.2.3"), Facts("1.2.4")], tmp_path / "out")
    assert (summary.status, summary.reasons, summary.objects) == ("refused", reasons, ())
    assert contents(tmp_path / "out").keys() == {"result.json", "report.html", "report.pdf"}
    text = (tmp_path / "out" / "result.json").read_text(encoding="utf-8")
    document = ResultDocument.model_validate_json(text)
    assert document.status is Verdict.REFUSED
    assert [(one.code, one.detail) for one in document.reasons] == [("ECHO_UNRESOLVED", "EchoTime is 0 in all images")]
    assert [one.series_uid for one in document.inputs] == ["1.2.3", "1.2.4"]
    assert not document.discs


def test_result_json_says_how_the_exam_was_acquired(one_disc):
    result, summary, _ = one_disc
    told = Acquisition(device_serial="A1", t1rho_times_ms=(0.0, 10.0, 40.0), acquired_at=datetime(2026, 3, 14, 9, 26))
    images = dataclasses.replace(example_exam.exam_images(result), acquisition=told)
    document = json.loads(json.dumps(result_document(result, images, summary.objects)))
    assert ResultDocument.model_validate(document).acquisition.device_serial == "A1"
    assert acquisition_of_entry(document["acquisition"]) == told
