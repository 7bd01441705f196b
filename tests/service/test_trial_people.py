"""What people say of exams and subjects, the freeze of a trial, and the command line that it is said by."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from trial_site import DAY_ZERO, NOW, VERSIONS, Scan, Site, open_site, spine

from processing.results import Level
from service import cli
from service import database as node
from service import trial_tables as db
from service.deliveries import list_deliveries
from service.outbox import Parcel, put_in_outbox
from service.signatures import CannotSign, Signing
from service.trials.imports import TableRefused, import_mappings, import_subjects
from service.trials.people import CannotDecide, accept, assign, not_evaluable, set_aside
from service.trials.subjects import confirm_levels, get_subject, note_not_evaluable, withdraw

ANNA = Signing("anna", "test", NOW, "I looked at it", "because")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = open_site(tmp_path)
    yield opened
    opened.database.close()


def _measured(site: Site, scan: Scan, **content: object) -> int:
    exam_id = site.add(scan)
    site.measure(exam_id, **content)
    return exam_id


def _subject(site: Site, name: str = "01-001") -> object:
    with site.database.read() as connection:
        return get_subject(connection, name)


def _table(site: Site, text: str) -> Path:
    path = site.settings.storage_dir.parent / "table.csv"
    path.write_text(text)
    return path


def test_a_persons_word_counts_and_is_signed_and_can_be_taken_back(site: Site) -> None:
    _measured(site, Scan(visit="BL"))
    late = _measured(site, Scan(visit="M3", day=120))
    site.sweep()
    with pytest.raises(CannotSign, match="reason"):
        assign(site.database, late, "M3", Signing("anna", "test", NOW, "I looked at it"))
    with pytest.raises(CannotDecide, match="allowed: BL, M3, M6, unscheduled"):
        assign(site.database, late, "M4", ANNA)
    assign(site.database, late, "M3", ANNA)
    assert site.visits()[late][:3] == ("01-001", "M3", "measured")
    assert site.visits()[late].job_id is not None
    not_evaluable(site.database, late, ANNA)
    assert site.visits()[late][2:5] == ("not_evaluable", "", "a person said so: because")
    set_aside(site.database, late, ANNA)
    assert site.visits()[late].state == "set_aside"
    set_aside(site.database, late, ANNA, back=True)
    assert site.visits()[late].state == "held"
    signed = [(row.decision, row.signed_by, row.reason) for row in site.rows(db.signature)]
    assert signed == [(name, "anna", "because") for name in ("assigned", "not_evaluable", "set_aside", "taken_back")]
    audited = " ".join(row.event for row in site.rows(node.audit_queue))
    assert f"exam {late}: M3 of subject 01-001; before: M3 held REVIEW_REQUIRED" in audited
    assert "HOSP-1" not in audited
    assert "because" not in audited


def test_a_doubt_that_a_person_accepts_comes_back_only_as_another(site: Site) -> None:
    _measured(site, Scan(visit="BL"))
    other = _measured(site, Scan(visit="M3", day=91, patient_id="HOSP-1B"))
    site.sweep()
    accept(site.database, other, ANNA)
    assert site.visits()[other].state == "measured"
    with site.database.write() as connection:
        connection.execute(db.trial_exam.update().where(db.trial_exam.c.exam_id == other).values(sex="M"))
        connection.execute(node.exam.update().values(trial_seen=None))
    site.sweep()
    assert site.visits()[other].state == "measured"  # the header says F: what is in the file counts
    far = _measured(site, Scan(visit="M6", day=300))
    site.sweep()
    with pytest.raises(CannotDecide, match="cannot be accepted, only settled"):
        accept(site.database, far, ANNA)


def test_an_exam_of_nobody_is_given_to_a_subject(site: Site) -> None:
    _measured(site, Scan(visit="BL"))
    stray = _measured(site, Scan(subject="", visit="M3", day=91))
    site.sweep()
    with pytest.raises(CannotDecide, match="no subject 01-009"):
        assign(site.database, stray, "M3", ANNA, subject_id="01-009")
    assign(site.database, stray, "M3", ANNA, subject_id="01-001")
    assert site.visits()[stray][:3] == ("01-001", "M3", "measured")
    assert site.at_the_door() == {}


def test_levels_are_confirmed_once_and_changed_with_a_reason(site: Site) -> None:
    doubt = {"code": "LEVELS_AMBIGUOUS", "detail": "six lumbar discs"}
    six = spine(n=6)
    baseline = _measured(site, Scan(visit="BL"), verdict="needs_review", reasons=[doubt], discs=six)
    lower = _measured(site, Scan(visit="M3", day=91), discs=spine())
    higher = _measured(site, Scan(visit="M6", day=182), discs=spine(lowest=1))
    site.sweep()
    assert site.visits()[baseline].state == "held"
    confirm_levels(site.database, _subject(site), Level.L5S1, Signing("anna", "test", NOW, "I looked"))
    found = site.visits()
    assert found[baseline].state == "measured"
    assert (found[lower].state, found[lower].code) == ("held", "LEVELS_AMBIGUOUS")
    assert "5 discs were found" in found[lower].detail
    assert "its lowest disc is named L4L5" in found[higher].detail
    with pytest.raises(CannotSign, match="reason"):
        confirm_levels(site.database, _subject(site), Level.L4L5, Signing("anna", "test", NOW, "I looked"))
    confirm_levels(site.database, _subject(site), Level.L4L5, ANNA)
    assert site.visits()[baseline].state == "held"
    (subject,) = site.rows(db.subject)
    assert (subject.lowest_disc, subject.levels_confirmed_by) == ("L4L5", "anna")


@pytest.mark.parametrize("operated", ["L5S1", "L4L5"])
def test_a_disc_that_was_operated_on_may_be_missing_later(site: Site, operated: str) -> None:
    _measured(site, Scan(visit="BL"))
    without = _measured(site, Scan(visit="M3", day=91), discs=[one for one in spine() if one["level"] != operated])
    site.sweep()
    confirm_levels(site.database, _subject(site), Level.L5S1, ANNA)
    assert site.visits()[without].code == "LEVELS_AMBIGUOUS"
    note_not_evaluable(site.database, _subject(site), Level[operated], "M3", ANNA)
    assert site.visits()[without].state == "measured"


def test_discs_without_a_value_and_withdrawal(site: Site) -> None:
    _measured(site, Scan(visit="BL"))
    site.sweep()
    note_not_evaluable(site.database, _subject(site), Level.L4L5, "M3", ANNA)
    with pytest.raises(CannotDecide, match="already"):
        note_not_evaluable(site.database, _subject(site), Level.L4L5, "M6", ANNA)
    with pytest.raises(CannotDecide, match="allowed: BL, M3, M6"):
        note_not_evaluable(site.database, _subject(site), Level.L3L4, "M9", ANNA)
    note_not_evaluable(site.database, _subject(site), Level.L4L5, "", ANNA, back=True)
    assert [row.withdrawn_at is None for row in site.rows(db.non_evaluable)] == [False]
    withdraw(site.database, _subject(site), DAY_ZERO + timedelta(days=30), ANNA)
    later = _measured(site, Scan(day=91))
    site.sweep()
    assert "was withdrawn on 2026-04-01" in site.visits()[later].detail
    (subject,) = site.rows(db.subject)
    assert subject.look_on is None


def test_the_subjects_table_is_taken_whole_or_not_at_all(site: Site) -> None:
    site.sweep()
    head = "subject_id,site_id,patient_id,birth_year,sex\n"
    bad = _table(site, f"{head}01-001,01,HOSP-1,1970,F\n01-002,09,HOSP-2,70,X\n01-003,01,HOSP-1,,\nxx,01,,,\n")
    with pytest.raises(TableRefused) as caught:
        import_subjects(site.database, "DISC-1", bad, ANNA)
    assert "line 3: the site '09' is none of the plan's: 01, 02" in str(caught.value)
    assert "line 5: its subject's ID is not of the form that the plan asks for" in str(caught.value)
    assert site.rows(db.subject) == []
    twice = _table(site, f"{head}01-001,01,HOSP-1,,\n01-003,01,HOSP-1,,\n")
    with pytest.raises(TableRefused, match="IDENTITY_CONFLICT: 01-001 and 01-003 have one PatientID"):
        import_subjects(site.database, "DISC-1", twice, ANNA)
    with pytest.raises(TableRefused, match="speaks of an arm"):
        import_subjects(site.database, "DISC-1", _table(site, "subject_id,site_id,arm\n01-001,01,A\n"), ANNA)
    assert import_subjects(site.database, "", _table(site, f"{head}01-001,01,HOSP-1,1970,F\n"), ANNA) == (1, 1)
    with pytest.raises(TableRefused, match="IDENTITY_CONFLICT: 01-002 and 01-001 have one PatientID"):
        import_subjects(site.database, "", _table(site, f"{head}01-002,01,HOSP-1,,\n"), ANNA)
    wrong = _measured(site, Scan(visit="BL", patient_id="HOSP-7"))
    right = _measured(site, Scan(subject="", protocol_id="", site="", day=0))
    site.sweep()
    assert (site.visits()[wrong].state, site.visits()[wrong].code) == ("held", "IDENTITY_CONFLICT")
    assert site.visits()[right][:3] == ("01-001", "BL", "measured")
    stranger = _measured(site, Scan(subject="01-002", visit="BL"))
    site.sweep()
    assert "its PatientID is also that of subject 01-001" in site.visits()[stranger].detail
    assert site.visits()[right].state == "measured"  # the table says whose the PatientID is
    assert "HOSP-1" not in repr(site.rows(db.subject))


def test_a_mapping_names_studies_that_say_nothing(site: Site) -> None:
    anonymous = Scan(subject="", protocol_id="", site="", visit="", day=91, patient_id="HOSP-3")
    early = _measured(site, anonymous)
    site.sweep()
    assert site.visits() == {}
    assert site.at_the_door() == {}
    text = "patient_id,study_date,subject_id,visit\nHOSP-3,2026-06-01,01-005,M3\n"
    with pytest.raises(TableRefused, match="visit: the plan has no 'M4'; allowed: BL, M3, M6, or empty"):
        import_mappings(site.database, "", _table(site, text.replace("M3", "M4")), ANNA)
    assert import_mappings(site.database, "", _table(site, text), ANNA) == (1, 1)
    assert site.at_the_door()[early][1].startswith("nothing names the site of subject 01-005")
    import_subjects(site.database, "", _table(site, "subject_id,site_id\n01-005,02\n"), ANNA)
    assert site.visits()[early][:3] == ("01-005", "M3", "measured")
    contradicting = _measured(site, Scan(subject="01-006", day=91, patient_id="HOSP-4", site="02"))
    import_mappings(site.database, "", _table(site, "patient_id,study_date,subject_id\nHOSP-4,20260601,01-005\n"), ANNA)
    site.sweep()
    found = site.visits()[contradicting]
    assert (found.subject, found.code) == ("01-005", "IDENTITY_CONFLICT")
    assert "its headers name the subject 01-006, the mapping table 01-005" in found.detail


# --- the plan and its freeze ------------------------------------------------------------------------------------------


def test_an_edited_plan_is_taken_over_until_it_is_frozen(site: Site) -> None:
    exam_id = _measured(site, Scan(visit="BL"))
    site.sweep()
    late = _measured(site, Scan(day=110))
    site.sweep()
    assert site.visits()[late].state == "held"
    before = site.rows(db.trial)[0].plan_sha256
    visits = [{"name": "BL", "day": 0, "baseline": True}, {"name": "M3", "day": 91, "after_days": 30}]
    site.write_plan(visits=visits)
    site.sweep()
    after = site.rows(db.trial)[0].plan_sha256
    assert site.visits()[late][1:3] == ("M3", "measured")
    audited = " ".join(row.event for row in site.rows(node.audit_queue))
    assert f"plan changed from {before} to {after}" in audited
    site.plan_file.write_text("protocol_id: [")
    site.sweep()
    assert site.rows(db.trial)[0].deviation.startswith("its plan cannot be used and stays as it was")
    assert site.visits()[exam_id].state == "measured"


def _freeze(site: Site, **versions: str) -> None:
    with site.database.write() as connection:
        row = site.rows(db.trial)[0]
        frozen = {"versions": VERSIONS | versions, "plan_sha256": row.plan_sha256}
        connection.execute(db.trial.update().values(freeze=frozen, frozen_at=NOW, frozen_by="anna"))


def test_after_the_freeze_an_edit_is_refused_and_new_results_are_held(site: Site) -> None:
    old = _measured(site, Scan(visit="BL"))
    site.sweep()
    _freeze(site)
    text = site.plan_file.read_text()
    site.write_plan(repeats="latest")
    site.sweep(NOW - timedelta(seconds=1))  # results are of NOW
    new = _measured(site, Scan(visit="M3", day=91))
    site.sweep()
    (trial,) = site.rows(db.trial)
    assert trial.deviation.startswith("plan edited after freeze")
    assert trial.plan == text
    found = site.visits()[new]
    assert (found.state, found.code) == ("held", "PROTOCOL_DEVIATION")
    assert found.detail.startswith("plan edited after freeze")
    site.plan_file.write_text(text)
    site.sweep()
    assert site.visits()[new].state == "measured"
    assert site.visits()[old].state == "measured"


def test_only_results_of_the_frozen_versions_count(site: Site) -> None:
    from service.reprocessing import Request, reprocess

    exam_id = _measured(site, Scan(visit="BL"))
    site.sweep()
    first = site.visits()[exam_id].job_id
    assert first is not None
    _freeze(site)
    reprocess(site.database, first, Request("new weights", "anna"))
    site.measure(exam_id, versions=VERSIONS | {"model_sha256": "cd" * 32})
    other = _measured(site, Scan(visit="M3", day=91), versions=VERSIONS | {"discnode": "0.3.0"})
    site.sweep()
    assert site.visits()[exam_id].job_id == first
    found = site.visits()[other]
    assert (found.state, found.code) == ("held", "PROTOCOL_DEVIATION")
    assert found.detail == "measured with other versions than the frozen ones: discnode 0.3.0 instead of 0.2.0"


def test_the_command_line(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    config = site.settings.storage_dir.parent / "node.yaml"
    config.write_text(json.dumps({"storage_dir": str(site.settings.storage_dir), "trials_dir": "trials"}))

    def run(*words: str) -> tuple[int, str]:
        status = cli.main(["trial", *words, "--config", str(config)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    _measured(site, Scan(visit="BL"))
    late = _measured(site, Scan(day=120))
    site.sweep()
    shutil.copy(site.plan_file, site.plan_file.with_name("copy.yaml"))
    status, text = run("status")
    assert status == 0
    assert "a second plan of the trial DISC-1" in text
    assert f"exam {late}, 01-001 unscheduled, 2026-06-30: REVIEW_REQUIRED: day 120 is outside every window" in text
    assert "H" in text
    site.plan_file.with_name("copy.yaml").unlink()
    status, text = run("visits", "assign", str(late), "--visit", "M3", "--by", "anna", "--reason", "a strike")
    assert (status, text) == (0, f"exam {late} is M3 of subject 01-001\n")
    assert run("visits", "accept", str(late), "--reason", "x")[0] == 3
    assert run("subjects", "confirm-levels", "01-001", "--lowest-disc", "L5S1")[0] == 0
    status, text = run("subjects", "show", "01-001")
    shown = json.loads(text)
    assert [one["name"] for one in shown["exams"]] == ["BL", "M3"]
    assert shown["exams"][1]["signatures"][0]["reason"] == "a strike"
    assert run("freeze", "DISC-1")[0] == 3  # without its meaning
    status, text = run("freeze", "DISC-1", "--meaning", "the pipeline is fixed", "--by", "anna")
    assert status == 0
    assert "weights: " in text
    status, text = run("status", "DISC-1", "--json")
    told = json.loads(text)[0]
    assert told["frozen"].endswith("by anna")
    assert {one["code"] for one in told["held"]} == {"PROTOCOL_DEVIATION"}  # these results are of another program
    assert run("unfreeze", "DISC-1", "--meaning", "an error", "--reason", "too early")[0] == 0
    assert json.loads(run("status", "--json")[1])[0]["held"] == []


def test_a_doubt_accepted_for_one_subject_is_a_doubt_of_the_next(site: Site) -> None:
    site.measure(site.add(Scan(visit="BL")))
    site.measure(site.add(Scan("01-002", visit="BL", patient_id="HOSP-2")))
    other = site.add(Scan(visit="M3", day=91, patient_id="HOSP-3"))
    site.measure(other)
    site.sweep()
    assert site.visits()[other].state == "held"
    accept(site.database, other, ANNA)
    assert site.visits()[other].state == "measured"
    assign(site.database, other, "M3", ANNA, subject_id="01-002")
    assert site.visits()[other][:4] == ("01-002", "M3", "held", "IDENTITY_CONFLICT")


@pytest.mark.parametrize(("protocol_id", "state"), [("DISC-1", "held"), ("", "waiting")])
def test_of_a_study_that_was_joined_to_another_only_a_trial_s_result_waits(
    site: Site, protocol_id: str, state: str
) -> None:
    site.write_plan(destinations=["pacs"], release="automatic")
    exam = site.add(Scan(visit="BL", protocol_id=protocol_id))
    job = site.measure(exam)
    with site.database.write() as connection:
        put_in_outbox(connection, job, [Parcel("1.2.3", "seg", "x/1.dcm", "pacs")], NOW)
    site.sweep()
    (one,) = list_deliveries(site.database)
    assert one.state == "waiting"
    with site.database.write() as connection:
        connection.execute(update(node.exam).where(node.exam.c.id == exam).values(state="joined", trial_seen=None))
    site.sweep()
    (one,) = list_deliveries(site.database)
    assert one.state == state
    assert site.visits() == {}, "it is part of another exam, though its headers still name a subject"
