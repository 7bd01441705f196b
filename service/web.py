"""The node's HTTP server: is it alive, is it ready, and the API. For research use only."""

import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response

from config.settings import Web
from service.health import Health
from service.web_access import Gate


def build_web(
    health: Callable[[], Health],
    *routers: APIRouter,
    settings: Web | None = None,
    metrics: Callable[[], bytes] | None = None,
    on_refused: Callable[[str, str, str], None] = lambda user, address, why: None,
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
    app.add_middleware(Gate, settings=settings or Web(), on_refused=on_refused)
    return app


class WebServer:
    """The application, served from a thread until it is closed."""

    def __init__(
        self,
        settings: Web,
        health: Callable[[], Health],
        *routers: APIRouter,
        metrics: Callable[[], bytes] | None = None,
        on_refused: Callable[[str, str, str], None] = lambda user, address, why: None,
    ) -> None:
        config = uvicorn.Config(
            build_web(health, *routers, settings=settings, metrics=metrics, on_refused=on_refused),
            host=settings.bind,
            port=settings.port,
            ssl_certfile=settings.certificate_file,
            ssl_keyfile=settings.key_file,
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
