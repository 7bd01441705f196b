"""A record with many exams that are done: analysed, delivered, and confirmed or not; written as rows, without files."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert

from service import database as db
from service.database import Database
from service.unconfirmed import NO_WAY

N_IMAGES, N_OBJECTS = 4, 2
_BATCH = 500


def put_on_record(database: Database, n_exams: int, destination: str, *, is_confirmed: bool, after: int = 0) -> None:
    """Exams that came before yesterday. What is not confirmed cannot be, and is asked about tomorrow.

    ``after``: how many exams are there already.
    """
    first_at = datetime.now(UTC) - timedelta(days=2)
    for first in range(after + 1, after + n_exams + 1, _BATCH):
        with database.write() as connection:
            numbers = range(first, min(first + _BATCH, after + n_exams + 1))
            _put(connection, numbers, destination, first_at, is_confirmed=is_confirmed)


def _put(connection: Connection, numbers: range, destination: str, first_at: datetime, *, is_confirmed: bool) -> None:
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in ("exam", "instance", "job", "delivery")}
    for number in numbers:
        at, study = first_at + timedelta(seconds=number), f"1.2.77.{number}"
        arrived = {"first_arrival_at": at, "last_arrival_at": at}
        judged = {"state": "analysed", "has_news": False, "version": 1, "detail": ""}
        rows["exam"].append({"id": number, "study_uid": study, **arrived, **judged})
        rows["instance"] += [
            {
                "sop_uid": f"{study}.1.{index}",
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
                "study_uid": study,
                "series_uid": f"{study}.1",
                "transfer_syntax": "1.2.840.10008.1.2.1",
                "path": f"objects/{number}-{index}",
                "sha256": f"{number}-{index}",
                "size_bytes": 1500,
                "calling_ae": "SCANNER",
                "received_at": at,
                "facts": {"header": "x" * 1500},
                "state": "indexed",
            }
            for index in range(N_IMAGES)
        ]
        made = {"created_at": at, "started_at": at, "finished_at": at, "attempts": 1, "state": "done", "verdict": "ok"}
        of_exam = {"id": number, "exam_id": number, "version": 1, "inputs": [], "inputs_digest": "d"}
        rows["job"].append({**of_exam, **made, "calling_ae": "SCANNER", "protocol": "t1rho"})
        sent = {"sent_at": at, "not_before": at, "attempts": 1, "asks": 0, "denials": 0, "destination": destination}
        outcome = (
            {"state": "confirmed", "confirmed_at": at, "confirmed_by": "query"}
            if is_confirmed
            else {"state": "sent", "last_error": NO_WAY, "ask_not_before": datetime.now(UTC) + timedelta(days=1)}
        )
        rows["delivery"] += [
            {"job_id": number, "sop_uid": f"2.25.{number}.{index}", "kind": "seg", "path": "x", **sent, **outcome}
            for index in range(N_OBJECTS)
        ]
    for name, some in rows.items():
        connection.execute(insert(db.metadata.tables[name]), some)
