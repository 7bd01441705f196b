"""The node's HTTP server: is it alive, is it ready, and the API. For research use only."""

import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Response

from config.settings import Web
from service.health import Health


def build_web(health: Callable[[], Health], *routers: APIRouter) -> FastAPI:
    """The application: ``/health/live``, ``/health/ready`` (503 and what is wrong, if it is not), and other routes."""
    app = FastAPI(title="discnode", description="For research use only.", docs_url=None, redoc_url=None)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """The supervisor answers."""
        return {"status": "alive"}

    @app.get("/health/ready")
    async def ready(response: Response) -> dict[str, Any]:  # async: never behind a request that waits for the database
        """Whether images can be received and analysed; if not (503), what is wrong, in words."""
        now = health()
        response.status_code = 200 if now.is_ready else 503
        return now.as_dict()

    for router in routers:
        app.include_router(router)
    return app


class WebServer:
    """The application, served from a thread until it is closed."""

    def __init__(self, settings: Web, health: Callable[[], Health], *routers: APIRouter) -> None:
        config = uvicorn.Config(
            build_web(health, *routers), host=settings.bind, port=settings.port, log_config=None, access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=5.0)
