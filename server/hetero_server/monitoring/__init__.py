"""The server as others see it: its page, its metrics, the status of a run.

It is told what happens, and reads the rest off the run whenever somebody asks. It changes nothing.
"""

from __future__ import annotations

from hetero_server.monitoring.monitor import Monitor
from hetero_server.monitoring.serving import page

__all__ = [
    "Monitor",
    "page",
]
