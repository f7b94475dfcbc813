"""Monitors of engines that tests play."""

from __future__ import annotations

from hetero_server.monitoring.monitor import Monitor
from support.engine_run import Run
from support.events import an_event


def watched(run: Run, series: int = 50) -> Monitor:
    """A monitor that was told everything that has happened so far."""
    monitor = Monitor(series)
    monitor.watch(run.engine, "run-1", "mixed")
    for kind, fields in run.events:
        monitor.observe(an_event(kind, **fields))
    return monitor
