"""Counts of what leaves no rows of its own: refused calls, processes that died."""

from sqlalchemy import Connection, insert, select, update

from service import database as db
from service.database import Database

REFUSED_CALLS = "refused_calls"  # by reason
FAILED_LOGINS = "failed_logins"  # by reason
DEATHS = "deaths"  # of the node's processes, by kind


def count(connection: Connection, name: str, label: str, number: int = 1) -> None:
    """Add to a count, inside the caller's transaction."""
    table = db.tally
    row = (table.c.name == name) & (table.c.label == label)
    if connection.execute(update(table).where(row).values(number=table.c.number + number)).rowcount == 0:
        connection.execute(insert(table).values(name=name, label=label, number=number))


def counts(database: Database) -> dict[tuple[str, str], int]:
    """(name, label) -> number."""
    table = db.tally
    with database.read() as connection:
        return {(row.name, row.label): row.number for row in connection.execute(select(table))}
