"""Who calls.

The identity that a credential proves, and hetero-certs, which makes certificates and tokens. The
network and the page ask it; it knows nothing of a run.
"""

from __future__ import annotations

from hetero_server.auth.identity import Caller, Identify, TokenOwners, anybody, certificate_owner

__all__ = [
    "Caller",
    "Identify",
    "TokenOwners",
    "anybody",
    "certificate_owner",
]
