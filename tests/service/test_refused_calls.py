"""Refused calls and logins: a caller's many are one event, counted right, whatever it calls itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_rules import check
from records import NOW, open_database, settings_in
from sqlalchemy.exc import OperationalError

from service.audit_chain import read_lines
from service.audit_trail import AuditTrail
from service.database import Database
from service.refused_calls import RefusedCalls
from service.tally import FAILED_LOGINS, REFUSED_CALLS, counts


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = open_database(settings_in(tmp_path))
    yield one
    one.close()


def written(database: Database, folder: Path) -> list[tuple[str, str, str]]:
    """(kind, who, in words) of what is in the trail."""
    trail = AuditTrail(database, settings_in(folder))
    trail.write_due(NOW, is_last=True)
    found = []
    for line in read_lines(trail.folder):
        root = check(line.message)
        people = root.findall("ActiveParticipant")
        who = people[1] if line.kind == "call_refused" else people[0]
        found.append((line.kind, who.get("UserID"), root.findtext(".//EventOutcomeDescription")))
    return found


def test_many_calls_of_one_caller_are_one_event(database: Database, tmp_path: Path) -> None:
    refused = RefusedCalls(database)
    for _ in range(500):
        refused.add("STRANGER", "10.0.0.7", "unknown AE title")
    refused.add("OTHER", "10.0.0.8", "wrong called AE title")
    refused.add_login("anna", "10.0.0.9", "wrong token")
    refused.close()
    (kind, who, text), *others = written(database, tmp_path)
    assert (kind, who) == ("call_refused", "STRANGER")
    assert text.startswith("unknown AE title; 500 times until ")
    assert sorted(others) == [
        ("call_refused", "OTHER", "wrong called AE title"),
        ("login_failed", "anna", "wrong token"),
    ]
    assert counts(database) == {
        (REFUSED_CALLS, "unknown AE title"): 500,
        (REFUSED_CALLS, "wrong called AE title"): 1,
        (FAILED_LOGINS, "wrong token"): 1,
    }


def test_who_comes_in_is_in_the_trail_and_counts_as_no_failure(database: Database, tmp_path: Path) -> None:
    refused = RefusedCalls(database)
    for number in range(50):
        refused.add(f"AE{number}", "10.0.0.7", "unknown AE title")
    refused.add_entry("anna", "10.0.0.9")  # her name stands there, however many others are refused
    refused.close()
    assert ("login", "anna", None) in written(database, tmp_path)
    assert counts(database) == {(REFUSED_CALLS, "unknown AE title"): 50}


def test_a_caller_under_ever_new_names_fills_neither_trail_nor_metrics(database: Database, tmp_path: Path) -> None:
    refused = RefusedCalls(database)
    for number in range(3000):
        refused.add(f"AE{number}", "10.0.0.7", f"why {number}")
        if number % 100 == 0:
            refused.write()
    refused.close()
    found = counts(database)
    assert sum(found.values()) == 3000
    assert len(found) <= 31


def test_what_cannot_be_put_down_now_is_put_down_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = RefusedCalls(database)
    refused.add("A", "10.0.0.7", "no")

    def locked() -> None:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(database, "write", locked)
    refused.write()
    monkeypatch.undo()
    refused.add("A", "10.0.0.7", "no")
    refused.close()
    assert counts(database) == {(REFUSED_CALLS, "no"): 2}
    assert len(written(database, tmp_path)) == 1
