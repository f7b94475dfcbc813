"""Calls of the service to one server, and their errors. Nothing above the link knows gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from hetero_client.link.handshake import refused_handshake
from hetero_common.errors import ServerUnreachable, SettingsError, Unauthenticated
from hetero_common.wire import rpc
from hetero_common.wire.credentials import certificates_for, channel_credentials, is_loopback


class Calls:
    """A connection to one server, and the session that its calls belong to.

    Args:
        address: `host:port`.
        certs: Directory of certificates, for TLS.
        token: Says who this client is.
        insecure: Do without TLS, unless `certs` are given.

    Raises:
        SettingsError: The certificates cannot be used, or the token would go out unencrypted.
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
        self._address = address
        self._credentials: grpc.ChannelCredentials | None = None
        if certs is not None:
            self._credentials = channel_credentials(certs, anonymous=token is not None)
        elif token is not None and not is_loopback(address):
            raise SettingsError(
                "a token does not go out unencrypted: give --certs, a directory with the server's "
                "ca.pem"
            )
        self._channel = self._dial()
        self._own = [(rpc.TOKEN_KEY, f"Bearer {token}")] if token is not None else []
        self._metadata = self._own
        self._open: set[Any] = set()
        self._is_given_up = False

    def enter_session(self, session: str) -> None:
        """Later calls carry this token."""
        self._metadata = [*self._own, (rpc.SESSION_KEY, session)]

    def unary(self, name: str, request: object, timeout: float | None) -> Any:
        """Call and wait for the answer.

        Raises:
            HeteroError: What the server says, or that it does not answer.
        """
        with self.translated():
            call = self._method(name).future(request, metadata=self._metadata, timeout=timeout)
            return self._opened(call).result()

    def stream(self, name: str, request: object, **options: Any) -> Any:
        """Call; the answers come by iterating, within `translated`."""
        return self._opened(self._method(name)(request, metadata=self._metadata, **options))

    def give_up(self) -> None:
        """The connection is dead, closed or not: end all calls, and later ones until `redial`."""
        self._is_given_up = True
        for call in list(self._open):
            call.cancel()

    def redial(self) -> None:
        """Open another connection. The old one may be dead without being closed."""
        self._channel.close()
        self._channel = self._dial()
        self._is_given_up = False

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """Turn gRPC's errors on this channel into ours."""
        return translated(is_encrypted=self._credentials is not None)

    def close(self) -> None:
        """End everything that is open."""
        self._channel.close()

    def _dial(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self._address, options=rpc.CLIENT_OPTIONS)
        return grpc.secure_channel(self._address, self._credentials, options=rpc.CLIENT_OPTIONS)

    def _opened(self, call: Any) -> Any:
        self._open.add(call)
        call.add_done_callback(self._open.discard)
        if self._is_given_up:
            call.cancel()
        return call

    def _method(self, name: str) -> Any:
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
    except grpc.FutureCancelledError as error:
        raise ServerUnreachable("the connection was given up") from error
