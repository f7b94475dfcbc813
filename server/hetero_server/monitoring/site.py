"""The page of a server, its JSON and its metrics. Read-only: there is nothing here to change."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import resources
from typing import Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hetero_common.version import __version__
from hetero_server.auth.identity import TokenOwners
from hetero_server.monitoring.monitor import Monitor

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_REMEMBERED_SECONDS = 1.0
_HEALTH = "/healthz"


def build_site(
    monitor: Monitor,
    is_well: Callable[[], bool],
    tokens: TokenOwners | None = None,
    hosts: list[str] | None = None,
) -> Starlette:
    """The routes of one server.

    Args:
        monitor: What is shown.
        is_well: Whether the server can do what it is there for, for /healthz.
        tokens: Who may look at anything else; None: whoever can reach it.
        hosts: Names that the page may be asked for by, so that no page from elsewhere can read it
            under a name of its own that leads here; None: any.
    """
    site = _Site(monitor, is_well)
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=_with_headers)]
    if hosts is not None:
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=hosts))
    if tokens is not None:
        middleware.append(Middleware(BaseHTTPMiddleware, dispatch=_only_for(tokens)))
    assets = str(resources.files("hetero_server.monitoring") / "assets")
    return Starlette(
        routes=[
            Route(_HEALTH, site.health),
            Route("/metrics", site.metrics),
            Route("/api/status", site.status),
            Mount("/", StaticFiles(directory=assets, html=True)),
        ],
        middleware=middleware,
    )


class _Site:
    def __init__(self, monitor: Monitor, is_well: Callable[[], bool]) -> None:
        self._monitor = monitor
        self._is_well = is_well
        self._status: dict[str, Any] = {}
        self._asked = -_REMEMBERED_SECONDS

    async def health(self, request: Request) -> Response:
        """Tell a supervisor if the server is well, and no more than grpc.health.v1 does."""
        well = self._is_well()
        return Response("serving\n" if well else "not serving\n", status_code=200 if well else 503)

    async def metrics(self, request: Request) -> Response:
        """Answer Prometheus in the format that it asks for."""
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._monitor.metrics.registry), media_type=kind)

    async def status(self, request: Request) -> Response:
        """Tell how the run stands; many who ask at once cost no more than one."""
        now = time.monotonic()
        if now - self._asked >= _REMEMBERED_SECONDS:
            self._status, self._asked = self._told(), now
        return JSONResponse(self._status)

    def _told(self) -> dict[str, Any]:
        status, chronicle = self._monitor.status(), self._monitor.chronicle
        if status is None:
            raise HTTPException(503, "the server is still loading its model")
        return {
            "version": __version__,
            "time": time.time(),
            **asdict(status),
            "answered": self._monitor.metrics.answered,
            "accuracies": chronicle.accuracies.points(),
            "losses": chronicle.losses.points(),
            "events": [asdict(each) for each in chronicle.happenings],
        }


_Next = Callable[[Request], Awaitable[Response]]


async def _with_headers(request: Request, call_next: _Next) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _only_for(tokens: TokenOwners) -> Callable[[Request, _Next], Awaitable[Response]]:
    async def dispatch(request: Request, call_next: _Next) -> Response:
        if request.url.path == _HEALTH:
            return await call_next(request)
        if tokens.owner(_token(request.headers.get("authorization", ""))) is None:
            return Response(
                "this page asks for a token, as a password or as a bearer\n",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="hetero-server", charset="UTF-8"'},
            )
        return await call_next(request)

    return dispatch


def _token(authorization: str) -> str:
    """Return a bearer's token or a browser user's password; empty if there is neither."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            try:
                return base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return ""
