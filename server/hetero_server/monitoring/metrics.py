"""Counters and durations of a server, for Prometheus.

What can be read off a run at any time is `readings.py`'s. Names follow
https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.registry import Collector

from hetero_common.errors import HeteroError, ServerFault
from hetero_common.records.events import CheckpointWritten, Event, Left, Released, RoundClosed
from hetero_server.run.work import BoundaryWork, Outcome, SaveWork, StepWork, Work

disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated

_STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROUND_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800, 3600, 14400)


class Metrics:
    """What a server counts, in a registry of its own.

    Args:
        clock: Tells seconds.

    Attributes:
        registry: Everything that is exposed.
        answered: Images that the server has answered, at all cut layers together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU time and files of this process
        self.answered = 0
        self._clock = clock
        self._closed_at: float | None = None
        self._batches = self._counter(
            "batches", "Mini-batches that the server's layers were trained on.", "cut_layer"
        )
        self._samples = self._counter(
            "samples", "Images that the server's layers were trained on.", "cut_layer"
        )
        self._predictions = self._counter(
            "predictions", "Images that the server was asked for its answer on.", "cut_layer"
        )
        self._bytes = self._counter(
            "transferred_bytes",
            "Payload on the wire, without headers and frames, seen from the server.",
            *("direction", "content", "dtype"),
        )
        self._refusals = self._counter(
            "refusals", "Calls that were refused, by the kind of error.", "reason"
        )
        self._evictions = self._counter(
            "evictions", "Clients that were sent away, by the kind of error.", "reason"
        )
        self._disconnections = self._counter(
            "disconnections", "Clients that lost their connection, and may come back."
        )
        self._releases = self._counter("releases", "Clients that a round went on without.")
        self._outliers = self._counter(
            "outlier_steps", "Steps that were far beyond those of the other clients."
        )
        self._checkpoints = self._counter(
            "checkpoints", "Checkpoints that were tried, by outcome: written or failed.", "outcome"
        )
        self._step_seconds = self._histogram(
            "step_seconds", "Computing one step of the server's layers.", _STEP_BUCKETS
        )
        self._aggregation_seconds = self._histogram(
            "aggregation_seconds", "Computing the averages at the end of a round.", _STEP_BUCKETS
        )
        self._checkpoint_seconds = self._histogram(
            "checkpoint_seconds", "Writing a checkpoint.", _STEP_BUCKETS
        )
        self._round_seconds = self._histogram(
            "round_seconds",
            "From the end of a round to that of the next one, with what lies between.",
            _ROUND_BUCKETS,
        )

    def expose(self, collector: Collector) -> None:
        """Expose what this collector reads, too."""
        self.registry.register(collector)

    def performed(self, work: Work, outcome: Outcome, seconds: float) -> None:
        """A piece of computing is done, and took so long."""
        match work, outcome:
            case StepWork(parts), list() as results:
                self._step_seconds.observe(seconds)
                for part, result in zip(parts, results, strict=True):
                    if not isinstance(result, HeteroError):
                        self._batches.labels(part.cut_layer).inc()
                        self._samples.labels(part.cut_layer).inc(part.batch.rows)
                        if result.feedback is not None:
                            back = result.feedback
                            self.sent("feedback", back.wire_dtype, back.data.nbytes)
            case BoundaryWork(), _:
                self._aggregation_seconds.observe(seconds)
                self._note_closing()
            case SaveWork(), _:
                self._checkpoint_seconds.observe(seconds)

    def received(self, content: str, dtype: str, size: int) -> None:
        """So many bytes of payload came in."""
        self._bytes.labels("received", content, dtype).inc(size)

    def sent(self, content: str, dtype: str, size: int) -> None:
        """So many bytes of payload went out."""
        self._bytes.labels("sent", content, dtype).inc(size)

    def predicted(self, cut_layer: int, rows: int) -> None:
        """So many images were answered."""
        self.answered += rows
        self._predictions.labels(cut_layer).inc(rows)

    def refused(self, error: HeteroError) -> None:
        """A call was refused."""
        self._refusals.labels(type(error).__name__).inc()

    def observe(self, event: Event) -> None:
        """An event of the run."""
        match event:
            case Left(state="EVICTED", reason=reason):
                self._evictions.labels(reason or ServerFault.__name__).inc()
            case Left(state="STALE"):
                self._disconnections.inc()
            case Released():
                self._releases.inc()
            case RoundClosed(outliers=outliers):
                self._outliers.inc(outliers)
            case CheckpointWritten(failed=failed):
                self._checkpoints.labels("failed" if failed else "written").inc()

    def _note_closing(self) -> None:
        now = self._clock()
        if self._closed_at is not None:
            self._round_seconds.observe(now - self._closed_at)
        self._closed_at = now

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"hetero_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"hetero_{name}", text, registry=self.registry, buckets=buckets)
