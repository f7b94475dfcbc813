from __future__ import annotations

import asyncio
from typing import Any, NoReturn, cast

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from hetero_common.errors import (
    HeteroError,
    Mismatch,
    ServerUnreachable,
    StepGap,
)
from hetero_common.wire import rpc
from support.error_tree import EVERY_ERROR


class FailedCall(grpc.RpcError):
    """What a stub raises."""

    def __init__(
        self, code: grpc.StatusCode, details: str | None, trailing: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


class Aborting:
    """A servicer context whose abort raises what the client would see."""

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str], ...]
    ) -> NoReturn:
        raise FailedCall(code, details, trailing_metadata)


def over_the_wire(error: HeteroError) -> tuple[FailedCall, HeteroError]:
    with pytest.raises(FailedCall) as caught:
        asyncio.run(rpc.abort(cast(Any, Aborting()), error))
    return caught.value, rpc.error_from_status(caught.value)


def test_every_error_has_a_status() -> None:
    assert set(rpc.STATUS) == set(EVERY_ERROR)


def test_names_that_cross_the_wire_are_unambiguous() -> None:
    assert len({error.__name__ for error in EVERY_ERROR}) == len(EVERY_ERROR)


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_crosses_the_wire_as_itself(error: type[HeteroError]) -> None:
    sentence = "the größe is wrong: do something"
    call, rebuilt = over_the_wire(error.from_sentence(sentence))
    assert call.code() is rpc.STATUS[error]
    assert type(rebuilt) is error
    assert str(rebuilt) == sentence


def test_a_status_that_no_server_of_ours_sent_is_unreachability() -> None:
    failures = [
        (FailedCall(grpc.StatusCode.UNAVAILABLE, "refused\ntraceback"), "refused"),
        (FailedCall(grpc.StatusCode.DEADLINE_EXCEEDED, None), "DEADLINE_EXCEEDED"),
        (FailedCall(grpc.StatusCode.INTERNAL, ""), "INTERNAL"),
        (FailedCall(grpc.StatusCode.INTERNAL, "x", ((rpc.ERROR_KEY, "KeyError"),)), "x"),
        (FailedCall(grpc.StatusCode.INTERNAL, "x", ((rpc.ERROR_KEY, "HeteroError"),)), "x"),
    ]
    for failure, reason in failures:
        error = rpc.error_from_status(failure)
        assert type(error) is ServerUnreachable
        assert str(error) == f"the connection to the server failed: {reason}"


def test_a_server_of_another_kind_is_a_mismatch() -> None:
    error = rpc.error_from_status(FailedCall(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
    assert type(error) is Mismatch
    assert str(error) == "the server does not speak hetero_splitee.v1: check the address"


def test_an_error_crosses_with_the_sentence_that_its_data_make() -> None:
    rebuilt = over_the_wire(StepGap(2, 5, 3))[1]
    assert type(rebuilt) is StepGap
    assert str(rebuilt) == "step 5 of round 2 leaves a gap: step 3 is expected next"


def test_the_server_permits_the_pings_that_clients_send() -> None:
    client, server = dict(rpc.CLIENT_OPTIONS), dict(rpc.SERVER_OPTIONS)
    fastest = client["grpc.keepalive_time_ms"]
    assert server["grpc.http2.min_ping_interval_without_data_ms"] < fastest


@pytest.mark.parametrize("method", list(rpc.SERVICE.methods), ids=lambda method: str(method.name))
def test_every_method_is_read_and_written_by_its_own_messages(method: MethodDescriptor) -> None:
    """A request goes through a client's serializer and a server's deserializer."""
    made: dict[str, Any] = {}
    callable_: object = object()

    class Channel:
        def __getattr__(self, arity: str) -> Any:
            def make(path: str, **serializers: Any) -> object:
                made.update(arity=arity, path=path, **serializers)
                return callable_

            return make

    assert rpc.callable_for(cast(grpc.Channel, Channel()), method.name) is callable_
    handler = rpc.handler(method, lambda request, context: None)
    assert made["path"] == f"/hetero_splitee.v1.HeteroSplit/{method.name}"
    streams = (method.client_streaming, method.server_streaming)
    assert made["arity"] == "_".join("stream" if each else "unary" for each in streams)
    # A server takes requests as an iterator even where there is one only.
    assert (handler.request_streaming, handler.response_streaming) == (True, streams[1])
    sent = made["request_serializer"](rpc.request_class(method)())
    if handler.request_deserializer is not None:
        assert handler.request_deserializer(sent).message == rpc.request_class(method)()
    else:
        assert sent == b""
