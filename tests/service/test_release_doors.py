"""Release by command, by HTTP and by its pages: who may sign, and as whom."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from peers import need
from release_desk import MEANING, Node
from sqlalchemy import select

from config.settings import Web
from config.web import WebAccess
from processing.results import Verdict
from service import trial_tables as trials
from service.audit import AuditEvent, AuditKind
from service.cli import main
from service.database import audit_queue
from service.deliveries import list_deliveries
from service.health import Health
from service.release_api import build_release_api
from service.review_pages import build_review_pages
from service.web import build_web
from service.web_tokens import Role, new_token
from tests.browser import Browser
from tests.peers import Storescp, free_port, wait_until

HERE = "http://127.0.0.1:8080"


class Site:
    """The application over a record with one held result."""

    def __init__(self, folder: Path, verdict: Verdict = Verdict.OK, web: Web | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.node = Node(folder, Storescp(folder / "scp"), "hold", web=(web or Web()).model_dump())
        self.job = self.node.finish(verdict)
        result = self.node.settings.storage_dir / "results" / "exam-000001" / "v1"
        (result / "qc.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (result / "report.html").write_text("<!doctype html><title>Report</title>")
        database, settings = self.node.database, self.node.settings
        routers = build_release_api(database, settings), build_review_pages(database, settings)
        self.app = build_web(lambda: Health(()), *routers, settings=settings.web)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
                return await client.request(method, path, **options)

        return asyncio.run(asked())

    @property
    def digest(self) -> str:
        return str(self.ask("GET", f"/api/release/{self.job}").json()["content_sha256"])

    @property
    def states(self) -> set[str]:
        return self.node.states(self.job)

    def signatures(self) -> list[tuple[str, str, str]]:
        table = trials.signature
        with self.node.database.read() as connection:
            rows = connection.execute(select(table.c.decision, table.c.signed_by, table.c.signed_via)).all()
        return [(row.decision, row.signed_by, row.signed_via) for row in rows]


def test_http_shows_what_is_held_and_takes_a_signature(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (held,) = site.ask("GET", "/api/release").json()
    assert held["target"] == "job-1"
    assert held["held_for"] == {"policy": "released by a person alone"}
    said = {"meaning": MEANING, "content_sha256": site.digest, "by": "Dr Ann"}
    assert site.ask("POST", "/api/release/1/approve", json={**said, "meaning": " "}).status_code == 422
    assert site.ask("POST", "/api/release/1/approve", json={**said, "by": ""}).status_code == 422
    assert site.ask("POST", "/api/release/1/approve", json={"meaning": MEANING, "by": "Dr Ann"}).status_code == 422
    assert site.ask("POST", "/api/release/1/approve", json={**said, "content_sha256": "0" * 64}).status_code == 409
    assert site.ask("POST", "/api/release/7/approve", json=said).status_code == 409
    assert site.ask("POST", "/api/release/visit-7/approve", json=said).status_code in (404, 422)
    assert site.ask("POST", "/api/release/1/approve", json=said, headers={"Origin": "http://evil"}).status_code == 403
    assert site.states == {"held"}
    done = site.ask("POST", "/api/release/1/approve", json=said)
    assert done.status_code == 200
    assert [one["signed_by"] for one in done.json()["signatures"]] == ["Dr Ann"]
    assert site.states == {"waiting"}
    assert site.ask("POST", "/api/release/1/approve", json=said).status_code == 409
    with site.node.database.read() as connection:
        events = [AuditEvent.from_json(text) for text in connection.execute(select(audit_queue.c.event)).scalars()]
    (event,) = [one for one in events if one.kind is AuditKind.DECIDED]
    assert (event.by, event.studies) == ("Dr Ann", ("1.2.3",))
    assert MEANING not in event.to_json()


def test_queries_and_a_recall_by_http(tmp_path: Path) -> None:
    site = Site(tmp_path)
    asked = {"meaning": "I ask the site", "reason": "Which coil?", "code": "SCANNER_CHANGED", "by": "Dr Ann"}
    number = site.ask("POST", "/api/release/job-1/query", json=asked).json()["query"]
    assert [one["state"] for one in site.ask("GET", "/api/release/queries").json()] == ["open"]
    answer = {"meaning": "I take the answer", "reason": "the old one", "code": "ACCEPTED", "by": "Dr Ann"}
    assert site.ask("POST", f"/api/release/queries/{number}/resolve", json=answer).status_code == 200
    assert site.ask("POST", f"/api/release/queries/{number}/resolve", json=answer).status_code == 404
    said = {"meaning": "I take it back", "reason": "wrong patient", "by": "Dr Ann", "code": "WRONG_SUBJECT"}
    assert site.ask("POST", "/api/release/recall", json=said).status_code == 422
    found = site.ask("POST", "/api/release/recall", json={**said, "job": 1}).json()
    assert (len(found["sent"]), len(found["not_sent"])) == (0, 2)
    assert site.states == {"rejected"}


def test_roles_and_names_are_those_of_who_calls(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    site = Site(tmp_path / "site", web=Web(access=WebAccess.TOKENS, tokens_file=tokens))
    bearers = {role: {"Authorization": f"Bearer {new_token(tokens, role.name.lower(), role)}"} for role in Role}
    assert site.ask("GET", "/").status_code == 401
    shown = site.ask("GET", "/api/release/1", headers=bearers[Role.VIEWER]).json()
    page = site.ask("GET", "/review/job-1", headers=bearers[Role.VIEWER]).text
    assert "Sign and release" not in page
    said = {"meaning": MEANING, "content_sha256": shown["content_sha256"]}
    form = {**said, "action": "approve"}
    assert site.ask("POST", "/api/release/1/approve", json=said, headers=bearers[Role.VIEWER]).status_code == 403
    assert site.ask("POST", "/review/job-1", data=form, headers=bearers[Role.VIEWER]).status_code == 403
    recall = {"meaning": "I take it back", "reason": "wrong", "job": 1}
    assert site.ask("POST", "/api/release/recall", json=recall, headers=bearers[Role.REVIEWER]).status_code == 403
    as_other = {**said, "by": "somebody else"}
    assert site.ask("POST", "/api/release/1/approve", json=as_other, headers=bearers[Role.REVIEWER]).status_code == 422
    assert site.states == {"held"}
    assert site.ask("POST", "/review/job-1", data=form, headers=bearers[Role.REVIEWER]).status_code == 303
    assert site.signatures() == [("approved", "reviewer", "web")]


def test_pages_show_only_the_files_of_a_result_and_run_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for path in ("/", "/review/job-1"):
        page = site.ask("GET", path)
        assert page.status_code == 200
        assert "script" not in page.text
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
        assert "For research use only" in page.text
    assert site.ask("GET", "/review/style.css").headers["Content-Type"].startswith("text/css")
    assert site.ask("GET", "/review/job-1/file/qc.png").headers["Content-Type"] == "image/png"
    assert "script-src" not in site.ask("GET", "/review/job-1/file/report.html").headers["Content-Security-Policy"]
    for name in ("result.json", "0.dcm", "..%2f..%2fdiscnode.sqlite", "%2e%2e", "discnode.sqlite"):
        assert site.ask("GET", f"/review/job-1/file/{name}").status_code in (404, 422)
    assert site.ask("GET", "/review/job-9").status_code == 404
    refused = site.ask("POST", "/review/job-1", data={"action": "reject", "by": "A", "meaning": "no", "reason": "x"})
    assert refused.status_code == 409
    assert "Not done: a rejection needs a coded reason" in refused.text
    assert site.ask("POST", "/review/job-1", data={"action": "burn", "by": "A"}).status_code == 409
    assert site.states == {"held"}


@pytest.mark.peers
def test_a_person_signs_in_a_browser(tmp_path: Path) -> None:
    need("chromium")
    import threading

    import uvicorn

    site = Site(tmp_path, Verdict.NEEDS_REVIEW)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(site.app, port=port, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server")
    try:
        with Browser(tmp_path / "profile") as browser:
            browser.open(f"http://127.0.0.1:{port}/")
            browser.wait("!!document.querySelector('table.held a')", "the list")
            browser.evaluate("document.querySelector('table.held a').click()")
            browser.wait("!!document.querySelector('form.approve')", "the form")
            browser.evaluate(
                "(() => { const form = document.querySelector('form.approve'); form.by.value = 'Dr Ann';"
                " form.querySelector('button').click(); })()"
            )
            browser.wait("document.querySelector('.signatures strong')?.textContent === 'Approved'", "the signature")
            assert browser.errors == []
    finally:
        server.should_exit = True
        thread.join(10)
    assert site.signatures() == [("approved", "Dr Ann", "web of this machine, by the name they gave")]
    assert site.states == {"waiting"}


def test_commands_sign_and_tell_the_system_s_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = Node(tmp_path, Storescp(tmp_path / "scp"), "hold_on_warning")
    for number in range(3):
        node.finish(Verdict.NEEDS_REVIEW, study=f"1.2.{number + 3}")
    config = tmp_path / "node.yaml"
    shown = node.settings.model_dump(mode="json", include={"storage_dir", "destinations", "routes"})
    config.write_text(json.dumps(shown))

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["release", *words, "--config", str(config)])
        said = capsys.readouterr()
        return status, said.out, said.err

    assert run("list")[1].count("to be checked: the result needs review") == 3
    assert json.loads(run("show", "1")[1])["deliveries"] == {"held": 2}
    assert run("show", "9")[0] == 2
    signed = ("--by", "Dr Ann", "--meaning", MEANING)
    assert run("approve", "1", *signed)[::2] == (3, "a reason is needed\n")
    assert run("approve", "1", "--by", "Dr Ann", "--reason", "seen")[0] == 3
    assert run("approve", "1", *signed, "--reason", "seen")[:2] == (0, "job 1 approved: 2 objects go\n")
    assert run("reject", "2", *signed, "--reason", "moved", "--code", "MOTION")[0] == 0
    assert (
        run("query", "3", *signed, "--reason", "which coil?", "--code", "SCANNER_CHANGED", "--due", "2026-01-31")[0]
        == 0
    )
    assert "due 2026-01-31 OVERDUE  SCANNER_CHANGED: which coil?" in run("queries")[1]
    assert run("approve", "3", *signed, "--reason", "seen")[::2] == (3, "job 3 has an open query: resolve it first\n")
    assert run("resolve", "1", *signed, "--reason", "the same", "--code", "ACCEPTED")[0] == 0
    assert run("recall", *signed)[0] == 2
    assert run("recall", "--job", "1", "--dry-run")[2] == "job 1: 0 objects were sent; 2 would be stopped\n"
    out = tmp_path / "recall.csv"
    assert run("recall", "--job", "1", *signed, "--reason", "wrong spine", "--out", str(out))[0] == 0
    assert len(out.read_text().splitlines()) == 3
    assert {str(one.state) for one in list_deliveries(node.database)} == {"rejected", "held"}
    assert main(["deliveries", "retry", "1", "--config", str(config)]) == 2
    assert re.search("delivery 1 is rejected: recalled", capsys.readouterr().err)
    with node.database.read() as connection:
        table = trials.signature
        rows = connection.execute(select(table.c.decision, table.c.signed_by, table.c.signed_via)).all()
    assert [row.decision for row in rows] == ["approved", "rejected", "queried", "resolved", "recalled"]
    assert {row.signed_by for row in rows} == {"Dr Ann"}
    assert all(re.fullmatch(r"command line as \S+", row.signed_via) for row in rows)
