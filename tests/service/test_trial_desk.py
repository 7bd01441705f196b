"""Exams taken for visits of subjects: the ordinary way, each fault of the issue's list, and every order of arrival."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from trial_site import DAY_ZERO, NOW, Scan, Site, VisitRow, open_site, spine

from service import trial_tables as db
from service.exam_studies import join
from service.signatures import Signing
from service.states import ExamState
from service.trials.people import assign


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = open_site(tmp_path)
    yield opened
    opened.database.close()


def _measured(site: Site, scan: Scan, **content: object) -> int:
    exam_id = site.add(scan)
    site.measure(exam_id, **content)
    return exam_id


def _one(site: Site, exam_id: int) -> VisitRow:
    site.sweep()
    return site.visits()[exam_id]


def test_visits_are_taken_by_their_name_or_by_their_day(site: Site) -> None:
    baseline = _measured(site, Scan(visit="BL"))
    by_day = _measured(site, Scan(day=88))
    by_name = site.add(Scan(visit="m6", day=190))
    assert site.sweep() == 3
    found = site.visits()
    assert [found[one][:3] for one in (baseline, by_day, by_name)] == [
        ("01-001", "BL", "measured"),
        ("01-001", "M3", "measured"),
        ("01-001", "M6", "awaited"),
    ]
    (subject,) = site.rows(db.subject)
    assert (subject.day_zero, subject.site_id, subject.birth_year, subject.sex) == (DAY_ZERO, "01", 1970, "F")
    assert len(site.rows(db.report_due)) == 1
    assert "HOSP-1" not in repr(site.rows(db.subject)) + repr(site.rows(db.trial_exam))


def test_sweeping_again_changes_nothing(site: Site) -> None:
    for scan in (Scan(visit="BL"), Scan(visit="M3", day=91), Scan(day=140)):
        _measured(site, scan)
    site.sweep()
    before = [site.rows(table) for table in (db.subject, db.visit, db.trial_exam, db.report_due)]
    assert site.sweep() == 0
    with site.database.write() as connection:
        from service import database as node

        connection.execute(node.exam.update().values(trial_seen=None))
    assert site.sweep(NOW + timedelta(minutes=5)) == 3
    assert [site.rows(table) for table in (db.subject, db.visit, db.trial_exam, db.report_due)] == before


def test_a_scan_outside_every_window_is_held_and_told_how_far(site: Site) -> None:
    _measured(site, Scan(visit="BL"))
    late = _measured(site, Scan(day=117))
    assert _one(site, late) == (
        *("01-001", "unscheduled", "held", "REVIEW_REQUIRED"),
        "day 117 is outside every window: 12 days after the window of M3 (day 77 to 105)"
        " and 44 days before the window of M6 (day 161 to 203)",
        None,
    )


def test_a_named_visit_outside_its_window_is_held(site: Site) -> None:
    _measured(site, Scan(visit="BL"))
    wrong = _measured(site, Scan(visit="M3", day=180))
    found = _one(site, wrong)
    assert (found.name, found.state, found.code) == ("M3", "held", "REVIEW_REQUIRED")
    assert found.detail == "75 days after the window of M3 (day 77 to 105), in that of M6"
    unknown = _one(site, _measured(site, Scan(visit="M9", day=91)))
    assert (unknown.state, unknown.detail) == ("held", "it names the visit 'M9', which the plan has not: BL, M3, M6")


def test_a_follow_up_waits_for_its_baseline(site: Site) -> None:
    follow_up = _measured(site, Scan(visit="M3", day=91))
    assert _one(site, follow_up)[:4] == ("01-001", "M3", "measured", "")
    assert site.rows(db.subject)[0].day_zero is None
    too_late = _measured(site, Scan(visit="M6", day=300))
    assert _one(site, too_late).state == "measured"  # nothing tells its day yet
    _measured(site, Scan(visit="BL"))
    assert _one(site, too_late).state == "held"
    assert site.visits()[follow_up].state == "measured"


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (Scan(subject="Doe Jane"), "its subject's ID is not of the form that the plan asks for"),
        (Scan(subject=""), "nothing names its subject"),
        (Scan(site="77"), "the site '77' is none of the plan's: 01, 02"),
        (Scan(site=""), "nothing names the site of subject 01-001; the plan has 01, 02"),
    ],
)
def test_an_unknown_subject_is_held_at_the_door(site: Site, scan: Scan, words: str) -> None:
    exam_id = _measured(site, scan)
    site.sweep()
    assert site.visits() == {}
    assert site.at_the_door() == {exam_id: ("REVIEW_REQUIRED", words)}


def test_only_listed_subjects_where_the_plan_says_so(site: Site) -> None:
    site.write_plan(enrolment="listed")
    exam_id = _measured(site, Scan())
    site.sweep()
    assert site.at_the_door()[exam_id][1] == "subject 01-001 is not in the subjects' table"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patient_id": "HOSP-9"}, "its PatientID is not the one on record for 01-001"),
        ({"birth": "19820101"}, "its year of birth is not the one on record for 01-001"),
        ({"sex": "M"}, "its sex is not the one on record for 01-001"),
        ({"site": "02"}, "its headers name the site 02; 01-001 is of site 01"),
    ],
)
def test_another_persons_exam_is_held(site: Site, change: dict[str, str], words: str) -> None:
    _measured(site, Scan(visit="BL"))
    wrong = _measured(site, replace(Scan(visit="M3", day=91), **change))  # type: ignore[arg-type]
    found = _one(site, wrong)
    assert (found.state, found.code, found.detail) == ("held", "IDENTITY_CONFLICT", words)


def test_two_subjects_with_one_patient_are_both_held_by_name(site: Site) -> None:
    one = _measured(site, Scan(visit="BL"))
    other = _measured(site, Scan(subject="01-002", visit="BL"))
    site.sweep()
    found = site.visits()
    assert {found[exam].state for exam in (one, other)} == {"held"}
    assert found[one].detail == "its PatientID is also that of subject 01-002; it is said to be of subject 01-001"
    assert found[other].detail == "its PatientID is also that of subject 01-001; it is said to be of subject 01-002"


def test_another_spine_under_the_right_name_is_asked_about(site: Site) -> None:
    _measured(site, Scan(visit="BL"), discs=spine(0))
    same = _measured(site, Scan(visit="M3", day=91), discs=spine(0))
    other = _measured(site, Scan(visit="M6", day=182), discs=spine(2))
    assert _one(site, same).state == "measured"
    found = site.visits()[other]
    assert (found.state, found.code) == ("held", "IDENTITY_CONFLICT")
    assert "differ in shape from the subject's baseline" in found.detail


def test_names_that_are_shifted_by_a_level_are_seen(site: Site) -> None:
    shifted = [{**above, "level": below["level"]} for below, above in zip(spine(1), spine(1)[1:], strict=False)]
    top = {**spine(1)[4], "shape": {"height_mm": 7.0, "depth_mm": 30.0, "centroid_mm": [0.0, 0.0, 190.0]}}
    _measured(site, Scan(visit="BL"), discs=spine(1))
    site.sweep()
    with site.database.write() as connection:
        connection.execute(db.subject.update().values(lowest_disc="L5S1", levels=[one["level"] for one in spine(1)]))
    wrong = _measured(site, Scan(visit="M3", day=91), discs=[*shifted, top])
    found = _one(site, wrong)
    assert (found.state, found.code) == ("held", "LEVELS_AMBIGUOUS")
    assert "named one level" in found.detail


def test_a_transitional_spine_waits_for_a_persons_word(site: Site) -> None:
    doubt = {"code": "LEVELS_AMBIGUOUS", "detail": "six lumbar discs"}
    exam_id = _measured(site, Scan(visit="BL"), verdict="needs_review", reasons=[doubt])
    found = _one(site, exam_id)
    assert (found.state, found.code) == ("held", "LEVELS_AMBIGUOUS")
    assert "confirm-levels 01-001" in found.detail


@pytest.mark.parametrize(
    ("state", "detail", "expected"),
    [
        (ExamState.INCOMPLETE, "SERIES_INCOMPLETE: 83/84 images", ("held", "SERIES_INCOMPLETE", "83/84 images")),
        (ExamState.HELD, "IDENTITY_CONFLICT: 2 patients", ("held", "IDENTITY_CONFLICT", "2 patients")),
        (ExamState.REFUSED, "ECHO_UNRESOLVED: no TSL", ("not_evaluable", "ECHO_UNRESOLVED", "no TSL")),
        (ExamState.FAILED, "job 1 failed 3 times", ("held", "INTERNAL", "job 1 failed 3 times")),
    ],
)
def test_what_cannot_be_measured_is_told(
    site: Site, state: ExamState, detail: str, expected: tuple[str, str, str]
) -> None:
    exam_id = site.add(Scan(visit="BL"), state, detail)
    found = _one(site, exam_id)
    assert (found.state, found.code, found.detail) == expected


@pytest.mark.parametrize(("repeats", "counts"), [("first", 0), ("latest", 1), ("hold", None)])
def test_repeats(site: Site, repeats: str, counts: int | None) -> None:
    site.write_plan(repeats=repeats)
    exams = [
        _measured(site, Scan(visit="BL", clock="100000")),
        _measured(site, Scan(visit="BL", clock="103000")),
    ]
    site.sweep()
    found = site.visits()
    expected = [
        "held" if counts is None else "measured" if index == counts else "set_aside" for index in range(len(exams))
    ]
    assert [found[one].state for one in exams] == expected


def test_a_newer_result_takes_the_place_of_the_older_one(site: Site) -> None:
    from service.reprocessing import Request, reprocess

    exam_id = _measured(site, Scan(visit="BL"))
    first = _one(site, exam_id).job_id
    assert first is not None
    second = reprocess(site.database, first, Request("again", "anna"))
    assert _one(site, exam_id).job_id == first
    site.measure(exam_id)
    assert _one(site, exam_id).job_id == second


def test_an_exam_that_is_measured_with_another_is_no_visit_of_its_own(site: Site) -> None:
    part = site.add(Scan(visit="BL"), ExamState.INCOMPLETE, "SERIES_INCOMPLETE: 42/84 images")
    owner = site.add(Scan(visit="BL"), ExamState.INCOMPLETE, "SERIES_INCOMPLETE: 42/84 images")
    site.sweep()
    assert {row.state for row in site.visits().values()} == {"held"}
    with site.database.write() as connection:
        join(connection, part, owner)
    site.sweep()
    assert list(site.visits()) == [owner]


def test_a_subject_of_whom_nothing_is_left_is_forgotten(site: Site) -> None:
    exam_id = _measured(site, Scan(subject="01-099", visit="BL"))
    _measured(site, Scan(subject="01-001", visit="M3", day=91, patient_id="HOSP-2"))
    site.sweep()
    assign(
        site.database, exam_id, "BL", Signing("anna", "test", NOW, "I looked", "a typing error"), subject_id="01-001"
    )
    assert [row.subject_id for row in site.rows(db.subject)] == ["01-001"]
    assert site.visits()[exam_id][:2] == ("01-001", "BL")


def test_priors_are_asked_for_again_when_day_zero_becomes_known(site: Site) -> None:
    _measured(site, Scan(visit="M3", day=91))
    site.sweep()
    with site.database.write() as connection:
        connection.execute(db.subject.update().values(priors_asked_at=NOW))
    _measured(site, Scan(visit="M6", day=180))
    site.sweep()
    assert site.rows(db.subject)[0].priors_asked_at == NOW
    _measured(site, Scan(visit="BL"))
    site.sweep()
    assert site.rows(db.subject)[0].priors_asked_at is None
