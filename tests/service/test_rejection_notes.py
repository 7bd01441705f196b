"""A recall tells archives which objects must not be used, in the form they know."""

import json
from pathlib import Path

import pydicom
import pytest
from peers import Storescp, need, run_tool
from release_desk import MEANING, Node
from sqlalchemy import update

from service import database as db
from service.cli import main
from service.deliveries import list_deliveries


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
