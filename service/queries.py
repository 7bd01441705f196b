"""Questions to sites about exams: coded, with a due date, open until they are resolved."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, insert, select

from service import database as db
from service import trial_tables as trials
from service.database import Database, move
from service.signatures import CannotSign, QueryCode, Resolution, Signing, sign
from service.states import QueryState


class NoSuchQuery(Exception):
    """There is no query of that number, or it is resolved."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question about an exam."""

    id: int
    exam_id: int
    code: str
    text: str
    state: QueryState
    opened_by: str
    opened_at: str
    due_on: str | None
    resolution: str | None
    resolution_text: str | None
    resolved_by: str | None
    resolved_at: str | None


def ask(
    database: Database, exam_id: int, signing: Signing, due_on: date | None, target: tuple[str, int], sha256: str = ""
) -> int:
    """Open a query: ``signing.code`` is a :class:`QueryCode`, ``signing.reason`` the question. Returns its number.

    Raises:
        CannotSign: name, meaning, question or coded reason is missing.
    """
    signing.check(needs_reason=True)
    if signing.code not in list(QueryCode):
        raise CannotSign(f"a query needs a coded reason: {', '.join(QueryCode)}")
    with database.write() as connection:
        visit = select(trials.visit.c.id).where(trials.visit.c.exam_id == exam_id)
        result = connection.execute(
            insert(trials.query).values(
                exam_id=exam_id,
                visit_id=connection.execute(visit).scalar(),
                code=signing.code,
                text=signing.reason.strip(),
                state=str(QueryState.OPEN),
                opened_by=signing.by.strip(),
                opened_at=signing.at,
                due_on=due_on,
            )
        )
        sign(connection, *target, "queried", signing, sha256, studies=_study(connection, exam_id))
        assert result.inserted_primary_key is not None
        return int(result.inserted_primary_key[0])


def resolve(database: Database, query_id: int, signing: Signing) -> None:
    """Close a query: ``signing.code`` is a :class:`Resolution`, ``signing.reason`` says how.

    Raises:
        CannotSign: name, meaning, reason or resolution is missing.
        NoSuchQuery: none of that number is open.
    """
    signing.check(needs_reason=True)
    if signing.code not in list(Resolution):
        raise CannotSign(f"a resolution is one of: {', '.join(Resolution)}")
    table = trials.query
    with database.write() as connection:
        row = connection.execute(select(table).where(table.c.id == query_id)).one_or_none()
        if row is None or row.state != QueryState.OPEN:
            raise NoSuchQuery(f"no open query with number {query_id}")
        done: dict[str, Any] = {"resolution": signing.code, "resolution_text": signing.reason.strip()}
        done |= {"resolved_by": signing.by.strip(), "resolved_at": signing.at}
        move(connection, table, query_id, QueryState.RESOLVED, **done)
        sign(connection, "query", query_id, "resolved", signing, "", studies=_study(connection, row.exam_id))


def list_queries(database: Database, state: QueryState | None = None) -> list[Query]:
    """Queries, the oldest first; all, or those in a state."""
    table = trials.query
    query = select(table).order_by(table.c.id)
    with database.read() as connection:
        rows = connection.execute(query if state is None else query.where(table.c.state == str(state))).all()
    return [_record_of(row) for row in rows]


def open_queries(connection: Connection, exam_id: int) -> list[dict[str, Any]]:
    """The open queries about an exam, for people."""
    table = trials.query
    rows = connection.execute(select(table).where(table.c.exam_id == exam_id, table.c.state == str(QueryState.OPEN)))
    names = ("id", "code", "text", "opened_by", "due_on")
    found = [_record_of(row) for row in rows.all()]
    return [{name: getattr(one, name) for name in names} for one in found]


def _record_of(row: Any) -> Query:
    values = {name: row._mapping[name] for name in Query.__slots__}
    times = {name: values[name] and values[name].isoformat() for name in ("opened_at", "due_on", "resolved_at")}
    return Query(**{**values, **times, "state": QueryState(row.state)})


def _study(connection: Connection, exam_id: int) -> tuple[str, ...]:
    return (connection.execute(select(db.exam.c.study_uid).where(db.exam.c.id == exam_id)).scalar_one(),)
