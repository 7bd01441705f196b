"""A storage SCP with C-FIND and storage commitment that keeps and says what a test wants: an honest one, or a liar."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from peers import free_port
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import (
    MRImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)


@dataclass
class Archive:
    """``keeps``: what it truly keeps; it answers Success to all. ``commits``: what it says of a commitment request.

    ``commits`` maps (transaction UID, UIDs) to a report (transaction UID, kept UIDs, failed UIDs), or None: no result.
    ``report_to``: the port that it calls with the result; None: over the same association.
    """

    ae_title: str = "ARCHIVE"
    keeps: Callable[[str], bool] = lambda uid: True
    commits: Callable[[str, list[str]], tuple[str, list[str], list[str]] | None] | None = None
    report_to: int | None = None
    has_query: bool = True
    store_status: Callable[[str], int] = lambda uid: 0
    action_status: int = 0
    port: int = field(default_factory=free_port)
    received: list[str] = field(default_factory=list)  # SOP Instance UIDs of C-STORE requests, as they came
    kept: set[str] = field(default_factory=set)
    requests: list[tuple[str, list[str]]] = field(default_factory=list)
    answers: list[int | None] = field(default_factory=list)  # to its reports
    _server: Any = None

    def start(self) -> None:
        ae = AE(ae_title=self.ae_title)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax))
        if self.commits is not None:
            ae.add_supported_context(StorageCommitmentPushModel)
        if self.has_query:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_request),
            (evt.EVT_C_FIND, self._on_find),
        ]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        self._server.shutdown()

    def _on_store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.received.append(uid)
        status = self.store_status(uid)
        if status == 0 and self.keeps(uid):
            self.kept.add(uid)
        return status

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        wanted = str(event.identifier.get("SOPInstanceUID", "") or "")
        for uid in sorted(self.kept):
            if wanted in ("", uid):
                answer = Dataset()
                answer.QueryRetrieveLevel = "IMAGE"
                answer.SOPInstanceUID = uid
                answer.StudyInstanceUID = event.identifier.StudyInstanceUID
                answer.SeriesInstanceUID = event.identifier.SeriesInstanceUID
                yield 0xFF00, answer

    def _on_request(self, event: Any) -> tuple[int, None]:
        information = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in information.ReferencedSOPSequence]
        self.requests.append((str(information.TransactionUID), uids))
        assert self.commits is not None
        report = self.commits(str(information.TransactionUID), uids)
        if report is not None and self.action_status == 0 and self.report_to is None:
            threading.Thread(target=self._report_over, args=(event.assoc, report), daemon=True).start()
        return self.action_status, None

    def _report_over(self, association: Any, report: tuple[str, list[str], list[str]]) -> None:
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            if not association.is_established:
                return
            threading.Event().wait(0.01)
        answer, _ = association.send_n_event_report(*event_of(*report))
        self.answers.append(answer.get("Status"))

    def report(
        self, report: tuple[str, list[str], list[str]], calling: str | None = None, *, selects_role: bool = True
    ) -> int | None:
        """Call the port ``report_to`` with a result; the status it was answered."""
        assert self.report_to is not None
        ae = AE(ae_title=calling or self.ae_title)
        association = ae.associate(
            "127.0.0.1",
            self.report_to,
            contexts=[build_context(StorageCommitmentPushModel)],
            ae_title="DISCNODE",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)] if selects_role else [],
        )
        assert association.is_established
        for context in association.accepted_contexts:
            context._as_scp = True  # it does what it was not granted, as some do
        answer, _ = association.send_n_event_report(*event_of(*report))
        association.release()
        status = answer.get("Status")
        return None if status is None else int(status)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def event_of(transaction_uid: str, kept: list[str], failed: list[str]) -> tuple[Dataset, int, str, str]:
    """What :meth:`send_n_event_report` takes."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(uid) for uid in kept]
    if failed:
        information.FailedSOPSequence = [_item(uid, FailureReason=0x0112) for uid in failed]
    return (
        information,
        2 if failed else 1,
        str(StorageCommitmentPushModel),
        str(StorageCommitmentPushModelInstance),
    )


def _item(uid: str, **more: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item
