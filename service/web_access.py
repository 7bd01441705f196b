"""The one door of the HTTP server: who calls, whether they may, and what every answer tells a browser.

It stands before all routes, so that one that nobody has thought of is shut: reading is for viewers, and what changes
something is for admins, but for what :data:`REVIEWERS_CHANGE` names. Only :data:`OPEN` paths ask nobody.
"""

import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from config.secret_files import read_secret, secret_variable
from config.settings import SettingsError, Web
from config.web import WebAccess, WebProxy, is_loopback
from service.web_tokens import Role, find_token, read_tokens

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Found = TypeVar("_Found")
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Whether the node lives and works: orchestrators ask without a token, and learn nothing else (their user is None).
OPEN = frozenset({"/health/live", "/health/ready"})
REVIEWERS_CHANGE = re.compile(
    r"/api/(quarantine/[0-9]+/(release|discard)|corrections(/.*)?"
    r"|release/(((job|report)-)?[0-9]+/(approve|reject|query)|queries/[0-9]+/resolve))"
    r"|/review/(job|report)-[0-9]+"
)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_USER = re.compile(r"[\x21-\x7e]{1,64}")

#: Who fails so often within a minute is not heard again before the minute is over.
MOST_FAILURES = 10
FAILURES_S = 60.0
_MOST_ADDRESSES = 1000
MOST_BODY_BYTES = 1 << 20
#: What a page must send with a change if its browser says neither where it comes from (Origin) nor Sec-Fetch-Site.
CHANGE_HEADER = "x-discnode-request"

_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True)
class User:
    """Who calls; the name is recorded with what they change."""

    name: str
    role: Role


class _Denied(Exception):
    """The request is answered with this status, and why."""

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers


class Gate:
    """Stands before an application (ASGI). What is let through finds its :class:`User` in ``request.state.user``.

    It is None where an open path is asked by nobody known. ``on_refused`` is told of each failed login: user (empty
    where not known), address, why.
    """

    def __init__(
        self,
        app: App,
        settings: Web,
        clock: Callable[[], float] = time.monotonic,
        on_refused: Callable[[str, str, str], None] = lambda user, address, why: None,
    ) -> None:
        self._app, self._settings = app, settings
        self._on_refused = on_refused
        self._failures = _Failures(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send, is_secure=self._is_secure(scope))
        try:
            self._check(scope)
            if scope["method"] not in _READING:
                receive = await _read_whole(receive)
        except _Denied as denied:
            answer = JSONResponse({"detail": denied.why}, denied.status, denied.headers)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        state = scope.setdefault("state", {})
        state["user"] = None
        if path in OPEN and method in _READING and not self._shows_something(headers):
            return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            raise _too_long()
        user = self._user(headers, _address(scope))
        if method not in _READING:
            self._check_origin(headers)
        needed = _needed_role(method, path)
        if user.role < needed:
            raise _Denied(403, f"This is for the role {needed.name.lower()}; yours is {user.role.name.lower()}.")
        state["user"] = user

    def _shows_something(self, headers: Headers) -> bool:
        """Whether a caller says who it is, and is to be believed or refused."""
        if self._settings.access is WebAccess.LOOPBACK:
            return _names_this_machine(headers.get("host", ""))
        return ("authorization" if self._settings.access is WebAccess.TOKENS else "x-discnode-secret") in headers

    def _user(self, headers: Headers, address: str) -> User:
        access = self._settings.access
        if access is WebAccess.LOOPBACK:
            if not _names_this_machine(headers.get("host", "")):
                raise _Denied(403, "Ask 127.0.0.1 or localhost: another name may be a page of another site.")
            return User("api", Role.ADMIN)
        self._failures.check(address)
        user = self._by_token(headers) if access is WebAccess.TOKENS else self._by_proxy(headers, address)
        if isinstance(user, User):
            return user
        if user:
            self._on_refused("", address, user)
        if user and self._failures.add(address):
            _log.warning("web login failed", extra={"address": address, "why": user})
        challenge = {"WWW-Authenticate": "Bearer"} if access is WebAccess.TOKENS else {}
        raise _Denied(401, "Not known here.", **challenge)

    def _by_token(self, headers: Headers) -> User | str:
        """Who it is, or what is wrong with what was shown; empty if nothing was."""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not shown.strip():
            return ""
        file = self._settings.tokens_file
        assert file is not None  # settings refuse tokens without it
        found = find_token(_read(partial(read_tokens, file)), shown.strip())
        return "unknown token" if found is None else User(found.name, found.role)

    def _by_proxy(self, headers: Headers, address: str) -> User | str:
        proxy = self._settings.proxy
        assert proxy is not None  # settings refuse proxy without it
        if not _is_in(address, proxy.addresses):
            return "not the proxy's address"
        shown = headers.get("x-discnode-secret", "")
        if not hmac.compare_digest(shown.encode(), _read(partial(_secret, proxy)).encode()):
            return "not the proxy's secret"
        name, role = headers.get(proxy.user_header, ""), headers.get(proxy.role_header, "").upper()
        if _USER.fullmatch(name) is None or role not in Role.__members__:
            raise _Denied(403, f"The proxy names no user in {proxy.user_header}, or no role in {proxy.role_header}.")
        return User(name, Role[role])

    def _check_origin(self, headers: Headers) -> None:
        """A change must not be asked by a page of another site (CSRF)."""
        origin, host = headers.get("origin"), headers.get("host", "")
        if self._settings.access is WebAccess.LOOPBACK:
            is_ours = origin is None or _names_this_machine(urlsplit(origin).netloc)
        else:
            is_ours = origin is None or (bool(host) and urlsplit(origin).netloc.lower() == host.lower())
        if not is_ours or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise _Denied(403, "Changes must not be asked by a page of another site.")
        # A token is sent by nobody unasked; what a proxy lets in may be (a cookie, a password that the browser keeps).
        tells = origin is not None or "sec-fetch-site" in headers or CHANGE_HEADER in headers
        if self._settings.access is WebAccess.PROXY and not tells:
            raise _Denied(403, f"A change needs the header {CHANGE_HEADER}.")

    def _is_secure(self, scope: Scope) -> bool:
        if scope.get("scheme") == "https":
            return True
        proxy = self._settings.proxy
        if self._settings.access is not WebAccess.PROXY or proxy is None:
            return False
        return _is_in(_address(scope), proxy.addresses) and Headers(scope=scope).get("x-forwarded-proto") == "https"


def _needed_role(method: str, path: str) -> Role:
    if method in _READING:
        return Role.VIEWER
    return Role.REVIEWER if REVIEWERS_CHANGE.fullmatch(path) else Role.ADMIN


def _read(read: Callable[[], _Found]) -> _Found:
    """What a file of the operator's says now."""
    try:
        return read()
    except SettingsError as error:
        _log.error("web login not possible", extra={"error": str(error)})
        raise _Denied(503, "Logins are not possible now; the node's log tells why.") from error


def _secret(proxy: WebProxy) -> str:
    return secret_variable(str(proxy.secret_variable)) if proxy.secret_file is None else read_secret(proxy.secret_file)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_in(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in ipaddress.ip_network(one) for one in networks)


def _names_this_machine(netloc: str) -> bool:
    return is_loopback(urlsplit(f"//{netloc}").hostname or "")


class _Failures:
    """Failed logins of the last minute, by address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, tuple[float, int]] = {}

    def check(self, address: str) -> None:
        since_s, n_failures = self._since.get(address, (0.0, 0))
        left_s = since_s + FAILURES_S - self._clock()
        if n_failures >= MOST_FAILURES and left_s > 0:
            raise _Denied(429, "Too many failed logins; wait.", **{"Retry-After": str(int(left_s) + 1)})

    def add(self, address: str) -> bool:
        """Count one; True if it should be told: the first of a minute, and the one from which nothing more is heard."""
        now_s = self._clock()
        since_s, n_failures = self._since.get(address, (now_s, 0))
        if now_s - since_s >= FAILURES_S:
            since_s, n_failures = now_s, 0
        if address not in self._since and len(self._since) >= _MOST_ADDRESSES:
            self._since.pop(next(iter(self._since)))
        self._since[address] = (since_s, n_failures + 1)
        return n_failures == 0 or n_failures + 1 == MOST_FAILURES


def _with_headers(send: Send, *, is_secure: bool) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS:
                headers.setdefault(name, value)
            if is_secure:
                headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        await send(message)

    return send_with_headers


async def _read_whole(receive: Receive) -> Receive:
    """A body that has been read, for it may not say how long it is; the application is given it in one piece.

    Raises:
        _Denied: it is too long.
    """
    pieces: list[bytes] = []
    message = await receive()
    while message["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if sum(map(len, pieces)) > MOST_BODY_BYTES:
            raise _too_long()
        if not message.get("more_body", False):
            break
        message = await receive()
    is_given = False

    async def receive_whole() -> Message:
        nonlocal is_given
        if is_given or message["type"] != "http.request":
            return await receive() if is_given else message
        is_given = True
        return {"type": "http.request", "body": b"".join(pieces), "more_body": False}

    return receive_whole


def _too_long() -> _Denied:
    return _Denied(413, f"At most {MOST_BODY_BYTES} bytes.")
