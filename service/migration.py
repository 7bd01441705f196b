"""Brings the database of an earlier program up, once, before anything else uses it."""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from service.database import BUSY_TIMEOUT_S, check_known, create_engine_for, prepare_empty, revision_of
from service.migrations import FOLDER, DatabaseRefused, newest_revision

_log = logging.getLogger(__name__)


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for a connection; it works inside that connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate(settings: Settings) -> Path | None:
    """Create the database, or bring it to the newest revision; returns the copy that was made before, if any.

    All revisions are one transaction: a database is at the old one or at the newest, also after kill -9. Call it while
    no other part of the node runs. Of SQLite a copy is made beside it first; of PostgreSQL a dump is the operator's.

    Raises:
        DatabaseRefused: it is of a newer program, or the copy or a revision failed; it is as it was.
    """
    engine = create_engine_for(settings, foreign_keys=False)  # a table made anew would lose the rows that refer to it
    try:
        with engine.connect() as connection:
            found = revision_of(connection)
        if found is None:
            with engine.begin() as connection:
                prepare_empty(connection)
            return None
        check_known(found)
        if found == newest_revision():
            return None
        copy = _copy_before(settings, found)
        with engine.begin() as connection:
            _upgrade(connection)
    except SQLAlchemyError as error:
        raise DatabaseRefused(
            f"the database could not be brought up ({type(error).__name__}: another program holds it, perhaps, or its"
            " disk is full); it is as it was"
        ) from error
    finally:
        engine.dispose()
    _log.info("database brought up", extra={"revision": newest_revision(), "before": found, "copy": copy})
    return copy


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305)")  # of two nodes on one database, one does it
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S:.0f}s'"
        )  # as SQLite waits: told, and ends
    command.upgrade(alembic_config(connection), "head")
    if connection.dialect.name == "sqlite":
        lost = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if lost:
            raise DatabaseRefused(f"after the revision {len(lost)} rows refer to nothing; the database is as it was")


def _copy_before(settings: Settings, found: str) -> Path | None:
    """A whole copy of an SQLite database, named after the revision it is of."""
    url = make_url(settings.resolved_database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    source = Path(url.database)
    target = source.with_name(f"{source.name}.of-revision-{found or 'none'}")
    try:
        copy_sqlite(source, target)
    except (OSError, sqlite3.Error) as error:
        text = f"no copy of the database could be made before it is brought up ({error}); it is as it was"
        raise DatabaseRefused(text) from error
    return target


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that may be in use (SQLite's online backup); ``target`` is whole and durable, or not there.

    Raises:
        OSError: the disk is full or fails.
        sqlite3.Error: the database cannot be read.
    """
    temporary = target.with_name(f".{target.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as opened,
            contextlib.closing(sqlite3.connect(temporary)) as copy,
        ):
            opened.backup(copy)  # all pages in one step: one moment of the database
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without -wal beside it
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
