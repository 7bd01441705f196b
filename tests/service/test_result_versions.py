"""A result that supersedes another one says so, in result.json and in its report."""

import json
import shutil
import subprocess
from pathlib import Path

import example_exam
import numpy as np
import pydicom
import pytest
from peers import need

from dicom_io.document_writer import ReportPdf
from dicom_io.result_objects import WrittenObject, write_objects
from processing.results import Level
from service.result_schema import ResultDocument
from service.result_versions import mark_version

PDF = ReportPdf("Title", b"%PDF-1.4\n%%EOF", "patient_id")


Original = tuple[Path, tuple[WrittenObject, ...]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """The objects of an exam of one disc, and the folder they lie in."""
    folder = tmp_path_factory.mktemp("original")
    result, picture = example_exam.exam_result((Level.L4L5,)), np.zeros((50, 70, 3), np.uint8)
    return folder, write_objects(result, example_exam.source_exam(), picture, folder, PDF)


def write_version(original: Original, folder: Path) -> tuple[WrittenObject, ...]:
    written, objects = original
    shutil.copytree(written, folder)
    document = {
        "schema": "discnode.result/1",
        "use": "Research use only",
        "status": "ok",
        "reasons": [],
        "inputs": [],
        "discs": [],
        "objects": [
            {
                "kind": one.kind,
                "path": one.path.as_posix(),
                "sop_class_uid": one.sop_class_uid,
                "sop_instance_uid": one.sop_instance_uid,
            }
            for one in objects
        ],
        "timings_s": {},
        "versions": {},
    }
    (folder / "result.json").write_text(json.dumps(document))
    return objects


def document_in(folder: Path) -> ResultDocument:
    return ResultDocument.model_validate_json((folder / "result.json").read_text())


def test_the_first_result_names_its_version_and_no_predecessor(original: Original, tmp_path: Path) -> None:
    objects = write_version(original, tmp_path / "v1")
    before = (tmp_path / "v1/dicom/sr.dcm").read_bytes()
    mark_version(tmp_path / "v1", objects, 1, None, None)
    found = document_in(tmp_path / "v1")
    assert (found.version, found.predecessor) == (1, None)
    assert (tmp_path / "v1/dicom/sr.dcm").read_bytes() == before


def test_a_later_result_names_the_earlier_one_and_so_do_its_documents(original: Original, tmp_path: Path) -> None:
    need("dciodvfy")
    earlier, objects = write_version(original, tmp_path / "v1"), write_version(original, tmp_path / "v3")
    mark_version(tmp_path / "v3", objects, 3, 1, tmp_path / "v1")
    found = document_in(tmp_path / "v3")
    assert found.version == 3
    assert found.predecessor is not None
    assert found.predecessor.version == 1
    assert [one.sop_instance_uid for one in found.predecessor.objects] == [one.sop_instance_uid for one in earlier]
    for name in ("sr", "sr-outlines", "report"):
        check_predecessor(tmp_path / f"v3/dicom/{name}.dcm", tmp_path / f"v1/dicom/{name}.dcm")


def check_predecessor(path: Path, earlier: Path) -> None:
    report, before = pydicom.dcmread(path), pydicom.dcmread(earlier)
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == before.StudyInstanceUID
    assert series.SeriesInstanceUID == before.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == before.SOPInstanceUID
    checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stdout + checked.stderr


def test_marking_twice_gives_the_same_bytes(original: Original, tmp_path: Path) -> None:
    write_version(original, tmp_path / "v1")
    contents = []
    for name in ("a", "b"):
        objects = write_version(original, tmp_path / name)
        mark_version(tmp_path / name, objects, 2, 1, tmp_path / "v1")
        contents.append([(tmp_path / name / one.path).read_bytes() for one in objects])
    assert contents[0] == contents[1]


def test_an_earlier_result_whose_files_are_gone_is_still_named(original: Original, tmp_path: Path) -> None:
    objects = write_version(original, tmp_path / "v2")
    mark_version(tmp_path / "v2", objects, 2, 1, tmp_path / "v1")
    found = document_in(tmp_path / "v2")
    assert found.predecessor is not None
    assert (found.predecessor.version, found.predecessor.objects) == (1, ())
