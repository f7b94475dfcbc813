"""Calls of the service on one channel, and their errors. Nothing above the link knows gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from hetero_client.handshake import refused_handshake
from hetero_common import rpc
from hetero_common.credentials import certificates_for, channel_credentials, is_loopback
from hetero_common.errors import SettingsError, Unauthenticated


class Calls:
    """A channel to one server, and the session that its calls belong to.

    Args:
        address: `host:port`.
        certs: Directory of certificates, for TLS.
        token: Says who this client is.
        insecure: Do without TLS, unless `certs` are given.

    Raises:
        SettingsError: The certificates can not be used, or the token would go out unencrypted.
    """

    def __init__(
        self,
        address: str,
        certs: Path | None = None,
        token: str | None = None,
        *,
        insecure: bool = False,
    ) -> None:
        certs = certificates_for(address, certs, insecure=insecure)
        self._is_encrypted = certs is not None
        if certs is not None:
            credentials = channel_credentials(certs, anonymous=token is not None)
            self._channel = grpc.secure_channel(address, credentials, options=rpc.CLIENT_OPTIONS)
        elif token is not None and not is_loopback(address):
            raise SettingsError(
                "a token does not go out unencrypted: give --certs, a directory with the server's "
                "ca.pem"
            )
        else:
            self._channel = grpc.insecure_channel(address, options=rpc.CLIENT_OPTIONS)
        self._own = [(rpc.TOKEN_KEY, f"Bearer {token}")] if token is not None else []
        self._metadata = self._own

    def enter_session(self, session: str) -> None:
        """Later calls carry this token."""
        self._metadata = [*self._own, (rpc.SESSION_KEY, session)]

    def unary(self, name: str, request: object, timeout: float | None) -> Any:
        """Call and wait for the answer.

        Raises:
            HeteroError: What the server says, or that it does not answer.
        """
        with self.translated():
            return self._method(name)(request, metadata=self._metadata, timeout=timeout)

    def stream(self, name: str, request: object, **options: Any) -> Any:
        """Call; the answers come by iterating, within `translated`."""
        return self._method(name)(request, metadata=self._metadata, **options)

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """Turn gRPC's errors on this channel into ours."""
        return translated(is_encrypted=self._is_encrypted)

    def close(self) -> None:
        """End everything that is open."""
        self._channel.close()

    def _method(self, name: str) -> Callable[..., Any]:
        return rpc.callable_for(self._channel, name)


@contextlib.contextmanager
def translated(*, is_encrypted: bool = False) -> Iterator[None]:
    """Turn gRPC's errors into ours; a refused TLS handshake is no lost connection.

    Args:
        is_encrypted: The channel has TLS. On an open stream it does not matter.
    """
    try:
        yield
    except grpc.RpcError as error:
        if is_encrypted and error.code() is grpc.StatusCode.UNAVAILABLE:
            reason = refused_handshake(error.details() or "")
            if reason is not None:
                raise Unauthenticated(reason) from error
        raise rpc.error_from_status(error) from error
