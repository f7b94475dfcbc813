"""Calls of the service on one channel, and their errors. Nothing above the link knows gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from hetero_common import rpc


class Calls:
    """A channel to one server, and the session that its calls belong to.

    Args:
        address: `host:port`.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=rpc.CLIENT_OPTIONS)
        self._metadata: tuple[tuple[str, str], ...] = ()

    def enter_session(self, session: str) -> None:
        """Later calls carry this token."""
        self._metadata = ((rpc.SESSION_KEY, session),)

    def unary(self, name: str, request: object, timeout: float | None) -> Any:
        """Call and wait for the answer.

        Raises:
            HeteroError: What the server says, or that it does not answer.
        """
        with translated():
            return self._method(name)(request, metadata=self._metadata, timeout=timeout)

    def stream(self, name: str, request: object, **options: Any) -> Any:
        """Call; the answers come by iterating, within `translated`."""
        return self._method(name)(request, metadata=self._metadata, **options)

    def close(self) -> None:
        """End everything that is open."""
        self._channel.close()

    def _method(self, name: str) -> Callable[..., Any]:
        return rpc.callable_for(self._channel, name)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn gRPC's errors into ours."""
    try:
        yield
    except grpc.RpcError as error:
        raise rpc.error_from_status(error) from error
