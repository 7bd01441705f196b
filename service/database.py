"""The node's one record: tables, engine, transactions. SQLite in WAL mode by default; safe from several processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
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
    UniqueConstraint("sop_uid", "destination"),
    Index("delivery_due", "destination", "state", "not_before"),
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


def open_database(settings: Settings) -> Database:
    """Open the node's database and create what is missing.

    Raises:
        sqlalchemy.exc.OperationalError: it cannot be opened.
    """
    url = make_url(settings.resolved_database_url)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        settings.storage_dir.mkdir(parents=True, exist_ok=True)
    # An error goes to the log: without the values, which may quote a header.
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S} if is_sqlite else {}, hide_parameters=True)
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    with engine.begin() as connection:
        metadata.create_all(connection)
        _add_new_columns(connection)
    return Database(engine, settings.storage_dir)


def _add_new_columns(connection: Connection) -> None:
    """Give tables of an earlier version the columns that came later; all of them may be empty."""
    found = inspect(connection)
    for table in metadata.tables.values():
        known = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would not take the write lock at once
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged row survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
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
