"""The order in which exams, results and people's words come does not matter; a kill in between neither."""

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_site import NOW, Scan, Site, open_site, spine

from service import trial_tables as db
from service.signatures import Signing
from service.states import ExamState
from service.trials import takeover
from service.trials.people import assign

_ANNA = Signing("anna", "test", NOW, "I looked at it", "because")
#: Everything at once: ordinary visits, a repeat, a late one, another person's, a wrong spine, two subjects with one
#: PatientID, one that only its PatientID tells, one that is not whole, one of nobody.
_SCANS: dict[str, tuple[Scan, dict[str, Any]]] = {
    "baseline": (Scan(visit="BL"), {}),
    "month 3": (Scan(day=91), {}),
    "month 3 again": (Scan(visit="M3", day=92), {}),
    "late": (Scan(day=130), {}),
    "by patient": (Scan(subject="", protocol_id="", site="", day=182), {}),
    "another person": (Scan(visit="M6", day=180, patient_id="HOSP-5"), {}),
    "another spine": (Scan(visit="M6", day=181), {"discs": spine(2)}),
    "one": (Scan(subject="01-002", visit="BL", patient_id="HOSP-2"), {}),
    "other": (Scan(subject="01-003", visit="BL", day=3, patient_id="HOSP-2"), {}),
    "follow-up alone": (Scan(subject="02-001", site="02", visit="M3", day=91, patient_id="HOSP-8"), {}),
    "baseline of a site": (Scan(subject="01-004", visit="BL", patient_id="HOSP-9"), {}),
    "another site": (Scan(subject="01-004", site="02", visit="M3", day=91, patient_id="HOSP-9"), {}),
    "nobody": (Scan(subject="Jane Doe"), {}),
}


def _final(site: Site, names: dict[int, str]) -> dict[str, tuple[str, ...]]:
    """Exam -> subject, visit, state, code; and of the record what has no numbers in it."""
    found: dict[str, tuple[str, ...]] = {names[exam]: row[:4] for exam, row in site.visits().items()}
    found |= {names[exam]: ("door", *why) for exam, why in site.at_the_door().items()}
    for row in site.rows(db.subject):
        found[row.subject_id] = (row.site_id, str(row.day_zero), str(row.look_on), str(row.patient_digest is None))
    return found


def _play(folder: Path, order: list[str], disturb: Callable[[], None] = lambda: None) -> dict[str, tuple[str, ...]]:
    site = open_site(folder, repeats="latest")
    names: dict[int, str] = {}
    for name in order:
        scan, content = _SCANS[name]
        exam_id = site.add(scan)
        names[exam_id] = name
        disturb()
        site.sweep()
        site.measure(exam_id, **content)
        site.sweep()
        if name == "late":
            assign(site.database, exam_id, "unscheduled", _ANNA)
    partial = site.add(Scan(subject="01-002", visit="M3", day=91, patient_id="HOSP-2"), ExamState.INCOMPLETE, "x")
    names[partial] = "partial"
    site.sweep()
    final = _final(site, names)
    # No digest is of this run's key alone: what it is does not count, only which subjects share one.
    site.database.close()
    return final


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    return _play(tmp_path_factory.mktemp("in order"), list(_SCANS))


def test_the_outcome_is_what_it_should_be(expected: dict[str, tuple[str, ...]]) -> None:
    states = {name: row[2:4] for name, row in expected.items() if name in _SCANS}
    assert states == {
        "baseline": ("measured", ""),
        "month 3": ("set_aside", ""),
        "month 3 again": ("measured", ""),
        "late": ("measured", ""),
        "by patient": ("measured", ""),
        "another person": ("held", "IDENTITY_CONFLICT"),
        "another spine": ("held", "IDENTITY_CONFLICT"),
        "one": ("held", "IDENTITY_CONFLICT"),
        "other": ("held", "IDENTITY_CONFLICT"),
        "follow-up alone": ("measured", ""),
        "baseline of a site": ("measured", ""),
        "another site": ("held", "IDENTITY_CONFLICT"),
        "nobody": ("its subject's ID is not of the form that the plan asks for",),
    }


@settings(max_examples=3, deadline=None, derandomize=True)
@given(order=st.permutations(list(_SCANS)))
def test_the_order_of_arrival_does_not_matter(order: list[str], expected: dict[str, tuple[str, ...]]) -> None:
    with TemporaryDirectory() as folder:
        assert _play(Path(folder), order) == expected


def test_a_kill_in_the_middle_of_a_sweep_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, tuple[str, ...]]
) -> None:
    chance = random.Random(4)
    whole = takeover._write_visits

    class Killed(Exception):
        pass

    def killed(*arguments: Any) -> Any:
        if chance.random() < 0.5:
            raise Killed
        return whole(*arguments)

    sweep = Site.sweep

    def sweep_until_done(site: Site, *arguments: Any) -> int:
        while True:
            try:
                return sweep(site, *arguments)
            except Killed:
                continue

    monkeypatch.setattr(takeover, "_write_visits", killed)
    monkeypatch.setattr(Site, "sweep", sweep_until_done)

    def assign_until_done() -> None:
        pass

    order = [name for name in _SCANS if name != "late"]
    found = _play(tmp_path, order, assign_until_done)
    assert found == {name: row for name, row in expected.items() if name != "late"}
