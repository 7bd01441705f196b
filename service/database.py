"""The node's one record: tables, engine, transactions. SQLite in WAL mode by default; safe from several processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PoolProxiedConnection,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url

from config.settings import Settings
from service.migrations import DatabaseRefused, known_revisions, newest_revision
from service.states import check_move

BUSY_TIMEOUT_S = 30.0


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python; stored as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Refuse naive times."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Give the zone back that SQLite drops."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

#: A received object. ``path`` is relative to the inbox folder; ``facts`` is the header as the assembly needs it.
instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_uid", String(64), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("transfer_syntax", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("facts", JSON),
    Column("state", String(16), nullable=False),
    UniqueConstraint("sop_uid", "sha256"),
    Index("instance_by_study", "study_uid", "state"),
    Index("instance_by_state", "state"),
)

#: The images of one study. ``version`` counts its analyses.
exam = Table(
    "exam",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("has_news", Boolean, nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Column("version", Integer, nullable=False, default=0),
    Column("first_arrival_at", UtcDateTime, nullable=False),
    Column("last_arrival_at", UtcDateTime, nullable=False),
    Column("patient_key", String(64)),  # a digest, not the identity; of the images last judged
    Column("study_date", String(64)),
    Column("awaiting", Text),  # while it waits: what for
    Column("joined_to", Integer),  # the exam that this study's images are measured with
    Index("exam_by_patient", "patient_key", "study_date"),
    Index("exam_by_owner", "joined_to"),
)

#: One analysis. ``created_at`` stands as the production time in its results, the same for every attempt.
job = Table(
    "job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exam.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("inputs", JSON, nullable=False),  # paths relative to the inbox folder
    Column("inputs_digest", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("protocol", String(256), nullable=False),  # names of one card or, joined, of two scans
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime),
    Column("worker", String(64)),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("verdict", String(16)),
    Column("error", Text),
    Column("predecessor", Integer),  # the version whose result this one supersedes
    Column("lowest_disc", String(8)),  # a person's word on the lowest disc in view, e.g. L4L5
    Column("correction", String(255)),  # a person's discs: the segmentation's path relative to the inbox folder
    Column("stage", String(32)),  # what the newest attempt did last
    Column("not_before", UtcDateTime),  # after failures: when it is tried again
    Column("reason", Text),  # why a person had it made
    Column("requested_by", String(64)),  # who that was
    Column("files", String(16)),  # of its results: service.states.FilesState; empty: there
    UniqueConstraint("exam_id", "version"),
)

#: One result object on its way to one destination. ``path`` is relative to the storage folder.
delivery = Table(
    "delivery",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("sop_uid", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("path", String(255), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False),
    Column("last_status", Integer),
    Column("last_error", String(255)),
    Column("sent_at", UtcDateTime),
    Column("sop_class_uid", String(64)),  # this and the next two: from when it was sent
    Column("study_uid", String(64)),
    Column("series_uid", String(64)),
    Column("confirmed_at", UtcDateTime),
    Column("confirmed_by", String(16)),  # commitment or query
    Column("ask_not_before", UtcDateTime),  # of one that is sent: when the destination is to be asked about it
    Column("asks", Integer),  # how often it was asked since it was sent
    Column("denials", Integer),  # how often it was said to be stored and then was not there
    UniqueConstraint("sop_uid", "destination"),
    Index("delivery_due", "destination", "state", "not_before"),
    Index("delivery_asked", "destination", "state", "ask_not_before"),
)

#: A storage commitment request of ours to a destination, and the deliveries it asks about.
asked_commitment = Table(
    "asked_commitment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False, unique=True),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("asked_commitment_due", "destination", "state", "expires_at"),
)
asked_item = Table(
    "asked_item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("asked_id", ForeignKey("asked_commitment.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("delivery_id", ForeignKey("delivery.id", ondelete="CASCADE"), nullable=False, index=True),
)

#: A comparison of what was sent to a destination with what it has. ``details``: counts and UIDs of what differs.
reconciliation = Table(
    "reconciliation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("destination", String(64), nullable=False, index=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("n_compared", Integer, nullable=False),
    Column("n_there", Integer, nullable=False),
    Column("details", JSON),
    Column("error", String(255)),
)

#: What a source last said of one series. ``unchanged_since``: when it said so first.
source_answer = Table(
    "source_answer",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("series_uid", String(64), nullable=False),
    Column("n_objects", Integer, nullable=False),
    Column("unchanged_since", UtcDateTime, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    UniqueConstraint("source", "study_uid", "series_uid"),
)

#: When a source was asked about an exam and is to be asked next, and how often it was asked to send what is missing.
enquiry = Table(
    "enquiry",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("exam_id", ForeignKey("exam.id"), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("n_unchanged", Integer, nullable=False),  # answers in a row that told nothing new
    Column("n_fetches", Integer, nullable=False),
    Column("fetch_not_before", UtcDateTime, nullable=False),
    UniqueConstraint("source", "exam_id"),
)

#: A storage commitment request (PS3.4 J): a list of what the sender says it has sent.
commitment = Table(
    "commitment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("last_error", String(255)),
    Column("found_whole", Boolean),  # whether all it lists was read and found unchanged; empty: not yet looked
    UniqueConstraint("transaction_uid", "calling_ae"),
)

#: One object of a commitment request.
commitment_item = Table(
    "commitment_item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("commitment_id", ForeignKey("commitment.id"), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("sop_uid", String(64), nullable=False, index=True),
)

#: Something held, with a reason. An object (``instance_id``, or only ``path`` if it is not readable), or an exam.
quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("code", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("instance_id", ForeignKey("instance.id")),
    Column("exam_id", ForeignKey("exam.id")),
    Column("sop_uid", String(64), nullable=False, default=""),
    Column("path", String(255), nullable=False, default=""),
    Column("sha256", String(64), nullable=False, default=""),
    Column("calling_ae", String(16), nullable=False, default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("resolved_reason", Text),
    Column("resolved_at", UtcDateTime),
    Column("resolved_by", String(64)),  # who did it, where a person did
)

#: An event that waits to be written to the audit trail. Numbers are never used again: the trail says which were read.
audit_queue = Table(
    "audit_queue",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("event", Text, nullable=False),  # service.audit_events.AuditEvent as JSON
    sqlite_autoincrement=True,
)

#: The end of the audit trail, noted here too: a trail that was cut off together with its own note is seen.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

#: What is counted and has no rows of its own: refused calls by reason, processes that died by kind.
tally = Table(
    "tally",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(32), nullable=False),
    Column("label", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    UniqueConstraint("name", "label"),
)


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
    connection.execute(update(table).where(table.c.id == row_id).values(state=str(new), **values))
