"""The gRPC server in front of everything: where it listens, for whom, and how well it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hetero_common.errors import HeteroError, SettingsError
from hetero_common.wire import rpc
from hetero_common.wire.credentials import certificates_for, is_loopback, server_credentials
from hetero_server.auth.identity import Identify, TokenOwners, anybody, certificate_owner
from hetero_server.net.call_guard import Guard
from hetero_server.net.health import Health
from hetero_server.net.limits import OpenCalls
from hetero_server.settings import LimitSettings

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION = reflection.SERVICE_NAME
_SPARE_CALLS = 1000
"""Calls beside those that are counted: health checks, and refusals on their way."""


class Listener:
    """A gRPC server that answers health checks at once, and calls when there is a servicer.

    Attributes:
        port: Where it listens.
        health: At first it says that nothing is served.
    """

    def __init__(self, server: Any, port: int, guard: Guard, health: Health) -> None:
        self.port = port
        self.health = health
        self._server = server
        self._guard = guard

    @classmethod
    async def open(
        cls,
        listen: str,
        *,
        insecure: bool = False,
        certs: Path | None = None,
        tokens: Path | None = None,
        reflect: bool = False,
        limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
        on_refusal: Callable[[HeteroError], None] = lambda error: None,
    ) -> Listener:
        """Listen.

        Args:
            listen: HOST:PORT.
            insecure: Other machines may come in without encryption or authentication.
            certs: Directory of certificates, for TLS.
            tokens: File of the clients' tokens; without it, TLS asks for client certificates.
            reflect: Describe the services to tools such as grpcurl, too.
            limits: Of calls.
            on_refusal: Told every error that a call is refused with.

        Raises:
            SettingsError: The address cannot be listened on, or may not like this.
        """
        certs = certificates_for(listen, certs, insecure=insecure)
        _require_doors(listen, insecure, certs, tokens)
        server = grpc.aio.server(
            options=rpc.SERVER_OPTIONS, maximum_concurrent_rpcs=limits.max_calls + _SPARE_CALLS
        )
        calls = OpenCalls(limits.max_calls, limits.max_calls_per_client)
        guard = Guard(_identify(certs, tokens), calls, on_refusal)
        server.add_generic_rpc_handlers((guard.handler(),))
        health = Health(rpc.SERVICE.full_name)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if reflect:
            names = (rpc.SERVICE.full_name, _HEALTH, _REFLECTION)
            reflection.enable_server_reflection(names, server)
        port = _bind(server, listen, certs, ask_clients=tokens is None)
        await server.start()
        return cls(server, port, guard, health)

    def serve(self, servicer: object) -> None:
        """Pass calls on from now on; see `Guard.servicer`."""
        self._guard.servicer = servicer

    async def close(self, grace: float = 0.0) -> None:
        """Take no more calls, give those that are open so many seconds, and see them end."""
        self.health.close()
        self._guard.close()
        await self._server.stop(grace)
        await self._guard.ended()


def _require_doors(listen: str, insecure: bool, certs: Path | None, tokens: Path | None) -> None:
    if insecure or certs is not None or is_loopback(listen):
        return
    lacking = "with tokens but without encryption" if tokens else "without TLS and authentication"
    raise SettingsError(
        f"--listen {listen} can be reached from other machines, {lacking}: give --certs, which "
        "hetero-certs makes, or spell out --insecure if that network is yours alone"
    )


def _identify(certs: Path | None, tokens: Path | None) -> Identify:
    if tokens is not None:
        return TokenOwners(tokens)
    return anybody if certs is None else certificate_owner


def _bind(server: Any, listen: str, certs: Path | None, *, ask_clients: bool) -> int:
    bound = 0
    credentials = certs and server_credentials(certs, ask_clients=ask_clients)
    with contextlib.suppress(RuntimeError):
        if credentials is None:
            bound = server.add_insecure_port(listen)
        else:
            bound = server.add_secure_port(listen, credentials)
    if bound == 0:
        raise SettingsError(
            f"cannot listen on {listen}: the port is in use or the address is not this machine's; "
            "choose another --listen, port 0 takes any free one"
        )
    return bound
