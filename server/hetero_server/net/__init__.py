"""The server on the network: all of its gRPC.

Where it listens, what each call passes, a method per RPC, sessions, bulk bytes in bounded time and
memory, limits, heartbeats, health. It decodes, calls `hetero_server.run`, and encodes.
"""

from __future__ import annotations

from hetero_server.net.listener import Listener
from hetero_server.net.predictions import PredictionService
from hetero_server.net.service import HeteroSplitService

__all__ = ["HeteroSplitService", "Listener", "PredictionService"]
