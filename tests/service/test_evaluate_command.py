"""`discnode evaluate` on small simulated sites, from the command line to the files it leaves."""

import csv
import hashlib
import json
import shutil

import annotated_site
import numpy as np
import pytest
import yaml
from volume_files import write_volume

from config.settings import Settings
from models.inference import OnnxModel
from models.registry import PACKAGED_FOLDER, load_model
from processing.phantom import simulate_exam
from processing.results import ImageVolume, Level
from processing.segmentation import find_discs
from service.cli import main

pytestmark = pytest.mark.slow

NAME = Settings().segmentation.model


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A site of two subjects with three slices each and grades, evaluated once."""
    folder = tmp_path_factory.mktemp("evaluated")
    site, out = folder / "site", folder / "out"
    exams = [annotated_site.phantom(subject) for subject in ("S1", "S2")]
    for exam in exams:
        annotated_site.write_dicom(exam, site, f"{exam.subject}_1")
        annotated_site.write_truth_beside(exam, site, f"{exam.subject}_1")
    lines = [f"{one.subject},{level.name},{one.grades[level - 1]}" for one in exams for level in Level if level <= 5]
    (folder / "grades.csv").write_text("subject,level,grade\n" + "\n".join(lines) + "\n", encoding="utf-8")
    assert main(["evaluate", str(site), "--out", str(out), "--grades", str(folder / "grades.csv")]) == 0
    return exams, out


def test_every_disc_has_the_dice_of_its_two_masks(evaluated):
    exams, out = evaluated
    model = OnnxModel(load_model(NAME))
    found = rows(out / "discs.csv")
    assert len(found) == 10
    for exam in exams:
        stored = np.rint(exam.signal[0] * (16_000 / float(exam.signal.max())))  # as the simulated scanner stores it
        mask = find_discs(ImageVolume(stored.astype(np.float32), exam.affine), model)
        for row in (one for one in found if one["subject"] == exam.subject):
            manual, automatic = (one == Level[row["level"]] for one in (exam.labels, mask.levels))
            dice = 2 * (manual & automatic).sum() / (manual.sum() + automatic.sum())
            assert float(row["dice"]) == pytest.approx(dice, abs=2e-3)
            assert int(row["n_manual"]) == manual.sum()
            assert (row["found"], row["named"], row["dimension"]) == ("1", row["level"], "3")
            assert row["use"] == "research use only"


def test_the_times_under_the_manual_mask_are_those_of_the_tissue(evaluated):
    exams, out = evaluated
    for exam in exams:
        for row in (one for one in rows(out / "discs.csv") if one["subject"] == exam.subject):
            own = exam.labels == Level[row["level"]]
            for column, truth in (("manual_T1rho_ms", exam.t1rho_ms), ("manual_T2_ms", exam.t2_ms)):
                assert float(row[column]) == pytest.approx(float(np.nanmean(truth[own])), rel=0.06)
            assert abs(float(row["manual_T2_ms"]) - float(row["automatic_T2_ms"])) < 8


def test_the_tables_follow_from_the_discs(evaluated):
    _, out = evaluated
    discs = rows(out / "discs.csv")
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert content["format"] == "discnode.evaluation/1"
    assert content["research_use_only"] is True
    lowest = [float(one["dice"]) for one in discs if one["level"] == "L5S1"]
    cell = next(
        one for one in content["table2"] if (one["comparison"], one["metric"], one["level"]) == ("3-D", "dice", "L5S1")
    )
    assert cell["n"] == 2
    assert cell["mean"] == pytest.approx(np.mean(lowest), abs=1e-5)
    # Student's t(0.975, 1) = 12.7062
    assert cell["ci_high"] - cell["mean"] == pytest.approx(12.7062 * np.std(lowest, ddof=1) / np.sqrt(2), rel=1e-3)
    assert {one["comparison"] for one in content["table2"]} == {"3-D", "2-D slices of 3-D exams"}
    difference = np.array([float(one["manual_T1rho_ms"]) - float(one["automatic_T1rho_ms"]) for one in discs])
    line = next(one for one in content["table3"] if (one["quantity"], one["level"]) == ("T1rho", "all"))
    assert line["n"] == 10
    assert line["bias_ms"] == pytest.approx(difference.mean(), abs=1e-3)
    assert line["upper_limit_ms"] == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1), abs=1e-2)
    assert content["summary"]["n_annotated"] == content["summary"]["n_found"] == 10
    assert content["summary"]["pooled_dice"] == pytest.approx(
        2
        * sum(float(one["sensitivity"]) * int(one["n_manual"]) for one in discs)
        / sum(int(one["n_manual"]) + int(one["n_automatic"]) for one in discs),
        abs=1e-5,
    )
    assert rows(out / "table2.csv")[0]["comparison"] == "3-D"
    assert len(rows(out / "table3.csv")) == 12


def test_the_report_is_one_page_with_its_figures(evaluated):
    _, out = evaluated
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("Research use only") >= 2
    names = ("figure2", "figure3_T1rho", "figure3_T2", "figureS3", "figureS4")
    assert page.count("data:image/png;base64,") == len(names)
    assert "http" not in page
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(rows(out / f"{name}.csv")) >= 2
    assert len(rows(out / "figureS3.csv")) == 10


@pytest.fixture
def volumes(tmp_path):
    """A site of volume files: one phantom of one slice, noise with a mask, and an image whose end is missing."""
    exam = simulate_exam(12, n_slices=1, subject="P1", protocol="t1rho-fse")
    site = tmp_path / "site"
    site.mkdir()
    for subject in ("P1", "P2", "P3"):
        write_volume(exam.labels, site / f"{subject}_mask.mha", exam.affine)
        write_volume(exam.signal[0], site / f"{subject}_image.mha", exam.affine)
    noise = np.random.default_rng(1).rayleigh(100.0, exam.labels.shape).astype(np.float32)
    write_volume(noise, site / "P2_image.mha", exam.affine)
    broken = site / "P3_image.mha"
    broken.write_bytes(broken.read_bytes()[:-5000])
    return exam, site


def test_refused_and_unreadable_exams_are_listed_and_counted(volumes, tmp_path, capsys):
    _, site = volumes
    out = tmp_path / "out"
    assert main(["evaluate", str(site), "--out", str(out)]) == 0
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert [one["outcome"] for one in content["exams"]] == ["compared", "refused", "unreadable"]
    assert content["exams"][1]["reasons"][0]["code"] == "SEGMENTATION_UNCERTAIN"
    summary = content["summary"]
    assert summary["n_annotated"] == 10  # the refused exam's discs count, as not found
    assert summary["n_in_refused_exams"] == 5
    assert summary["n_found"] == 5
    assert summary["found_share"] == 0.5
    assert summary["refusals"] == {"SEGMENTATION_UNCERTAIN": 1}
    assert {one["comparison"] for one in content["table2"]} == {"2-D"}
    assert content["table3"] == []
    said = capsys.readouterr()
    assert "P2: refused, SEGMENTATION_UNCERTAIN" in said.err
    assert "P3: unreadable" in said.err
    assert "annotated discs found: 5 of 10 (50.0 %); 5 of 5 in the exams" in said.out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "SEGMENTATION_UNCERTAIN" in page
    assert [one["outcome"] for one in rows(out / "exams.csv")] == ["compared", "refused", "unreadable"]


def test_a_site_where_nothing_can_be_compared_is_told_by_the_exit_status(volumes, tmp_path):
    _, site = volumes
    for one in ("P1", "P3"):
        for path in site.glob(f"{one}_*"):
            path.unlink()
    assert main(["evaluate", str(site), "--out", str(tmp_path / "out")]) == 3
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["summary"]["pooled_dice"] is None


def two_members(folder) -> None:
    """A registry of two members that say the same (their files differ, as they must)."""
    onnx = pytest.importorskip("onnx")
    folder.mkdir()
    record = load_model(NAME)
    paths = []
    for index in (1, 2):
        network = onnx.load(str(record.members[0].path))
        network.doc_string = f"member {index}"
        paths.append(folder / f"member-{index}.onnx")
        onnx.save(network, str(paths[-1]))

    entry = yaml.safe_load((PACKAGED_FOLDER / "registry.yaml").read_text(encoding="utf-8"))[NAME]
    entry["members"] = [{"file": one.name, "sha256": hashlib.sha256(one.read_bytes()).hexdigest()} for one in paths]
    (folder / "registry.yaml").write_text(yaml.safe_dump({NAME: entry}), encoding="utf-8")


def folds_file(path, folds) -> str:
    path.write_text(json.dumps({"format": "discnode.folds/1", "seed": 1, "folds": folds}), encoding="utf-8")
    return str(path)


def test_out_of_fold_each_exam_gets_the_network_that_has_not_seen_its_subject(volumes, tmp_path):
    _, site = volumes
    two_members(tmp_path / "weights")
    folds = folds_file(tmp_path / "folds.json", [["P2", "P9"], ["P1", "P3"]])
    arguments = ["evaluate", str(site), "--out", str(tmp_path / "out"), "--weights-dir", str(tmp_path / "weights")]
    assert main([*arguments, "--folds", folds]) == 0
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert [(one["subject"], one["member"]) for one in content["exams"]] == [("P1", 1), ("P2", 0), ("P3", 1)]
    assert content["model"]["out_of_fold"] is True
    assert "had not seen its subject" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([["P1"], ["P2"], ["P3"]], "3 folds for 2 networks"),
        ([["P1"], ["P2"]], "in no fold: subject P3"),
        ([["P1", "P2"], ["P1", "P3"]], "subject P1 is in fold 0 and in fold 1"),
    ],
)
def test_folds_that_do_not_fit_are_refused_before_any_work(volumes, tmp_path, capsys, folds, message):
    _, site = volumes
    two_members(tmp_path / "weights")
    arguments = ["evaluate", str(site), "--out", str(tmp_path / "out"), "--weights-dir", str(tmp_path / "weights")]
    assert main([*arguments, "--folds", folds_file(tmp_path / "folds.json", folds)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_told_before_any_work(volumes, tmp_path, capsys):
    _, site = volumes
    (tmp_path / "file").write_text("not a folder")
    assert main(["evaluate", str(site), "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_bad_data_unknown_networks_and_bad_grades_are_refused_before_any_work(volumes, tmp_path, capsys):
    _, site = volumes
    out = ["--out", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "absent"), *out]) == 2
    assert main(["evaluate", str(site), *out, "--model", "absent"]) == 2
    assert "is not registered" in capsys.readouterr().err
    grades = tmp_path / "grades.csv"
    for text, message in (
        ("subject,level,grade\nP1,L7S1,3\n", "line 2"),
        ("subject,level,grade\nP1,L5/S1,9\n", "grade 9"),
        ("subject,level,grade\nP1,L5-S1,3\nP1,1,4\n", "a second grade"),
        ("subject,level\nP1,L5S1\n", "line 2"),
        ("subject,level,grade\n", "holds no grade"),
    ):
        grades.write_text(text, encoding="utf-8")
        assert main(["evaluate", str(site), *out, "--grades", str(grades)]) == 2
        assert message in capsys.readouterr().err
    shutil.copy(site / "P1_mask.mha", site / "P1_mask.nii")
    (site / "P2_mask.mha").unlink()
    assert main(["evaluate", str(site), *out]) == 2
    said = capsys.readouterr().err
    assert "P1: 2 masks for one subject and visit" in said  # every fault at once
    assert "P2_image.mha: there is no mask or truth of it" in said
    assert not (tmp_path / "out").exists()
