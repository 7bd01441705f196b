"""The node's HTTP server: is it alive, is it ready, and the API. For research use only."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.settings import Web
from service.health import Health
from service.web_access import Gate


def build_web(
    health: Callable[[], Health],
    *routers: APIRouter,
    settings: Web | None = None,
    metrics: Callable[[], bytes] | None = None,
    on_refused: Callable[[str, str, str], None] = lambda user, address, why: None,
    on_login: Callable[[str, str], None] = lambda user, address: None,
) -> FastAPI:
    """The application: ``/health/live``, ``/health/ready`` (503 and what is wrong), ``/metrics``, and other routes.

    All of it stands behind the gate of ``settings``; without any, who calls from this machine is let in.
    """
    app = FastAPI(title="discnode", description="For research use only.", docs_url=None, redoc_url=None)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """The supervisor answers."""
        return {"status": "alive"}

    @app.get("/health/ready")
    async def ready(request: Request, response: Response) -> dict[str, Any]:  # async: never behind one that waits
        """Whether images can be received and analysed; if not (503), what is wrong, in words, told to users only."""
        now = health()
        response.status_code = 200 if now.is_ready else 503
        return {"ready": now.is_ready} if request.state.user is None else now.as_dict()

    if metrics is not None:

        @app.get("/metrics")
        def measured() -> Response:
            """What is measured, for Prometheus."""
            return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, settings=settings or Web(), on_refused=on_refused, on_login=on_login)
    return app


class ImpatientProtocol(H11Protocol):
    """Closes a connection that keeps the server waiting for a whole request; uvicorn would wait for ever.

    A hundred such connections would be all that the server takes, and an orchestrator be told that the node is down.
    """

    look_s = 10.0  # it is closed at the second look at one request
    _timer: asyncio.TimerHandle | None = None
    _waited_for: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.look_s, self._look)

    def _look(self) -> None:
        last = self.cycle  # the request that came last, whole or not
        waits = last is None or last.response_complete or last.more_body
        if waits and self._waited_for is (last or self):
            self.transport.abort()
            return
        self._waited_for = (last or self) if waits else None
        self._timer = self.loop.call_later(self.look_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)


class WebServer:
    """The application, served from a thread until it is closed."""

    def __init__(
        self,
        settings: Web,
        health: Callable[[], Health],
        *routers: APIRouter,
        metrics: Callable[[], bytes] | None = None,
        on_refused: Callable[[str, str, str], None] = lambda user, address, why: None,
        on_login: Callable[[str, str], None] = lambda user, address: None,
    ) -> None:
        app = build_web(health, *routers, settings=settings, metrics=metrics, on_refused=on_refused, on_login=on_login)
        config = uvicorn.Config(
            app,
            host=settings.bind,
            port=settings.port,
            ssl_certfile=settings.certificate_file,
            ssl_keyfile=settings.key_file,
            http=ImpatientProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=100,  # 503 beyond
            proxy_headers=False,  # the gate asks who really calls
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it serves; not where another program has its port, for one."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=5.0)
