"""The gRPC server around a servicer: handlers, callers, errors, health, and where it listens."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from hetero_common import rpc
from hetero_common.credentials import certificates_for, is_loopback, server_credentials
from hetero_common.errors import HeteroError, RefusedInput, ServerFault, SettingsError
from hetero_server.access import Caller, Identify, TokenOwners, anybody, certificate_owner

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION = reflection.SERVICE_NAME

Requests: TypeAlias = AsyncIterator[Any]

log = logging.getLogger(__name__)


async def start_server(
    servicer: object,
    listen: str,
    *,
    insecure: bool,
    certs: Path | None = None,
    tokens: Path | None = None,
    reflect: bool = False,
) -> tuple[Any, int]:
    """Start a server with one method of `servicer` per RPC; returns it and its port.

    Args:
        servicer: Its methods take a request and a `Caller`.
        listen: HOST:PORT.
        insecure: Other machines may come in without encryption or authentication.
        certs: Directory of certificates, for TLS.
        tokens: File of the clients' tokens; without it, TLS asks for client certificates.
        reflect: Describe the services to tools such as grpcurl, too.

    Raises:
        SettingsError: The address can not be listened on, or may not like this.
    """
    certs = certificates_for(listen, certs, insecure=insecure)
    _require_doors(listen, insecure, certs, tokens)
    server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(servicer, _identify(certs, tokens)),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if reflect:
        reflection.enable_server_reflection((rpc.SERVICE.full_name, _HEALTH, _REFLECTION), server)
    bound = _bind(server, listen, certs, ask_clients=tokens is None)
    await server.start()
    for service in ("", rpc.SERVICE.full_name):
        await health.set(service, health_pb2.HealthCheckResponse.SERVING)
    return server, bound


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
            f"can not listen on {listen}: the port is in use or the address is not this machine's; "
            "choose another --listen, port 0 takes any free one"
        )
    return bound


def _handlers(servicer: object, identify: Identify) -> grpc.GenericRpcHandler:
    handlers = {
        method.name: rpc.handler(method, _guarded(method, getattr(servicer, method.name), identify))
        for method in rpc.SERVICE.methods
    }
    return grpc.method_handlers_generic_handler(rpc.SERVICE.full_name, handlers)


def _guarded(
    method: MethodDescriptor, behavior: Callable[..., Any], identify: Identify
) -> Callable[..., Any]:
    """The behavior for known callers only, with its errors turned into statuses.

    Every call comes in here, and nothing else leaves the process.
    """
    if method.server_streaming:

        async def stream(requests: Requests, context: rpc.ServicerContext) -> AsyncIterator[object]:
            async with _translated(context):
                caller = Caller.of(context, identify)
                given = await _read(method, requests)
                async with contextlib.aclosing(behavior(given, caller)) as answers:
                    async for answer in answers:
                        yield answer

        return stream

    async def call(requests: Requests, context: rpc.ServicerContext) -> object:
        async with _translated(context):
            caller = Caller.of(context, identify)
            answer: Awaitable[object] = behavior(await _read(method, requests), caller)
            return await answer
        raise AssertionError("an aborted call does not return")

    return call


async def _read(method: MethodDescriptor, requests: Requests) -> object:
    """What a behavior takes: all requests, or the only one.

    That arrives as bytes, so that an unreadable one is refused like any other.
    """
    if method.client_streaming:
        return requests
    request = await anext(requests, None)
    if request is None:
        raise RefusedInput("a call came without its message")
    try:
        return rpc.request_class(method).FromString(request)
    except DecodeError:
        raise RefusedInput("a message could not be read") from None


@contextlib.asynccontextmanager
async def _translated(context: rpc.ServicerContext) -> AsyncIterator[None]:
    try:
        yield
    except HeteroError as error:
        log.warning("refused a call: %s", error)
        await rpc.abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception:
        fault_id = secrets.token_hex(4)
        log.exception("fault %s", fault_id)
        await rpc.abort(context, ServerFault(fault_id))
