"""What the node checks to know whether it is ready: one function each, that says in words what is wrong."""

import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Confirm, Settings
from models.registry import PACKAGED_FOLDER, REGISTRY_FILE, ModelError, load_model
from service import database as db
from service.database import Database
from service.reconciliation import destinations_in_doubt
from service.states import DeliveryState
from service.unconfirmed import count_denied, unconfirmable

_DECIDE = "look there, then 'discnode reconcile --send-many' sends it again"
_ACCEPT = "let it offer C-FIND or storage commitment, or set 'confirm: none' for it"
READ_AGAIN_S = 3600.0  # the networks' files are read whole again, even where nothing seems to have changed


def database_check(database: Database) -> Callable[[], str]:
    """Whether a write transaction succeeds."""

    def check() -> str:
        try:
            with database.write() as connection:
                connection.execute(text("UPDATE exam SET version = version WHERE id = -1"))
        except SQLAlchemyError as error:
            return f"the database cannot be written ({type(error).__name__})"
        return ""

    return check


def networks_check(settings: Settings) -> Callable[[], str]:
    """Whether the networks' files are there and those that the registry names."""
    folder = settings.segmentation.weights_dir or PACKAGED_FOLDER
    known: tuple[tuple[str, int, int, int], ...] = ()
    wrong, read_at_s = "not yet read", 0.0

    def check() -> str:
        nonlocal known, wrong, read_at_s
        found = _fingerprint(folder)
        if found != known or wrong or time.monotonic() - read_at_s > READ_AGAIN_S:
            known, read_at_s = found, time.monotonic()
            try:
                load_model(settings.segmentation.model, folder)
                wrong = ""
            except ModelError as error:
                wrong = f"the networks cannot be used: {error}"
        return wrong

    return check


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Names, sizes, times and numbers of the files, to see without reading them that one is another."""
    found = []
    for path in (*sorted(folder.glob("*.onnx")), folder / REGISTRY_FILE):
        try:
            facts = path.stat()
        except OSError:
            continue
        found.append((path.name, facts.st_size, facts.st_mtime_ns, facts.st_ino))
    return tuple(found)


def disk_check(settings: Settings) -> Callable[[], str]:
    """Whether there is space for what arrives."""

    def check() -> str:
        try:
            disk = shutil.disk_usage(settings.storage_dir)
        except OSError as error:
            return f"the storage folder cannot be asked: {error.strerror}"
        free_mb, least_mb = disk.free / 1e6, settings.reception.full_below_mb(disk.total / 1e6)
        if free_mb >= least_mb:
            return _writing(settings.storage_dir)
        return f"{free_mb:.0f} MB free where the storage folder is, less than {least_mb:.0f}: objects are refused"

    return check


def outbox_check(database: Database, settings: Settings) -> Callable[[], str]:
    """Whether a destination lets results wait too long."""

    known = {one.name for one in settings.destinations}

    def _stray(name: str) -> str:
        return (
            ""
            if name in known
            else ", which is not in the settings: give it back its name, or 'discnode deliveries give-up'"
        )

    def check() -> str:
        table = db.delivery
        created = func.min(db.job.c.finished_at)
        query = (
            select(table.c.destination, func.count(), created)
            .join(db.job, db.job.c.id == table.c.job_id)
            .where(table.c.state == str(DeliveryState.WAITING))
            .group_by(table.c.destination)
            .having(created < datetime.now(UTC) - timedelta(seconds=settings.health.outbox_age_s))
        )
        try:
            with database.read() as connection:
                rows = connection.execute(query).all()
        except SQLAlchemyError as error:
            return f"the outbox cannot be read ({type(error).__name__})"
        return "; ".join(f"{number} objects wait for {name}{_stray(name)}" for name, number, _ in rows)

    return check


def confirmation_check(database: Database, settings: Settings) -> Callable[[], str]:
    """Whether what a destination takes can be confirmed, and is there."""
    asked = [one.name for one in settings.destinations if one.confirm is not Confirm.NONE]

    def check() -> str:
        try:
            denied, blind = count_denied(database), unconfirmable(database, asked)
        except SQLAlchemyError as error:
            return f"the outbox cannot be read ({type(error).__name__})"
        wrong = [f"{number} objects that {name} took are not there" for name, number in denied.items() if name in asked]
        wrong += [f"{name} offers no way to confirm what it takes ({_ACCEPT})" for name in blind]
        return "; ".join(wrong)

    return check


def comparison_check(database: Database) -> Callable[[], str]:
    """Whether a destination seems to have lost what it had; a person decides whether it is sent again."""
    table = db.reconciliation
    newest, wrong = -1, ""

    def check() -> str:
        nonlocal newest, wrong
        try:
            with database.read() as connection:
                found = connection.execute(select(func.max(table.c.id))).scalar() or 0
            if found != newest:
                names = sorted(destinations_in_doubt(database))
                wrong = "; ".join(f"more than half of what {name} took is not there: {_DECIDE}" for name in names)
                newest = found
        except SQLAlchemyError as error:
            return f"the comparisons cannot be read ({type(error).__name__})"
        return wrong

    return check


def _writing(folder: Path) -> str:
    """What is wrong with writing files there."""
    path = folder / f".check-{os.getpid()}"
    try:
        path.write_bytes(b"x")
        path.unlink()
    except OSError as error:
        return f"the storage folder cannot be written: {error.strerror}"
    return ""
