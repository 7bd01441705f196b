"""The result of a commitment request, whatever a destination puts into it."""

import pytest
from archive_of_ones_choice import event_of
from pydicom.dataset import Dataset

from dicom_io.commitment_scu import CommitmentResult, take_report


class Desk:
    """Remembers results."""

    def __init__(self, *, known: bool = True, writable: bool = True) -> None:
        self.results: list[tuple[CommitmentResult, str]] = []
        self._known, self._writable = known, writable

    def take(self, result: CommitmentResult, sender: str) -> bool:
        if not self._writable:
            raise OSError("the database cannot be written")
        self.results.append((result, sender))
        return self._known


def test_kept_and_failed_are_told_apart_and_failed_wins() -> None:
    desk = Desk()
    information, event_type, _, _ = event_of("1.2.3", ["1.1", "1.2"], ["1.2", "1.3"])
    assert take_report(event_type, information, "PACS", desk.take) == 0
    ((result, sender),) = desk.results
    assert (sender, result.transaction_uid, result.kept) == ("PACS", "1.2.3", {"1.1"})
    assert result.failed == {"1.2": 0x0112, "1.3": 0x0112}


def test_a_failure_without_a_reason_is_one() -> None:
    desk = Desk()
    information, event_type, _, _ = event_of("1.2.3", [], ["1.1"])
    del information.FailedSOPSequence[0].FailureReason
    assert take_report(event_type, information, "PACS", desk.take) == 0
    assert desk.results[0][0].failed == {"1.1": 0x0110}


def test_what_is_told_as_all_kept_and_lists_failures_has_failed() -> None:
    desk = Desk()
    information, _, _, _ = event_of("1.2.3", ["1.1"], ["1.1"])
    assert take_report(1, information, "PACS", desk.take) == 0
    assert desk.results[0][0].kept == frozenset()


@pytest.mark.parametrize("transaction", ["", "1.2.x", "1..2"])
def test_a_report_on_no_transaction_is_refused(transaction: str) -> None:
    desk = Desk()
    information = Dataset()
    if transaction:
        information.add_new(0x00081195, "LO", transaction)
    assert take_report(1, information, "PACS", desk.take) == 0x0115
    assert desk.results == []


def test_other_events_unknown_transactions_and_a_database_that_is_locked() -> None:
    information, event_type, _, _ = event_of("1.2.3", ["1.1"], [])
    assert take_report(3, information, "PACS", Desk().take) == 0x0113
    assert take_report(event_type, information, "PACS", Desk(known=False).take) == 0x0115
    assert take_report(event_type, information, "PACS", Desk(writable=False).take) == 0x0110
