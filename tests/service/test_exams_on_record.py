"""What the node does again and again looks at what is open, not at all that is on record."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from exams_on_record import put_on_record
from records import settings_in
from sqlalchemy import event

from config.settings import Settings
from service.app import _Node
from service.database import open_database
from service.reconciliation import is_due
from service.unconfirmed import count_denied, no_way_until

#: Tables and an index that stay small, whose rows go when they are done with, or of which the newest are read.
SMALL = {"delivery_denied", "reconciliation", "tally", "audit_queue", "audit_head", "alembic_version"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[_Node]:
    """A node that is not started, with forty exams on record; they are confirmed at one destination, not at another."""
    destinations = [{"name": name, "ae_title": "A", "host": "127.0.0.1", "port": 9} for name in ("sure", "blind")]
    settings = settings_in(tmp_path, destinations=destinations, web={"port": 0})
    database = open_database(settings)
    put_on_record(database, 40, "sure", is_confirmed=True)
    database.close()
    one = _Node(settings, "nowhere:analyse", threading.Event())
    one._observation.write_audit(is_last=True)
    yield one
    one._database.close()


def tasks_of(node: _Node, settings: Settings) -> dict[str, Callable[[], Any]]:
    """What the schedule and health do every few seconds; a call where there is nothing to do costs one look."""
    observation, database = node._observation, node._database

    def incidents() -> None:
        with database.read() as connection:
            observation._incidents._of_rows(connection, datetime.now(UTC), {})

    return {
        "intake": node._sweep_intake,
        "leases": node._sweep_leases,
        "commitments": node._report_commitments,
        "audit": observation.write_audit,
        "incidents": incidents,
        **{f"deliver {name}": lambda name=name: node._deliver(name) for name in node._destinations},
        **{f"confirm {name}": lambda name=name: node._confirm(name) for name in node._destinations},
        **{
            f"reconcile {name}": lambda one=one: is_due(database, one, settings, datetime.now(UTC))
            for name, one in node._destinations.items()
        },
        **{f"health {one.name}": one.check for one in observation.health._probes if one.name != "networks"},
    }


def test_what_is_open_is_found_by_an_index_of_what_is_open(node: _Node) -> None:
    """All results of a destination that offers no way to confirm stay "sent": an index of states holds them all."""
    plans = []
    planner = sqlite3.connect(node._settings.storage_dir / "discnode.sqlite")
    engine = node._database._engine
    event.listen(
        engine,
        "before_cursor_execute",
        lambda *given: plans.append(planner.execute(f"EXPLAIN QUERY PLAN {given[2]}", given[3]).fetchall()),
    )
    count_denied(node._database)
    with node._database.read() as connection:
        no_way_until(connection, "blind", datetime.now(UTC))
    planner.close()
    text = str(plans)
    assert "delivery_denied" in text
    assert "delivery_asked (destination=? AND state=? AND ask_not_before>?)" in text
    assert "TEMP B-TREE" not in text


def test_no_task_reads_a_whole_table(node: _Node, tmp_path: Path) -> None:
    """By SQLite's own plan of each statement: a SCAN reads all rows, or all entries of an index."""
    asked: list[tuple[str, Any]] = []
    engine = node._database._engine
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    settings = node._settings
    found = {}
    planner = sqlite3.connect(settings.storage_dir / "discnode.sqlite")
    for name, task in tasks_of(node, settings).items():
        asked.clear()
        task()
        for statement, values in asked:
            if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
                continue
            plan = planner.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            scans = {row[3] for row in plan if row[3].startswith("SCAN ") and SMALL.isdisjoint(row[3].split())}
            if scans:
                found[f"{name}: {statement}"] = scans
    planner.close()
    assert found == {}
