"""The gRPC server around a servicer: handlers, errors, health, and the address it listens on."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from hetero_common import rpc
from hetero_common.errors import HeteroError, RefusedInput, ServerFault, SettingsError

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION = reflection.SERVICE_NAME

log = logging.getLogger(__name__)


async def start_server(
    servicer: object, listen: str, *, insecure: bool, reflect: bool = False
) -> tuple[Any, int]:
    """Start a server with one method of `servicer` per RPC; returns it and its port.

    With `reflect` it also describes its services to tools such as grpcurl.

    Raises:
        SettingsError: The address can not be listened on, or may not without `insecure`.
    """
    host = listen.rpartition(":")[0]
    if not insecure and not _is_loopback(host):
        raise SettingsError(
            f"--listen {listen} can be reached from other machines, without encryption or "
            "authentication: spell out --insecure if that network is yours alone"
        )
    server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(servicer),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if reflect:
        reflection.enable_server_reflection((rpc.SERVICE.full_name, _HEALTH, _REFLECTION), server)
    try:
        bound = server.add_insecure_port(listen)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise SettingsError(
            f"can not listen on {listen}: the port is in use or the address is not this machine's; "
            "choose another --listen, port 0 takes any free one"
        )
    await server.start()
    for service in ("", rpc.SERVICE.full_name):
        await health.set(service, health_pb2.HealthCheckResponse.SERVING)
    return server, bound


def _is_loopback(host: str) -> bool:
    bare = host.strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(bare).is_loopback
    return bare == "localhost"


def _handlers(servicer: object) -> grpc.GenericRpcHandler:
    handlers = {
        method.name: rpc.handler(method, _guarded(method, getattr(servicer, method.name)))
        for method in rpc.SERVICE.methods
    }
    return grpc.method_handlers_generic_handler(rpc.SERVICE.full_name, handlers)


def _guarded(method: MethodDescriptor, behavior: Callable[..., Any]) -> Callable[..., Any]:
    """The behavior with its errors turned into statuses: nothing else leaves the process."""
    if method.server_streaming:

        async def stream(request: object, context: rpc.ServicerContext) -> AsyncIterator[object]:
            async with (
                _translated(context),
                contextlib.aclosing(behavior(_read(method, request), context)) as answers,
            ):
                async for answer in answers:
                    yield answer

        return stream

    async def call(request: object, context: rpc.ServicerContext) -> object:
        async with _translated(context):
            answer: Awaitable[object] = behavior(_read(method, request), context)
            return await answer
        raise AssertionError("an aborted call does not return")

    return call


def _read(method: MethodDescriptor, request: object) -> object:
    """Unary requests arrive as bytes, so that an unreadable one is refused like any other."""
    if not isinstance(request, bytes):
        return request
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
