"""All that a person needs to decide about a held case: the reason, what helps, a look into the header, no identity."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from config.protocol_cards import ProtocolCard, asked_elements
from config.settings import Repeats
from dicom_io.header_excerpt import FREE_TEXT_KEYWORDS, read_excerpt
from dicom_io.headers import ImageFacts
from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.protocol_explanation import explain_exam
from dicom_io.protocol_needs import needs_of
from processing.advice import ADVICE, SEGMENTATION_ADVICE
from processing.refusal import ReasonCode, UnsuitableInput
from service import database as db
from service.database import Database
from service.exam_groups import facts_of, list_groups, studies_of
from service.nameless import without_names
from service.quarantine import QuarantineItem
from service.states import InstanceState

EXCERPT_NOTE = (
    f"Technical attributes only. {' and '.join(FREE_TEXT_KEYWORDS)} are texts of the site: read them before you pass"
    " this on."
)


def describe_item(
    database: Database, item: QuarantineItem, cards: Sequence[ProtocolCard], repeats: Repeats
) -> dict[str, Any]:
    """A case with ``suggestion``, and ``header`` of an object, or ``groups`` and ``needed`` of an exam; as JSON."""
    code = ReasonCode(item.code)
    advice = {**ADVICE, **SEGMENTATION_ADVICE} if _is_segmentation(database, item) else ADVICE
    described = item.as_dict() | {"suggestion": advice[code], "header_note": EXCERPT_NOTE}
    if item.exam_id is None:
        return described | {"header": _excerpt(database, item.path)}
    groups = list_groups(database, item.exam_id, asked_elements(cards))
    described["groups"] = [one.as_dict() | {"header": _excerpt(database, one.paths[0])} for one in groups]
    needed = needs_of(explain_exam(_indexed_facts(database, item.exam_id, cards), cards, repeats=repeats))
    return _anonymous(described | {"needed": list(needed)}, database, [one.paths[0] for one in groups])


def _is_segmentation(database: Database, item: QuarantineItem) -> bool:
    query = select(db.instance.c.sop_class_uid).where(db.instance.c.id == item.instance_id)
    with database.read() as connection:
        return connection.execute(query).scalar() in SEGMENTATION_CLASSES


def _excerpt(database: Database, path: str) -> Mapping[str, str] | None:
    """The header of a kept file; None where there is none that can be read."""
    try:
        return read_excerpt(database.inbox_dir / path) if path else None
    except (UnsuitableInput, OSError):
        return None


def _indexed_facts(database: Database, exam_id: int, cards: Sequence[ProtocolCard]) -> tuple[ImageFacts, ...]:
    table, elements = db.instance, asked_elements(cards)
    query = select(table).where(table.c.study_uid.in_(studies_of(exam_id)), table.c.state == str(InstanceState.INDEXED))
    with database.read() as connection:
        rows = connection.execute(query).all()
    return tuple(one for row in rows for one in facts_of(row, database, elements))


def _anonymous(described: dict[str, Any], database: Database, paths: Sequence[str]) -> dict[str, Any]:
    """The texts without the names that a site wrote into a series description."""
    files = [database.inbox_dir / path for path in paths]
    detail, *needed = without_names((described["detail"], *described["needed"]), files)
    return described | {"detail": detail, "needed": needed}
