"""Why a TLS handshake failed, read from what gRPC says of it: which side, and which file."""

from __future__ import annotations

_CONNECTING = "failed to connect"
_OTHER_HOST = (
    "the server's server.pem does not name the host of --server: "
    "make it again with hetero-certs --server HOST"
)
_REASONS = (
    (
        "WRONG_VERSION_NUMBER",
        "the server does not speak TLS: start it with --certs, or this client with --insecure and "
        "without --certs",
    ),
    ("Hostname Verification Check failed", _OTHER_HOST),
    ("is not in peer certificate", _OTHER_HOST),  # so said grpcio 1.76
    (
        "certificate has expired",
        "the server's server.pem, or its ca.pem, has expired: renew it with hetero-certs",
    ),
    (
        "certificate is not yet valid",
        "the server's server.pem is not valid yet: check the clocks of both machines",
    ),
    (
        "SSL_ERROR_SSL",
        "the server's server.pem does not come from the authority in this client's ca.pem: "
        "copy ca.pem from the place where server.pem was made",
    ),
)
"""What OpenSSL or gRPC says, and what to do; the first that fits."""
_TURNED_AWAY = (
    "the server refused this client's certificate: check that client.pem is there, has not "
    "expired, and comes from the authority in the server's ca.pem"
)


def refused_handshake(details: str) -> str | None:
    """Say what to check after a failed TLS handshake; None if something else failed.

    A server of ours ends a handshake without a word where it does not accept the client's
    certificate. By then the client's own part is done (TLS 1.3), so gRPC sees a connection that
    closes before anything is said on it. A server that dies, or a port forwarder without one behind
    it, closes within the handshake.
    """
    if _CONNECTING not in details:
        return None
    for sign, sentence in _REASONS:
        if sign in details:
            return sentence
    closed = "Socket closed" in details and "Handshake" not in details
    return _TURNED_AWAY if closed else None
