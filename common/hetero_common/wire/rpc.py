"""How both sides use gRPC: channel options, errors as status codes, streams without copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from hetero_common import errors
from hetero_common.wire import frames
from hetero_splitee.v1 import service_pb2

ServicerContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SERVICE = service_pb2.DESCRIPTOR.services_by_name["HeteroSplit"]
SESSION_KEY = "hetero-session"
"""Metadata key of the session token that Register hands out."""
ERROR_KEY = "hetero-error"
"""Trailing metadata key that names the error class."""
TOKEN_KEY = "authorization"
"""Metadata key of a client's token, as `Bearer TOKEN`."""

STATUS: dict[type[errors.HeteroError], grpc.StatusCode] = {
    errors.SettingsError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CutLayerOutOfRange: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RefusedInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NonFinite: grpc.StatusCode.INVALID_ARGUMENT,
    errors.StepGap: grpc.StatusCode.OUT_OF_RANGE,
    errors.Mismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VersionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownSession: grpc.StatusCode.ABORTED,
    errors.Superseded: grpc.StatusCode.ABORTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Quarantined: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotTraining: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ServerUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.ServerFault: grpc.StatusCode.INTERNAL,
}
"""Both directions of the table; tests hold it against the whole tree of errors."""

_BY_NAME = {error.__name__: error for error in STATUS}

_KEEPALIVE_MS = 30_000

CLIENT_OPTIONS = [
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel takes the old one's connection
]
SERVER_OPTIONS = [
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The server must permit what the client does, or it closes the connection after two pings
    # with "Too many pings". The C macro's name, min_recv_ping_interval..., is not the option's.
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 3),
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
]


def error_from_status(error: grpc.RpcError) -> errors.HeteroError:
    """The error behind a failed call; a status that no server of ours sent is unreachability."""
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type] # pairs
    name = trailing.get(ERROR_KEY)
    details = error.details() or error.code().name
    if name in _BY_NAME:
        return _BY_NAME[name].from_sentence(details)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return errors.Mismatch("the server does not speak hetero_splitee.v1: check the address")
    return errors.ServerUnreachable(f"the connection to the server failed: {_first_line(details)}")


def path(method: MethodDescriptor) -> str:
    """The HTTP/2 path of a method."""
    return f"/{SERVICE.full_name}/{method.name}"


def request_class(method: MethodDescriptor) -> type[Message]:
    """The message class of a method's requests."""
    return GetMessageClass(method.input_type)


def handler(method: MethodDescriptor, behavior: object) -> Any:
    """A server's handler of one method. Requests are an iterator, of bytes where the call has one.

    With a unary handler, grpc.aio never answers a call that ends before its request.
    """
    answers = "stream" if method.server_streaming else "unary"
    make = getattr(grpc, f"stream_{answers}_rpc_method_handler")
    read = frames.deserializer(request_class(method)) if method.client_streaming else None
    return make(behavior, request_deserializer=read, response_serializer=frames.serialize)


def callable_for(channel: grpc.Channel, name: str) -> Callable[..., Any]:
    """A client's callable of one method that reads and writes `frames`."""
    method = SERVICE.methods_by_name[name]
    response = GetMessageClass(method.output_type)
    read = frames.deserializer(response) if method.server_streaming else response.FromString
    make: Callable[..., Callable[..., Any]] = getattr(channel, _arity(method))
    return make(path(method), request_serializer=frames.serialize, response_deserializer=read)


async def abort(context: ServicerContext, error: errors.HeteroError) -> NoReturn:
    """End a call with an error's status, sentence and class."""
    await context.abort(
        STATUS[type(error)],
        str(error),
        trailing_metadata=((ERROR_KEY, type(error).__name__),),
    )
    raise AssertionError("abort raises")


def _arity(method: MethodDescriptor) -> str:
    kinds = {False: "unary", True: "stream"}
    return f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "no reason given"
