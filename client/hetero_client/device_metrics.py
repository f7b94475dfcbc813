"""A device's metrics for Prometheus, where it is asked to expose them (--http)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from hetero_client.progress import Watcher
from hetero_common.agreement.control import Evaluation, RoundDone
from hetero_common.errors import SettingsError
from hetero_common.wire.credentials import is_loopback

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated

_STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
_UNCERTAINTY_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


class DeviceMetrics(Watcher):
    """Follows a client's training.

    Args:
        about: Labels of `hetero_device_info`.
        traffic: Payload so far, as `bytes_sent` and `bytes_received`.
        clock: Tells seconds.

    Attributes:
        registry: Everything that is exposed.
    """

    def __init__(
        self,
        about: Mapping[str, str],
        traffic: Callable[[], Mapping[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Traffic(traffic))
        Info("hetero_device", "What is run.", registry=registry).info(dict(about))
        self._clock = clock
        self._last_step: float | None = None
        self._round = Gauge("hetero_device_round", "The current round.", registry=registry)
        self._steps = Histogram(
            "hetero_device_step_seconds",
            "From one training step to the next within a round, waiting included.",
            registry=registry,
            buckets=_STEP_BUCKETS,
        )
        self._loss = Gauge("hetero_device_exit_loss", "Of the last round.", registry=registry)
        self._accuracies = Gauge(
            "hetero_device_accuracy_ratio",
            "On test images, at the last evaluation.",
            ["source"],
            registry=registry,
        )
        self._decisions = Counter(
            "hetero_device_decisions",
            "Test images that the exit answers at the threshold, and those that the server does.",
            ["source"],
            registry=registry,
        )
        self._uncertainty = Histogram(
            "hetero_device_uncertainty",
            "Of the exit on test images, to within a twentieth of them.",
            registry=registry,
            buckets=_UNCERTAINTY_BUCKETS,
        )
        self._reconnections = Counter(
            "hetero_device_reconnections", "Times that the server was lost.", registry=registry
        )

    def step(self, round_: int, step: int, steps: int) -> None:
        """A mini-batch is trained and sent."""
        now = self._clock()
        if step and self._last_step is not None:
            self._steps.observe(now - self._last_step)
        self._last_step = now
        self._round.set(round_)

    def round_done(self, report: RoundDone) -> None:
        """A round is over."""
        self._loss.set(report.exit_loss)

    def evaluating(self, samples: int) -> None:
        """An evaluation starts."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """An evaluation is done."""
        for source, accuracy in (
            ("exit", evaluation.exit_accuracy),
            ("server", evaluation.server_accuracy),
            ("threshold", evaluation.threshold_accuracy),
        ):
            self._accuracies.labels(source).set(accuracy)
        offloaded = round(evaluation.offload_share * evaluation.samples)
        self._decisions.labels("server").inc(offloaded)
        self._decisions.labels("exit").inc(evaluation.samples - offloaded)
        for below, above in pairwise(evaluation.curve):
            within = below.offload_share - above.offload_share
            for _ in range(round(within * evaluation.samples)):
                self._uncertainty.observe(above.threshold)

    def rejoined(self) -> None:
        """The server was lost, and is found again."""
        self._reconnections.inc()


class _Traffic(Collector):
    def __init__(self, traffic: Callable[[], Mapping[str, int]]) -> None:
        self._traffic = traffic

    def collect(self) -> Iterable[Metric]:
        """Payload by direction."""
        text = "Payload on the wire, without headers and frames."
        family = CounterMetricFamily("hetero_device_bytes", text, labels=["direction"])
        for name, size in self._traffic().items():
            family.add_metric([name.removeprefix("bytes_")], size)
        yield family


@contextlib.contextmanager
def exposed(metrics: DeviceMetrics, http: str, *, insecure: bool) -> Iterator[None]:
    """Serve them at HOST:PORT as long as the block lasts.

    Raises:
        SettingsError: The address cannot be listened on, or others can reach it.
    """
    if not is_loopback(http) and not insecure:
        raise SettingsError(
            f"--http {http} can be reached from other machines: take 127.0.0.1, or spell out "
            "--insecure if that network is yours alone"
        )
    host, _, port = http.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), metrics.registry)
    except OSError:
        raise SettingsError(
            f"cannot serve metrics on {http}: choose another --http; port 0 takes any free one"
        ) from None
    log.info("metrics: http://%s:%d/metrics", host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
