"""What every call passes on its way to a servicer, and every error on its way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError

from hetero_common.errors import (
    HeteroError,
    NotTraining,
    RefusedInput,
    ServerFault,
    ServerUnreachable,
)
from hetero_common.wire import rpc
from hetero_server.auth.identity import Caller, Identify
from hetero_server.net.limits import OpenCalls

Requests: TypeAlias = AsyncIterator[Any]

log = logging.getLogger(__name__)


class Guard:
    """Lets known callers in, so many at a time, and turns errors into statuses.

    Args:
        identify: Tells who calls.
        open_calls: Counts the calls.
        on_refusal: Told every error that a call is refused with.

    Attributes:
        servicer: Has a method of a request and a `Caller` for each RPC, or for those that a server
            which only serves has; None while it is loading.
    """

    def __init__(
        self,
        identify: Identify,
        open_calls: OpenCalls,
        on_refusal: Callable[[HeteroError], None] = lambda error: None,
    ) -> None:
        self.servicer: object | None = None
        self._identify = identify
        self._open_calls = open_calls
        self._on_refusal = on_refusal
        self._in_hand: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what gRPC needs to pass on all RPCs."""
        handlers = {m.name: rpc.handler(m, self._behavior(m)) for m in rpc.SERVICE.methods}
        return grpc.method_handlers_generic_handler(rpc.SERVICE.full_name, handlers)

    def close(self) -> None:
        """The gRPC server is about to stop."""
        self._is_closing = True

    async def ended(self) -> None:
        """All calls in hand have ended; a stopped gRPC server has only told them to."""
        if self._in_hand:
            await asyncio.wait(self._in_hand)

    def _behavior(self, method: MethodDescriptor) -> Callable[..., Any]:
        async def stream(requests: Requests, context: rpc.ServicerContext) -> AsyncIterator[object]:
            async with self._passed(context) as caller:
                answers = self._serve(method, await _read(method, requests), caller)
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        yield answer

        async def call(requests: Requests, context: rpc.ServicerContext) -> object:
            async with self._passed(context) as caller:
                given = await _read(method, requests)
                answer: Awaitable[object] = self._serve(method, given, caller)
                return await answer
            raise AssertionError("an aborted call does not return")

        return stream if method.server_streaming else call

    def _serve(self, method: MethodDescriptor, given: object, caller: Caller) -> Any:
        if self.servicer is None:
            raise ServerUnreachable("the server is still loading its model: try again")
        serve = getattr(self.servicer, method.name, None)
        if serve is None:
            raise NotTraining
        return serve(given, caller)

    @contextlib.asynccontextmanager
    async def _passed(self, context: rpc.ServicerContext) -> AsyncIterator[Caller]:
        """Identify the caller, count the call while the block runs, let only our errors out."""
        task = asyncio.current_task()
        assert task is not None, "gRPC gives each call a task"
        self._in_hand.add(task)
        task.add_done_callback(self._in_hand.discard)
        try:
            caller = Caller.of(context, self._identify)
            with self._open_calls.one_of(caller.identity or caller.session or context.peer()):
                yield caller
        except HeteroError as error:
            log.warning("refused a call: %s", error)
            self._on_refusal(error)
            await rpc.abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if self._is_closing and isinstance(error, grpc.aio.BaseError):
                raise  # gRPC's own word for a call that is over when the server is
            fault_id = secrets.token_hex(4)
            log.exception("fault %s", fault_id)
            fault = ServerFault(fault_id)
            self._on_refusal(fault)
            await rpc.abort(context, fault)


async def _read(method: MethodDescriptor, requests: Requests) -> object:
    """Return what a method takes: all requests, or the only one.

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
