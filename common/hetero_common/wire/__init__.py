"""gRPC as both sides use it.

Messages and the values they carry, bulk bytes in frames, errors as status codes, certificates. With
`hetero_server.net` and `hetero_client.link` this is all that knows a network.
"""

from __future__ import annotations

from hetero_common.wire.credentials import (
    CA_FILE,
    certificates_for,
    channel_credentials,
    is_loopback,
    read_certificates,
    server_credentials,
)
from hetero_common.wire.frames import Assembler, Frame
from hetero_common.wire.messages import Announced, TensorSchema

__all__ = [
    "CA_FILE",
    "Announced",
    "Assembler",
    "Frame",
    "TensorSchema",
    "certificates_for",
    "channel_credentials",
    "is_loopback",
    "read_certificates",
    "server_credentials",
]
