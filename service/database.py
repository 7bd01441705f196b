"""The node's one record: tables, engine, transactions. SQLite in WAL mode by default; safe from several processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    PoolProxiedConnection,
    Select,
    Table,
    create_engine,
    event,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url

from config.settings import Settings
from service import trial_tables as trial_tables
from service.migrations import DatabaseRefused, known_revisions, newest_revision
from service.states import check_move
from service.tables import UtcDateTime as UtcDateTime
from service.tables import asked_commitment as asked_commitment
from service.tables import asked_item as asked_item
from service.tables import audit_head as audit_head
from service.tables import audit_queue as audit_queue
from service.tables import commitment as commitment
from service.tables import commitment_item as commitment_item
from service.tables import delivery as delivery
from service.tables import enquiry as enquiry
from service.tables import exam as exam
from service.tables import instance as instance
from service.tables import job as job
from service.tables import metadata as metadata
from service.tables import quarantine as quarantine
from service.tables import reconciliation as reconciliation
from service.tables import source_answer as source_answer
from service.tables import tally as tally

BUSY_TIMEOUT_S = 30.0


class Lookup:
    """One question that is asked very often, with one text as its parameter; any thread may ask.

    It goes past SQLAlchemy's connections, which cost ten times what SQLite needs to answer.
    """

    def __init__(self, engine: Engine, statement: Select[Any]) -> None:
        self._engine = engine
        self._question = str(statement.compile(dialect=engine.dialect))
        self._lock = threading.Lock()
        self._connection: PoolProxiedConnection | None = None

    def ask(self, value: str) -> list[tuple[Any, ...]]:
        """The rows, as the database has them now.

        Raises:
            sqlalchemy.exc.DBAPIError, or the driver's own error: it cannot be read now.
        """
        with self._lock:
            if self._connection is None:
                self._connection = self._engine.raw_connection()
            connection, self._connection = self._connection, None
            try:
                cursor = connection.cursor()
                cursor.execute(self._question, self._parameters(value))
                rows = [tuple(row) for row in cursor.fetchall()]
                cursor.close()
                if self._engine.dialect.name != "sqlite":
                    connection.rollback()  # what it begins by itself would stay open
            except self._engine.dialect.loaded_dbapi.Error:
                connection.invalidate()
                raise
            self._connection = connection
            return rows

    def _parameters(self, value: str) -> Any:
        return {"uid": value} if self._engine.dialect.paramstyle in ("pyformat", "named") else (value,)

    def close(self) -> None:
        """Let go of its connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class Database:
    """An open engine, and the folder its paths are relative to. One per process; may be used from any thread."""

    def __init__(self, engine: Engine, storage_dir: Path) -> None:
        self.storage_dir = storage_dir
        self._engine = engine
        self._writing = threading.Lock()  # SQLite waits for its lock by sleeping; threads of one process need not

    @property
    def inbox_dir(self) -> Path:
        """Where received files lie."""
        return self.storage_dir / "inbox"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that is durable when the block ends, and undone if it raises."""
        with self._writing, self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; changes nothing."""
        with self._engine.connect().execution_options(read_only=True) as connection:
            yield connection

    def lookup(self, statement: Select[Any]) -> Lookup:
        """A question that will be asked very often; its one parameter is called ``uid``."""
        return Lookup(self._engine, statement)

    @property
    def driver_error(self) -> type[Exception]:
        """What the driver raises where a :class:`Lookup` fails."""
        found: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        return found

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def create_engine_for(settings: Settings, *, foreign_keys: bool = True) -> Engine:
    """An engine for the settings' database; SQLite durable at every commit, and safe from several processes."""
    url = make_url(settings.resolved_database_url)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        try:
            settings.storage_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseRefused(f"{settings.storage_dir}: cannot be used: {error.strerror}") from error
    # An error goes to the log: without the values, which may quote a header.
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S} if is_sqlite else {}, hide_parameters=True)
    if is_sqlite:
        event.listen(engine, "connect", partial(_prepare_sqlite, foreign_keys))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def open_database(settings: Settings) -> Database:
    """Open the node's database; an empty one gets its tables. One of an earlier program is only changed by `serve`.

    Raises:
        DatabaseRefused: it is of another program, older or newer.
        sqlalchemy.exc.OperationalError: it cannot be opened.
    """
    engine = create_engine_for(settings)
    with engine.connect().execution_options(read_only=True) as connection:
        found = revision_of(connection)
    if found is None:
        with engine.begin() as connection:
            found = prepare_empty(connection)
    try:
        check_known(found)
        if found != newest_revision():
            text = f"the database is at revision {found or 'none'}, this program needs {newest_revision()}:"
            raise DatabaseRefused(f"{text} 'discnode serve' brings it up when it starts")
    except DatabaseRefused:
        engine.dispose()
        raise
    return Database(engine, settings.storage_dir)


_REVISION = "alembic_version"


def revision_of(connection: Connection) -> str | None:
    """The revision that a database is at; "" for one that was made before there were revisions, None if it is empty."""
    names = inspect(connection).get_table_names()
    if _REVISION in names:
        return str(connection.exec_driver_sql(f"SELECT version_num FROM {_REVISION}").scalar_one())
    return "" if job.name in names else None


def check_known(revision: str) -> None:
    """Pass if this program knows the revision.

    Raises:
        DatabaseRefused: it does not: the database is of a newer program.
    """
    if revision and revision not in known_revisions():
        text = f"the database is at revision {revision}, and this program knows revisions up to {newest_revision()}:"
        raise DatabaseRefused(f"{text} it was used by a newer program. Run that one, or restore a backup of before")


def prepare_empty(connection: Connection) -> str:
    """Create all tables in an empty database, inside the caller's transaction; returns the revision it is at now."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305)")
    found = revision_of(connection)
    if found is not None:  # another process was faster
        return found
    metadata.create_all(connection)
    connection.exec_driver_sql(f"CREATE TABLE {_REVISION} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.exec_driver_sql(f"INSERT INTO {_REVISION} VALUES ('{newest_revision()}')")
    return newest_revision()


def _prepare_sqlite(foreign_keys: bool, connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would not take the write lock at once
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged row survives a power cut
    cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads before it writes must hold the write lock from its start, or it can fail half-way.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def move(connection: Connection, table: Table, row_id: int, new: StrEnum, **values: Any) -> None:
    """Change the state of a row, with other values, inside the caller's write transaction.

    Raises:
        service.states.ForbiddenMove: the table of states does not allow it.
        LookupError: there is no such row.
    """
    current = connection.execute(
        select(table.c.state).where(table.c.id == row_id).with_for_update()
    ).scalar_one_or_none()
    if current is None:
        raise LookupError(f"{table.name} {row_id} does not exist")
    check_move(type(new)(current), new)
    if table is exam:
        values = {"trial_seen": None, **values}  # news to the trials, which look at each state of an exam once
    connection.execute(update(table).where(table.c.id == row_id).values(state=str(new), **values))
