"""Where the page of a server is to be had: an HTTP server in the event loop of the gRPC one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from hetero_common.errors import SettingsError
from hetero_common.wire.credentials import certificates_for, is_loopback, read_certificates
from hetero_server.auth.identity import TokenOwners
from hetero_server.monitoring.monitor import Monitor
from hetero_server.monitoring.site import build_site

log = logging.getLogger(__name__)

_USUAL = "127.0.0.1:9464"
_MOST_CONNECTIONS = 100
_LOOPBACK_NAMES = ["localhost", "127.0.0.1", "::1", "[::1]"]


@contextlib.asynccontextmanager
async def page(
    monitor: Monitor,
    http: str,
    *,
    is_well: Callable[[], bool],
    tokens: Path | None = None,
    certs: Path | None = None,
    insecure: bool = False,
) -> AsyncIterator[str | None]:
    """Serve a monitor's page as long as the block lasts.

    Args:
        monitor: What is shown.
        http: HOST:PORT, `auto` or `off`.
        is_well: Whether the server can do what it is there for.
        tokens: File of those who may look.
        certs: Directory of certificates, for TLS.
        insecure: Other machines may look, without a token.

    Yields:
        The address of the page; None if there is none.

    Raises:
        SettingsError: The address cannot be listened on, or may not like this.
    """
    if http == "off":
        yield None
        return
    address = _USUAL if http == "auto" else http
    is_local = is_loopback(address)
    _require_guard(http, is_local=is_local, tokens=tokens, insecure=insecure)
    certs = None if is_local else certificates_for(address, certs, insecure=insecure)
    site = build_site(
        monitor,
        is_well,
        None if tokens is None else TokenOwners(tokens, "--http-tokens"),
        _LOOPBACK_NAMES if is_local else None,
    )
    if certs is not None:
        read_certificates(certs, "server")
    bound = _bind_anywhere(address) if http == "auto" else _bind(address)
    server = _embedded(site, certs)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    host, port = address.rpartition(":")[0], bound.getsockname()[1]
    try:
        yield f"{'http' if certs is None else 'https'}://{host}:{port}/"
    finally:
        server.should_exit = server.force_exit = True
        await task
        bound.close()


class _Embedded(uvicorn.Server):
    """Signals are the process' own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _embedded(site: Starlette, certs: Path | None) -> _Embedded:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return _Embedded(
        uvicorn.Config(
            site,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            ssl_certfile=None if certs is None else certs / "server.pem",
            ssl_keyfile=None if certs is None else certs / "server.key",
        )
    )


def _require_guard(http: str, *, is_local: bool, tokens: Path | None, insecure: bool) -> None:
    if not is_local and tokens is None and not insecure:
        raise SettingsError(
            f"--http {http} can be reached from other machines: give --http-tokens, or spell out "
            "--insecure if that network is yours alone"
        )


def _bind_anywhere(address: str) -> socket.socket:
    try:
        return _bind(address)
    except SettingsError:
        log.info("%s is taken: the page is at another port", address)
        return _bind(f"{address.rpartition(':')[0]}:0")


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError:
        raise SettingsError(
            f"cannot serve the page on {address}: the port is in use or the address is not this "
            "machine's; choose another --http, port 0 takes any free one, off does without"
        ) from None
