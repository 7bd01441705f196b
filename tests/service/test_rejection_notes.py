"""A recall tells archives which objects must not be used, in the form they know."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from peers import Storescp, need, run_tool
from records import NOW
from release_desk import MEANING, PLAN, Node, signing
from small_mr_exam import mr_dataset
from sqlalchemy import update

from config.release import Release
from dicom_io.deidentify import deidentify, is_deidentified
from dicom_io.presence import read_sent_object
from dicom_io.pseudonyms import TrialIdentity
from dicom_io.rejection_note import QUALITY, write_rejection_note
from service import database as db
from service import holds
from service.cli import main
from service.deliveries import list_deliveries
from service.outbox import Parcel, put_in_outbox
from service.recall import Selection, recall
from service.rejection_notes import KIND
from service.states import DeliveryState


@pytest.mark.peers
@pytest.mark.parametrize(("code", "title"), [("MOTION", "113001"), ("WRONG_SUBJECT", "113037")])
def test_a_recall_sends_a_note_about_what_was_sent(
    tmp_path: Path, code: str, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need("storescp", "dciodvfy")
    with Storescp(tmp_path / "scp") as scp:
        node = Node(tmp_path, scp, "automatic")
        job = node.finish()
        assert node.deliver() == 2
        config = tmp_path / "node.yaml"
        config.write_text(
            json.dumps(node.settings.model_dump(mode="json", include={"storage_dir", "destinations", "routes"}))
        )
        words = ["release", "recall", "--job", str(job), "--code", code, "--notes", "--reason", "x", "--by", "Ann"]
        assert main([*words, "--meaning", MEANING, "--config", str(config)]) == 0
        assert "1 rejection notes are on their way\n" in capsys.readouterr().err
        assert node.deliver(1e9) == 1
        (path,) = (one for one in scp.files if pydicom.dcmread(one).Modality == "KO")
    note = pydicom.dcmread(path)
    assert note.ConceptNameCodeSequence[0].CodeValue == title
    named = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in note.ContentSequence}
    assert named == {"1.2.3.1.0", "1.2.3.1.1"}
    (series,) = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.1"
    assert len(series.ReferencedSOPSequence) == 2
    source = pydicom.dcmread(node.settings.storage_dir / list_deliveries(node.database)[0].path)
    assert (note.PatientID, note.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    said = run_tool("dciodvfy", path)
    assert "Error" not in said.stdout + said.stderr, said.stderr


@pytest.mark.peers
def test_where_no_file_is_left_the_list_is_all_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("storescp")
    with Storescp(tmp_path / "scp") as scp:
        node = Node(tmp_path, scp, "automatic")
        job = node.finish()
        assert node.deliver() == 2
    for one in list_deliveries(node.database):
        (node.settings.storage_dir / one.path).unlink()
    with node.database.write() as connection:
        connection.execute(update(db.job).values(files="deleted"))
    config = tmp_path / "node.yaml"
    shown = node.settings.model_dump(mode="json", include={"storage_dir", "destinations", "routes"})
    config.write_text(json.dumps(shown))
    words = ["release", "recall", "--job", str(job), "--notes", "--reason", "x", "--by", "Ann", "--meaning", MEANING]
    assert main([*words, "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert "0 rejection notes are on their way; for 1 none can be made" in said.err
    assert len(said.out.splitlines()) == 1 + 2


def test_nothing_holds_or_stops_a_note_on_its_way(tmp_path: Path) -> None:
    """Its exam is in doubt, its plan has a person decide, it is recalled once more: the archive is told."""
    node = Node(tmp_path, Storescp(tmp_path / "nobody"), "automatic")
    job = node.finish()
    note = Parcel("1.2.3.9", KIND, "rejections/1.dcm", "pacs")
    with node.database.write() as connection:
        put_in_outbox(connection, job, [note], NOW)
        holds.unsettle(connection, job, "it may be another person's exam")
        holds.settle(connection, job, (), PLAN.model_copy(update={"release": Release.HOLD, "destinations": ()}))
    recall(node.database, Selection(job_id=job), signing())
    states = {one.kind: one.state for one in list_deliveries(node.database)}
    assert states == {"seg": DeliveryState.REJECTED, KIND: DeliveryState.WAITING}


def test_a_note_about_deidentified_copies_is_one_itself(tmp_path: Path) -> None:
    """Destinations that take nothing else are told of a recall, and no day of the calendar."""
    image = mr_dataset(np.zeros((6, 5), dtype=np.uint16), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1")
    image.PatientID, image.StudyDate = "01-001", "20200106"
    key, identity = bytes(range(32)), TrialIdentity("DISC-1", "01", "01-001", "BL")
    copy = deidentify(image, identity, key)
    copy.save_as(tmp_path / "copy.dcm", enforce_file_format=True)
    sent = read_sent_object(tmp_path / "copy.dcm")
    assert sent is not None
    assert write_rejection_note([sent], tmp_path / "copy.dcm", QUALITY, NOW, tmp_path / "note.dcm") is not None
    assert is_deidentified(tmp_path / "note.dcm")
    assert pydicom.dcmread(tmp_path / "note.dcm").ContentDate == copy.StudyDate
