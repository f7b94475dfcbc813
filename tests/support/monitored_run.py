"""Monitors of the engines of `engine_run`."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

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


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(monitor: Monitor) -> Samples:
    """What Prometheus would read, by name and labels."""
    text = generate_latest(monitor.metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(monitor: Monitor, name: str, **labels: str) -> float:
    """One of these."""
    return samples(monitor)[f"hetero_{name}", frozenset(labels.items())]
