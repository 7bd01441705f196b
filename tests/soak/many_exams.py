"""A node with tens of thousands of exams on record that has nothing to do: what it costs, and whether it grows."""

import json
import time
import urllib.request
from datetime import UTC, datetime

import psutil
from exams_on_record import put_on_record
from node_process import Node
from peers import free_port
from sqlalchemy import func, select

from service import database as db
from service.audit_chain import NewLine, Position, append
from service.audit_trail import audit_folder
from service.database import Database, open_database
from service.migration import migrate
from tests.soak.campaign import Check, Options, Ticker

N_EXAMS = 50_000
WARM_UP_S, WATCHED_S = 60.0, 120.0
SCRAPE_S = 15.0  # as Prometheus does


def run(options: Options) -> list[Check]:
    """The campaign: 50,000 exams, half of them of a destination that offers no way to confirm."""
    web = free_port()
    destinations = [
        {"name": name, "ae_title": "A", "host": "127.0.0.1", "port": free_port()} for name in ("sure", "blind")
    ]
    node = Node(options.folder, options.analysis, destinations=destinations, web={"port": web})
    migrate(node.settings)
    database = open_database(node.settings)
    put_on_record(database, N_EXAMS // 2, "sure", is_confirmed=True)
    put_on_record(database, N_EXAMS // 2, "blind", is_confirmed=False, after=N_EXAMS // 2)
    _note_as_told(node, database)
    database.close()
    ticker = Ticker("many exams")
    try:
        node.start()
        _watch(web, WARM_UP_S, ticker)
        before_s, before_mb = _use(node)
        took_s = _watch(web, WATCHED_S, ticker)
        after_s, after_mb = _use(node)
    finally:
        node.__exit__()
    share = 100.0 * (after_s - before_s) / WATCHED_S
    return [
        Check("exams on record", str(N_EXAMS)),
        Check(
            "CPU of the idle node, with /metrics and /health asked", f"{share:.1f} % of a core", "< 5 %", share < 5.0
        ),
        Check("/metrics, slowest answer", f"{took_s:.2f} s", "< 1 s", took_s < 1.0),
        Check("memory of the node", f"{before_mb:.0f} -> {after_mb:.0f} MB", "+2 MB", after_mb < before_mb + 2.0),
    ]


def _note_as_told(node: Node, database: Database) -> None:
    """The audit trail has told of them all: else the node would begin with that."""
    with database.read() as connection:
        newest = connection.execute(select(func.max(db.instance.c.id))).scalar_one()
    line = NewLine("alert", "<AuditMessage/>", Position({"received": newest}))
    append(audit_folder(node.settings), [line], datetime.now(UTC))


def _watch(web: int, seconds: float, ticker: Ticker) -> float:
    """Let it run, asked as monitoring does; the slowest answer of /metrics."""
    end_s, slowest_s = time.monotonic() + seconds, 0.0
    while time.monotonic() < end_s:
        asked_s = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=30) as answer:
            assert b"discnode_exams" in answer.read()
        slowest_s = max(slowest_s, time.monotonic() - asked_s)
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/health/live", timeout=30) as answer:
            assert json.load(answer) == {"status": "alive"}
        ticker.tell(f"{end_s - time.monotonic():.0f} s left")
        time.sleep(SCRAPE_S)
    return slowest_s


def _use(node: Node) -> tuple[float, float]:
    """CPU seconds of all processes of the node, and the supervisor's memory in MB."""
    supervisor = psutil.Process(node.pid)
    children = supervisor.children(recursive=True)
    used_s = sum(sum(one.cpu_times()[:2]) for one in (supervisor, *children))
    return used_s, supervisor.memory_info().rss / 1e6
