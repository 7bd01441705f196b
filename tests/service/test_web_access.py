"""Who gets through the door of the HTTP server, as what, and what every answer tells a browser."""

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from peers import free_port, wait_until

from config.settings import Settings, SettingsError, Web, load_settings
from config.web import WebAccess
from service.cli import main
from service.health import Check, Health
from service.web import ImpatientProtocol, WebServer, build_web
from service.web_access import FAILURES_S, MOST_BODY_BYTES, MOST_FAILURES, REST_S, REVIEWERS_CHANGE, Gate
from service.web_api import build_api
from service.web_tokens import Role, find_token, new_token, read_tokens, remove_token

HERE = "http://127.0.0.1:8080"
SECRET = "between-node-and-proxy"
PROXY_HEADERS = {"X-Discnode-Secret": SECRET, "X-Remote-User": "dr.ann", "X-Remote-Role": "reviewer"}


def routes() -> APIRouter:
    """One route of each kind; each says who called."""
    api = APIRouter()

    def who(request: Request) -> dict[str, str]:
        return {"user": request.state.user.name}

    api.get("/api/exams")(who)
    api.post("/api/quarantine/7/release")(who)
    api.post("/api/jobs/7/retry")(who)
    api.delete("/a/route/nobody/thought/of")(who)

    @api.post("/api/corrections")
    async def correct(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    return api


class Site:
    """The application behind its gate, asked without a socket; the test gives address and time."""

    def __init__(self, settings: Web, client: str = "127.0.0.1") -> None:
        self.now_s = 1000.0
        self.client = client
        app = build_web(lambda: Health((Check("database", "", True, 0.0),)), settings=Web())
        app.user_middleware.clear()
        app.include_router(routes())
        self.logins: list[tuple[str, str]] = []
        self._app = Gate(app, settings, lambda: self.now_s, on_login=lambda *who: self.logins.append(who))

    def ask(self, method: str, path: str, base: str = HERE, **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=(self.client, 4711))
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(asked())

    def status(self, method: str, path: str, base: str = HERE, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(method, path, base, headers=named).status_code


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def by_token(tokens_file: Path) -> Site:
    return Site(Web(access=WebAccess.TOKENS, tokens_file=tokens_file), client="10.0.0.7")


@pytest.fixture
def by_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PROXY_SECRET", SECRET)
    proxy = {"addresses": ["10.0.0.0/28"], "secret_variable": "PROXY_SECRET"}
    return Site(Web.model_validate({"access": "proxy", "proxy": proxy}), client="10.0.0.7")


def test_without_authentication_only_this_machine_is_asked() -> None:
    site = Site(Web())
    assert site.ask("GET", "/api/exams").json() == {"user": "api"}
    assert site.status("POST", "/api/jobs/7/retry") == 200
    for headers in ({"Host": "evil.example"}, {"Host": "evil.example:8080"}, {"Host": "127.0.0.1.evil.example"}):
        assert site.status("GET", "/api/exams", **headers) == 403  # a name that was made to mean this machine
        assert site.status("POST", "/api/jobs/7/retry", **headers) == 403
    assert site.status("POST", "/api/jobs/7/retry", Origin="http://localhost:3000") == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example"):
        assert site.status("POST", "/api/jobs/7/retry", Origin=origin) == 403
    assert site.status("POST", "/api/jobs/7/retry", Sec_Fetch_Site="cross-site") == 403


ROLES = [
    ("GET", "/api/exams", Role.VIEWER),
    ("POST", "/api/quarantine/7/release", Role.REVIEWER),
    ("POST", "/api/corrections", Role.REVIEWER),
    ("POST", "/api/jobs/7/retry", Role.ADMIN),
    ("DELETE", "/a/route/nobody/thought/of", Role.ADMIN),
]


@pytest.mark.parametrize(("method", "path", "needed"), ROLES)
def test_a_role_may_do_what_it_is_for(by_token: Site, tokens_file: Path, method: str, path: str, needed: Role) -> None:
    for role in Role:
        token = new_token(tokens_file, f"ann-{role.name}", role)
        expected = 200 if role >= needed else 403
        assert by_token.status(method, path, Authorization=f"Bearer {token}") == expected
    assert by_token.status(method, path) == 401


def test_the_roles_fit_the_routes_of_the_api(tmp_path: Path) -> None:
    """What reviewers may change exists, so that a route of another name does not silently become an admin's."""
    from service.database import open_database

    database = open_database(Settings(storage_dir=tmp_path))
    changing = {
        route.path.replace("{item_id}", "7").replace("{job_id}", "7")
        for route in build_api(database, (), Settings()).routes
        if not route.methods <= {"GET", "HEAD"}  # type: ignore[attr-defined]
    }
    database.close()
    assert {path for path in changing if REVIEWERS_CHANGE.fullmatch(path)} == {
        "/api/quarantine/7/release",
        "/api/quarantine/7/discard",
    }


def test_who_it_was_is_known(by_token: Site, tokens_file: Path) -> None:
    token = new_token(tokens_file, "ann@spine.example", Role.ADMIN)
    answer = by_token.ask("POST", "/api/jobs/7/retry", headers={"Authorization": f"bearer {token}"})
    assert answer.json() == {"user": "ann@spine.example"}


def test_who_comes_in_is_told_once_and_again_after_a_rest(by_token: Site, by_proxy: Site, tokens_file: Path) -> None:
    """Each request shows the token anew; a login is the first one, from each address."""
    token = new_token(tokens_file, "anna", Role.VIEWER)
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(3):
        assert by_token.ask("GET", "/api/exams", headers=headers).status_code == 200
        by_token.now_s += REST_S - 1
    assert by_token.ask("GET", "/api/exams", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert by_token.logins == [("anna", "10.0.0.7")]
    by_token.now_s += REST_S
    by_token.ask("GET", "/api/exams", headers=headers)
    by_token.client = "10.1.1.1"
    by_token.ask("GET", "/api/exams", headers=headers)
    assert by_token.logins == [("anna", "10.0.0.7"), ("anna", "10.0.0.7"), ("anna", "10.1.1.1")]
    by_proxy.ask("GET", "/api/exams", headers=PROXY_HEADERS)
    assert by_proxy.logins == [("dr.ann", by_proxy.client)]


def test_where_nobody_logs_in_no_login_is_told() -> None:
    site = Site(Web(access=WebAccess.LOOPBACK))
    assert site.ask("GET", "/api/exams").status_code == 200
    assert site.logins == []


def test_a_token_that_is_removed_opens_nothing_from_then_on(by_token: Site, tokens_file: Path) -> None:
    token = new_token(tokens_file, "ann", Role.VIEWER)
    assert by_token.status("GET", "/api/exams", Authorization=f"Bearer {token}") == 200
    assert remove_token(tokens_file, "ann")
    assert not remove_token(tokens_file, "ann")
    answer = by_token.ask("GET", "/api/exams", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert token not in answer.text


def test_health_answers_everyone_and_tells_users_why(by_token: Site, by_proxy: Site, tokens_file: Path) -> None:
    for site in (by_token, by_proxy, Site(Web())):
        assert site.status("GET", "/health/live", "http://node:8080") == 200
        assert site.status("GET", "/health/ready", "http://node:8080") == 200
        assert site.ask("GET", "/health/ready", "http://node:8080").json() == {"ready": True}
    assert by_token.status("POST", "/health/live") == 401
    token = new_token(tokens_file, "ann", Role.VIEWER)
    told = by_token.ask("GET", "/health/ready", headers={"Authorization": f"Bearer {token}"}).json()
    assert set(told) > {"ready", "database"}
    assert by_token.status("GET", "/health/ready", Authorization="Bearer wrong") == 401
    assert set(Site(Web()).ask("GET", "/health/ready").json()) > {"ready", "database"}
    for path in ("/openapi.json", "/metrics", "/health", "/health/live/", "//health/live"):
        assert by_token.status("GET", path) == 401, path


def test_failed_logins_are_limited_and_told_twice(by_token: Site, tokens_file: Path, caplog: Any) -> None:
    token = new_token(tokens_file, "ann", Role.VIEWER)
    wrong = {"Authorization": "Bearer wrong-token"}
    statuses = [by_token.status("GET", "/api/exams", **wrong) for _ in range(MOST_FAILURES + 5)]
    assert statuses == [401] * MOST_FAILURES + [429] * 5
    answer = by_token.ask("GET", "/api/exams", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "61")
    assert by_token.status("GET", "/health/ready") == 200
    by_token.client = "10.0.0.8"
    assert by_token.status("GET", "/api/exams", Authorization=f"Bearer {token}") == 200
    by_token.client = "10.0.0.7"
    by_token.now_s += FAILURES_S
    assert by_token.status("GET", "/api/exams", Authorization=f"Bearer {token}") == 200
    assert [record.message for record in caplog.records] == ["web login failed"] * 2
    assert "wrong-token" not in str([vars(record) for record in caplog.records])


def test_who_shows_nothing_locks_nobody_out(by_token: Site, tokens_file: Path, caplog: Any) -> None:
    for _ in range(2 * MOST_FAILURES):
        assert by_token.status("GET", "/metrics") == 401
    token = new_token(tokens_file, "ann", Role.VIEWER)
    assert by_token.status("GET", "/api/exams", Authorization=f"Bearer {token}") == 200
    assert caplog.records == []


def test_addresses_of_failed_logins_do_not_fill_the_memory(by_token: Site) -> None:
    for number in range(1100):
        by_token.client = f"10.1.{number // 256}.{number % 256}"
        assert by_token.status("GET", "/api/exams", Authorization="Bearer wrong") == 401
    assert len(by_token._app._failures._since) == 1000


def test_the_proxy_says_who_calls(by_proxy: Site) -> None:
    ask = "/api/quarantine/7/release"
    ours = {**PROXY_HEADERS, "Origin": HERE}
    assert by_proxy.ask("POST", ask, headers=ours).json() == {"user": "dr.ann"}
    assert by_proxy.status("POST", "/api/jobs/7/retry", **ours) == 403
    for change in ({"X-Remote-Role": "root"}, {"X-Remote-Role": ""}, {"X-Remote-User": ""}, {"X-Remote-User": "a b"}):
        assert by_proxy.status("GET", "/api/exams", **{**PROXY_HEADERS, **change}) == 403
    assert by_proxy.status("GET", "/api/exams", **{**PROXY_HEADERS, "X-Discnode-Secret": "guessed"}) == 401
    by_proxy.client = "10.0.0.99"
    assert by_proxy.status("GET", "/api/exams", **PROXY_HEADERS) == 401  # knows the secret, but is not the proxy


def test_behind_a_proxy_a_page_of_another_site_changes_nothing(by_proxy: Site) -> None:
    ask = "/api/quarantine/7/release"
    assert by_proxy.status("POST", ask, **PROXY_HEADERS) == 403
    assert by_proxy.status("POST", ask, **PROXY_HEADERS, Origin="https://evil.example") == 403
    assert by_proxy.status("POST", ask, **PROXY_HEADERS, Origin=HERE, Sec_Fetch_Site="cross-site") == 403
    assert by_proxy.status("POST", ask, **PROXY_HEADERS, Sec_Fetch_Site="same-origin") == 200
    assert by_proxy.status("POST", ask, **PROXY_HEADERS, X_Discnode_Request="1") == 200
    assert by_proxy.status("POST", ask, "http://node.example", **PROXY_HEADERS, Origin="https://node.example") == 200


def test_every_answer_tells_browsers_to_keep_their_hands_off(by_token: Site) -> None:
    site = Site(Web())
    for answer in (
        site.ask("GET", "/api/exams"),
        site.ask("GET", "/health/live"),
        site.ask("GET", "/nowhere"),
        by_token.ask("GET", "/api/exams"),
    ):
        headers = answer.headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in headers
        assert "Access-Control-Allow-Origin" not in headers


def test_https_is_said_to_stay(by_proxy: Site) -> None:
    secure = by_proxy.ask("GET", "/api/exams", headers={**PROXY_HEADERS, "X-Forwarded-Proto": "https"})
    assert "max-age" in secure.headers["Strict-Transport-Security"]
    assert "max-age" in Site(Web()).ask("GET", "/health/live", "https://127.0.0.1").headers["Strict-Transport-Security"]
    forged = Site(Web()).ask("GET", "/health/live", headers={"X-Forwarded-Proto": "https"})
    assert "Strict-Transport-Security" not in forged.headers


def test_a_body_that_is_too_long_is_not_read() -> None:
    site = Site(Web())
    assert site.ask("POST", "/api/corrections", content=b"x" * 1000).json() == {"bytes": 1000}
    assert site.ask("POST", "/api/corrections", content=b"x" * (MOST_BODY_BYTES + 1)).status_code == 413
    n_taken = 0

    async def pieces() -> Any:
        nonlocal n_taken
        for _ in range(100):
            n_taken += 1
            yield b"x" * (MOST_BODY_BYTES // 10)

    assert site.ask("POST", "/api/corrections", content=pieces()).status_code == 413
    assert n_taken < 15


# --- tokens and settings ----------------------------------------------------------------------------------------------


def test_a_token_is_printed_once_and_its_hash_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("web: {access: tokens, tokens_file: tokens}\n")
    command = ["web-token", "new", "--role", "reviewer", "--name", "ann", "--config", str(config)]
    assert main(command) == 0
    token = capsys.readouterr().out.strip()
    file = tmp_path / "tokens"
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in file.read_text()
    found = find_token(read_tokens(file), token)
    assert found is not None
    assert (found.name, found.role) == ("ann", Role.REVIEWER)
    assert find_token(read_tokens(file), token[:-1]) is None
    assert main(command) == 2
    assert "ann has a token" in capsys.readouterr().err
    assert main(["web-token", "list", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "reviewer  ann\n"
    assert main(["web-token", "remove", "--name", "ann", "--config", str(config)]) == 0
    assert main(["web-token", "remove", "--name", "ann", "--config", str(config)]) == 2
    assert read_tokens(file) == ()


@pytest.mark.parametrize("content", ["ann viewer", f"ann root {'0' * 64}", f"ann viewer {'0' * 64}\n" * 2])
def test_a_tokens_file_that_is_wrong_opens_nothing(by_token: Site, tokens_file: Path, content: str) -> None:
    tokens_file.touch(0o600)
    tokens_file.write_text(content)
    assert by_token.status("GET", "/api/exams", Authorization="Bearer x") == 503
    tokens_file.write_text("")
    tokens_file.chmod(0o644)
    assert by_token.status("GET", "/api/exams", Authorization="Bearer x") == 503


@pytest.mark.parametrize(
    ("web", "fault"),
    [
        ("bind: 0.0.0.0", "reachable from other machines, and access: loopback asks nobody who they are"),
        ("bind: 10.0.0.1, access: tokens, tokens_file: t", "tokens must not travel in the clear"),
        ("access: tokens", "tokens needs tokens_file"),
        ("access: proxy", "proxy needs proxy"),
        ("access: proxy, proxy: {addresses: [10.0.0.1]}", "needs secret_file or secret_variable"),
        ("access: proxy, proxy: {addresses: [somewhere], secret_file: s}", "somewhere"),
        ("access: proxy, proxy: {addresses: [10.0.0.1], secret: s}", "unknown key"),
        ("certificate_file: c", "both, or none"),
    ],
)
def test_a_door_that_stands_open_is_refused(tmp_path: Path, web: str, fault: str) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(f"web: {{{web}}}\n")
    with pytest.raises(SettingsError, match=fault):
        load_settings(config)


def test_beyond_this_machine_with_tokens_by_https_or_a_proxy(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(
        "web: {bind: 0.0.0.0, access: tokens, tokens_file: t, certificate_file: c, key_file: k}\n", encoding="utf-8"
    )
    assert load_settings(config).web.key_file == tmp_path / "k"
    config.write_text("web: {bind: 0.0.0.0, access: proxy, proxy: {addresses: ['10.0.0.1'], secret_file: s}}\n")
    proxy = load_settings(config).web.proxy
    assert proxy is not None
    assert proxy.secret_file == tmp_path / "s"


def test_connections_that_ask_nothing_do_not_shut_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of them were all that it took, for ever: health was answered with 503."""
    monkeypatch.setattr(ImpatientProtocol, "look_s", 4.0)  # a busy machine needs over a second to open them all
    port = free_port()
    server = WebServer(Web(port=port), lambda: Health(()))
    address = f"http://127.0.0.1:{port}/health/live"
    try:
        wait_until(lambda: _status(address) == 200, "the server", 20)
        half = b"POST /api/jobs/1/retry HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
        starts = (b"", b"GET /health/live HT", half)
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(180)]  # a third may be answered at once
        for number, one in enumerate(idle):
            one.sendall(starts[number % 3])
        assert _status(address) == 503
        wait_until(lambda: _status(address) == 200, "an answer again", 60)
        for one in idle:
            one.close()
    finally:
        server.close()


def _status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0
