"""What Prometheus reads off a device."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hetero_client.device_metrics import DeviceMetrics, exposed
from hetero_common.agreement.control import Evaluation, OperatingPoint, RoundDone
from hetero_common.errors import SettingsError

CURVE = (
    OperatingPoint(-1.0, 0.8, 1.0),
    OperatingPoint(0.15, 0.75, 0.5),
    OperatingPoint(0.55, 0.7, 0.25),
    OperatingPoint(1.0, 0.6, 0.0),
)


def metrics(clock: list[float] | None = None) -> DeviceMetrics:
    ticks = clock or [0.0]
    return DeviceMetrics(
        {"client": "board-1", "cut_layer": "3"},
        lambda: {"bytes_sent": 7, "bytes_received": 5},
        lambda: ticks[0],
    )


def value(of: DeviceMetrics, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(generate_latest(of.registry).decode())
    samples = {(s.name, tuple(s.labels.items())): s.value for f in families for s in f.samples}
    return samples[f"hetero_device_{name}", tuple(labels.items())]


def test_steps_are_timed_within_a_round_and_not_between_two() -> None:
    now = [0.0]
    of = metrics(now)
    for round_, begin in ((0, 0.0), (1, 100.0)):
        for step in range(3):
            now[0] = begin + 0.3 * step
            of.step(round_, step, 3)
    assert value(of, "step_seconds_count") == 4.0
    assert value(of, "step_seconds_sum") == pytest.approx(1.2)
    assert value(of, "round") == 1.0


def test_decisions_and_uncertainties_are_those_of_the_test_images() -> None:
    of = metrics()
    of.evaluated(Evaluation(0, 200, 0.6, 0.8, 0.55, 0.7, 0.25, curve=CURVE))
    assert value(of, "decisions_total", source="server") == 50.0
    assert value(of, "decisions_total", source="exit") == 150.0
    assert value(of, "uncertainty_bucket", le="0.1") == 0.0
    assert value(of, "uncertainty_bucket", le="0.2") == 100.0
    assert value(of, "uncertainty_bucket", le="0.6") == 150.0
    assert value(of, "uncertainty_bucket", le="1.0") == 200.0
    assert value(of, "accuracy_ratio", source="threshold") == 0.7


def test_losses_traffic_and_reconnections() -> None:
    of = metrics()
    of.round_done(RoundDone(0, 1.5, 0.5))
    of.rejoined()
    assert value(of, "exit_loss") == 1.5
    assert value(of, "bytes_total", direction="sent") == 7.0
    assert value(of, "bytes_total", direction="received") == 5.0
    assert value(of, "reconnections_total") == 1.0
    assert value(of, "info", client="board-1", cut_layer="3") == 1.0


def test_they_are_served_where_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with exposed(metrics(), "127.0.0.1:0", insecure=False):
        url = caplog.messages[-1].removeprefix("metrics: ")
        with urllib.request.urlopen(url) as answer:
            assert b"hetero_device_round" in answer.read()


def test_others_may_not_look_unless_that_is_spelled_out() -> None:
    with (
        pytest.raises(SettingsError, match="--insecure"),
        exposed(metrics(), "0.0.0.0:0", insecure=False),
    ):
        pass


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(SettingsError, match="another --http"),
            exposed(metrics(), address, insecure=False),
        ):
            pass
