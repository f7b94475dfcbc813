"""The way to a server: all gRPC of the client.

Calls, the training stream, what has arrived on it, when to try again. The rest of the client knows
the protocol `Link` alone, so that a link in memory or through a gateway can take its place.
"""

from __future__ import annotations

from hetero_client.link.inbox import Condition, Inbox, Outgoing
from hetero_client.link.protocol import Link, Registration

__all__ = [
    "Condition",
    "Inbox",
    "Link",
    "Outgoing",
    "Registration",
]
