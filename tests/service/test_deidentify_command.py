"""discnode trial key, deidentify and reidentify: keys that others cannot read, refusals by name, requests on record."""

import json
import stat
from pathlib import Path

import pytest
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import select
from trial_site import PLAN, Scan, Site, open_site

from config.deidentification import read_key, write_new_key
from config.settings import SettingsError
from dicom_io.pseudonyms import Pseudonyms
from service import database as db
from service import trial_tables as trials
from service.cli import main

WHO = ("--subject", "01-001", "--visit", "BL")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(PLAN | {"deidentification": {"key_file": "trial.key"}}))
    write_new_key(tmp_path / "trial.key")
    (tmp_path / "exam").mkdir()
    write_mapss(tmp_path / "exam", mapss_signal(3), StudyDate="20260112")
    return path


def test_a_key_is_new_and_its_owners_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trial.key"
    assert main(["trial", "key", "new", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_key(path)) == 32
    said = capsys.readouterr().out
    before = path.read_bytes()
    assert main(["trial", "key", "new", str(path)]) != 0, "a key is never overwritten"
    assert path.read_bytes() == before
    assert main(["trial", "key", "show", str(path)]) == 0
    said += capsys.readouterr().out
    assert before.decode().split()[1][:12] not in said
    write_new_key(tmp_path / "other.key")
    assert read_key(tmp_path / "other.key") != read_key(path)


@pytest.mark.parametrize("fault", ["readable", "short", "no key", "missing"])
def test_a_key_that_cannot_be_trusted_is_refused_without_telling_it(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "trial.key"
    write_new_key(path)
    text = path.read_text()
    if fault == "readable":
        path.chmod(0o644)
    elif fault == "missing":
        path.unlink()
    else:
        path.write_text(text[:-10] if fault == "short" else "correct horse")
    with pytest.raises(SettingsError) as error:
        read_key(path)
    assert text.split()[1][:20] not in str(error.value)


def test_deidentify_writes_files_and_a_table_apart(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["trial", "deidentify", str(tmp_path / "exam"), "--plan", str(plan), *WHO, "--site", "01"]
    table = tmp_path / "table.csv"
    assert main([*command, "--out", str(tmp_path / "out"), "--table", str(table)]) == 0
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    rows = table.read_text().splitlines()
    assert len(rows) == 1 + len(list((tmp_path / "out").iterdir())) == 22
    assert main([*command, "--out", str(tmp_path / "again"), "--table", str(table)]) == 0
    assert table.read_text().splitlines() == rows
    assert "P-17" in rows[1]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2, "never into a folder with something in it"
    said = "".join(capsys.readouterr())
    assert "P-17" not in said
    assert main([*command, "--out", str(tmp_path / "x"), "--table", str(tmp_path / "x" / "t.csv")]) != 0
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--subject", "Smith", "--visit", "BL", "--site", "01"), "has not the form"),
        (("--subject", "01-001", "--visit", "M99", "--site", "01"), "allowed: BL, M3, M6"),
        (("--subject", "01-001", "--visit", "BL"), "allowed: 01, 02"),
    ],
)
def test_what_the_plan_does_not_know_is_refused(
    words: tuple[str, ...], told: str, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["trial", "deidentify", str(tmp_path / "exam"), "--plan", str(plan), *words, "--out", str(out)]) != 0
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_a_bad_file_ends_in_a_refusal_by_name(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "exam" / "Smith.txt").write_text("about Mrs Smith")
    command = ["trial", "deidentify", str(tmp_path / "exam"), "--plan", str(plan), *WHO, "--site", "01"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert "UNREADABLE" in said
    assert "Smith" not in said


def test_a_request_for_an_identity_is_on_record_before_it_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = open_site(tmp_path, deidentification={"key_file": "trial.key"})
    write_new_key(tmp_path / "trials" / "trial.key")
    config = _config(tmp_path, site)
    site.measure(site.add(Scan(visit="BL", patient_id="HOSP-77")))
    site.sweep()
    with site.database.read() as connection:
        study = connection.execute(select(db.exam.c.study_uid)).scalar_one()
    mapped = Pseudonyms(read_key(tmp_path / "trials" / "trial.key"), "DISC-1", "").uid(study)
    common = ["trial", "reidentify", "--plan", str(site.plan_file), "--config", str(config), "--by", "investigator"]
    for words in (["--subject", "01-001"], ["--uid", mapped]):
        assert main([*common, *words, "--reason", "finding in the images"]) == 0
        said = capsys.readouterr().out
        assert "HOSP-77" in said
        assert study in said
    assert main([*common, "--uid", study, "--reason", "a guess"]) == 3, "an original UID is no pseudonym"
    assert main([*common, "--subject", "01-001", "--reason", " "]) != 0
    write_new_key(tmp_path / "wrong.key")
    assert main([*common, "--uid", mapped, "--key", str(tmp_path / "wrong.key"), "--reason", "other key"]) == 3
    signed = [row for row in site.rows(trials.signature) if row.decision == "reidentified"]
    assert [(row.signed_by, row.reason) for row in signed] == [
        ("investigator", "finding in the images"),
        ("investigator", "finding in the images"),
        ("investigator", "a guess"),
        ("investigator", "other key"),
    ]
    with site.database.read() as connection:
        events = [
            text for text in connection.execute(select(db.audit_queue.c.event)).scalars() if "reidentified" in text
        ]
    assert len(events) == 4
    assert not [text for text in events if "HOSP" in text or "finding" in text]
    site.database.close()


def _config(tmp_path: Path, site: Site) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text(json.dumps({"storage_dir": str(site.settings.storage_dir), "trials_dir": str(tmp_path / "trials")}))
    return path


def test_a_plan_whose_destination_takes_copies_needs_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = {"name": "lab", "ae_title": "LAB", "host": "lab.example", "port": 104, "deidentify": True}
    config, plan = tmp_path / "node.yaml", tmp_path / "plan.yaml"
    config.write_text(json.dumps({"storage_dir": str(tmp_path / "node"), "destinations": [lab]}))
    plan.write_text(json.dumps(PLAN | {"destinations": ["lab"]}))
    assert main(["trial", "check", str(plan), "--config", str(config)]) != 0
    assert "deidentification.key_file" in capsys.readouterr().err
    plan.write_text(json.dumps(PLAN | {"destinations": ["lab"], "deidentification": {"key_file": "trial.key"}}))
    write_new_key(tmp_path / "trial.key")
    assert main(["trial", "check", str(plan), "--config", str(config)]) == 0
