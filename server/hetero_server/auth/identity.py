"""Who calls: the identity that a credential proves, whatever the message says."""

from __future__ import annotations

import hashlib
import hmac
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hetero_common.errors import PermissionDenied, SettingsError, Unauthenticated
from hetero_common.wire import rpc

Identify = Callable[[rpc.ServicerContext], str | None]
"""The identity of a call's credential; None where none is asked for.

Raises Unauthenticated where the credential is missing or wrong.
"""

_BEARER = "bearer "
_SHA256_DIGITS = 64


@dataclass(frozen=True)
class Caller:
    """Whoever makes a call.

    Attributes:
        identity: What its credential proves; None on a server that asks for none.
        session: What it claims to have opened.
    """

    identity: str | None = None
    session: str = ""

    @classmethod
    def of(cls, context: rpc.ServicerContext, identify: Identify) -> Caller:
        """Raises Unauthenticated."""
        return cls(identify(context), _metadata(context, rpc.SESSION_KEY))

    def require(self, client_id: str) -> None:
        """Raise PermissionDenied unless it may act as this client."""
        if self.identity not in (None, client_id):
            raise PermissionDenied(client_id, str(self.identity))


def anybody(context: rpc.ServicerContext) -> None:
    """Identify nobody: the rule on a loopback address and with --insecure."""


def certificate_owner(context: rpc.ServicerContext) -> str:
    """The common name of the client certificate, which the handshake has verified."""
    names: list[bytes] = list((context.auth_context() or {}).get("x509_common_name", ()))
    if len(names) != 1 or not names[0]:
        raise Unauthenticated("no client certificate with one common name: make one: hetero-certs")
    return names[0].decode("utf-8", "replace")


class TokenOwners:
    """Bearer tokens and whose they are, read once from a file of `client-id sha256-hex` lines.

    Args:
        file: Holds the lines.
        flag: Names the file, for sentences.

    Raises:
        SettingsError: The file cannot be read, or a line is not of this form.
    """

    def __init__(self, file: Path, flag: str = "--tokens") -> None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise SettingsError(f"{flag} {file} cannot be read: {reason}") from None
        self._digests: list[tuple[str, bytes]] = []
        for number, line in enumerate(lines, start=1):
            owner, _, digest = line.strip().rpartition(" ")
            if not line.strip() or line.startswith("#"):
                continue
            if (
                not owner
                or len(digest) != _SHA256_DIGITS
                or not set(digest) <= set(string.hexdigits)
            ):
                raise SettingsError(f"{flag} {file}, line {number}: write `client-id sha256-hex`")
            self._digests.append((owner.strip(), digest.lower().encode()))
        if not self._digests:
            raise SettingsError(f"{flag} {file} holds no token: nobody could come in")

    def __call__(self, context: rpc.ServicerContext) -> str:
        """The owner of the call's token."""
        text = _metadata(context, rpc.TOKEN_KEY)
        if text[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated("this server asks for a token: give --token or --token-file")
        owner = self.owner(text[len(_BEARER) :])
        if owner is None:
            raise Unauthenticated("this server does not know the token: check --token")
        return owner

    def owner(self, token: str) -> str | None:
        """Return whose token it is; None if it is nobody's."""
        digest = hashlib.sha256(token.encode()).hexdigest().encode()
        # Every line is compared, so that the time taken does not tell which one came close.
        owners = [owner for owner, known in self._digests if hmac.compare_digest(digest, known)]
        return owners[0] if owners else None


def _metadata(context: rpc.ServicerContext, key: str) -> str:
    """The value of a key that comes once; of more, no one can say which is meant."""
    values = [value for name, value in context.invocation_metadata() or () if name == key]
    return str(values[0]) if len(values) == 1 else ""
