"""Reads the headers of what has arrived, once, and keeps what the assembly of exams needs of them."""

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from config.protocol_cards import ElementAddress
from dicom_io.headers import ImageFacts, facts_from_json, facts_to_json, read_facts
from dicom_io.presentation import SEGMENTATION_CLASSES
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from service import database as db
from service.database import Database, move
from service.evidence import exams_awaiting
from service.exam_studies import note_subject, reopen
from service.quarantine import hold_instance
from service.states import InstanceState

_log = logging.getLogger(__name__)

_BATCH = 200


def index_new(database: Database, elements: Sequence[ElementAddress]) -> None:
    """Read the headers of new objects; what is no readable MR image goes to quarantine.

    Segmentations are left to :mod:`service.corrections`.

    Args:
        database: the node's record.
        elements: what the protocol cards want to be read beside the usual.
    """
    table = db.instance
    query = (
        select(table.c.id, table.c.path, table.c.sop_uid, table.c.sop_class_uid)
        .where(table.c.state == str(InstanceState.RECEIVED))
        .order_by(table.c.id)
        .limit(_BATCH)
    )
    while True:
        with database.read() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return
        segmentations = [row.id for row in rows if row.sop_class_uid in SEGMENTATION_CLASSES]
        outcomes = [(row.id, _read(database, row.path, elements)) for row in rows if row.id not in segmentations]
        with database.write() as connection:
            for instance_id in segmentations:
                move(connection, table, instance_id, InstanceState.PENDING)
            for instance_id, outcome in outcomes:
                _file(connection, instance_id, outcome, elements)
            for exam_id in exams_awaiting(connection, {row.sop_uid for row in rows}):
                reopen(connection, exam_id)


def kept_facts(database: Database, kept: str, path: str, elements: Sequence[ElementAddress]) -> tuple[ImageFacts, ...]:
    """The facts in the record; read anew where an earlier version, or one with other cards, has written them."""
    file = database.inbox_dir / path
    return facts_from_json(kept, file, elements) or read_facts(file, elements)


def has_unread(connection: Connection, study_uid: str) -> bool:
    """Whether an object of a study has come whose header was not read yet."""
    table = db.instance
    unread = select(table.c.id).where(table.c.study_uid == study_uid, table.c.state == str(InstanceState.RECEIVED))
    return connection.execute(unread.limit(1)).first() is not None


def _read(database: Database, path: str, elements: Sequence[ElementAddress]) -> tuple[ImageFacts, ...] | Reason:
    try:
        return read_facts(database.inbox_dir / path, elements)
    except UnsuitableInput as refusal:
        return refusal.reason
    except OSError as error:
        return Reason(ReasonCode.INTERNAL, f"its file cannot be read: {error.strerror}")
    except Exception as error:  # noqa: BLE001 - a bug met by one object must not keep all others waiting
        _log.error("header not read", extra={"error": type(error).__name__}, exc_info=True)
        return Reason(ReasonCode.INTERNAL, f"reading its header failed ({type(error).__name__}); see the log")


def _file(
    connection: Connection,
    instance_id: int,
    outcome: tuple[ImageFacts, ...] | Reason,
    elements: Sequence[ElementAddress],
) -> None:
    table = db.instance
    state = connection.execute(select(table.c.state).where(table.c.id == instance_id)).scalar_one()
    if state != InstanceState.RECEIVED:
        return  # a person has set it aside while it was read
    if not isinstance(outcome, Reason):
        move(connection, db.instance, instance_id, InstanceState.INDEXED, facts=facts_to_json(outcome, elements))
        note_subject(connection, outcome[0].study_uid, outcome[0].patient_key, outcome[0].study_date)
        return
    move(connection, db.instance, instance_id, InstanceState.HELD)
    hold_instance(connection, instance_id, outcome, _received_at(connection, instance_id))
    _log.warning("quarantined", extra={"instance": instance_id, "code": outcome.code, "detail": outcome.detail})


def _received_at(connection: Connection, instance_id: int) -> datetime:
    """When the object came: the time of its case, so that a case tells when the fault was sent."""
    received: datetime = connection.execute(
        select(db.instance.c.received_at).where(db.instance.c.id == instance_id)
    ).scalar_one()
    return received
