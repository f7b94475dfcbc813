"""Monitors of the engines of `engine_run`."""

from __future__ import annotations

from hetero_server.monitoring.monitor import Monitor
from support.engine_run import Run


def watched(run: Run, series: int = 50) -> Monitor:
    """A monitor that was told everything that has happened so far."""
    monitor = Monitor(series)
    monitor.watch(run.engine, "run-1", "mixed")
    for event, fields in run.events:
        monitor.observe(event, **fields)
    return monitor
