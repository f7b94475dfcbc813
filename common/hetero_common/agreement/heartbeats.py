"""Signs of life on a training stream: how often each side gives one, and when the other is lost."""

from __future__ import annotations

_SILENT_BEATS = 3
"""Heartbeats that may fail to come before a side counts as lost."""


def heartbeat_seconds(stall_timeout: float) -> float:
    """Seconds between two heartbeats, so that a side is lost after `stall_timeout` seconds."""
    return stall_timeout / _SILENT_BEATS


def is_lost(silence: float, heartbeat: float) -> bool:
    """Whether a side that has been silent for so many seconds is lost.

    Args:
        silence: Seconds since anything came from it.
        heartbeat: Seconds between two heartbeats, as the server has told at registration.
    """
    return silence > _SILENT_BEATS * heartbeat
