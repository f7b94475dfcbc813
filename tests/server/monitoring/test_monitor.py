from __future__ import annotations

import logging
from typing import Any

import pytest

from hetero_common.records.history import Recorded
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.monitoring.monitor import Monitor
from hetero_server.run.work import BoundaryWork
from support.engine_run import Run, an_evaluation
from support.events import an_event
from support.monitored_run import value, watched


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def monitor_of(run: Run, clock: Clock) -> Monitor:
    monitor = Monitor(clock=clock)
    monitor.watch(run.engine, "run-1", "mixed")
    return monitor


def round_event(round_: int, **changes: Any) -> dict[str, Any]:
    fields = {"client": "a", "round": round_, "cut_layer": 1, "samples": 40, "outliers": 0}
    return fields | {"exit_loss": 2.0, "server_loss": 1.0} | changes


def test_before_there_is_a_run_there_is_no_status() -> None:
    assert Monitor().status() is None


def test_an_event_reaches_the_chronicle_and_the_counters() -> None:
    monitor = Monitor()
    monitor.observe(an_event("round", **round_event(0, outliers=3)))
    assert value(monitor, "outlier_steps_total") == 3.0
    assert monitor.chronicle.rounds["a"].outliers == 3


def test_a_status_has_the_clients_by_cut_layer_and_id() -> None:
    run, clock = Run(clients=4), Clock()
    for client_id, cut in (("c", 1), ("b", 2), ("a", 2)):
        run.join(client_id, cut)
    run.member("b").heard_at = 990.0
    status = monitor_of(run, clock).status()
    assert status is not None
    assert (status.run_id, status.strategy, status.model) == ("run-1", "mixed", "tinycnn")
    assert (status.phase, status.round, status.rounds) == ("WAITING", 0, 3)
    assert [member.client_id for member in status.members] == ["c", "a", "b"]
    assert [member.silent_seconds for member in status.members] == [None, None, 10.0]


def test_what_is_queued_and_was_received_is_counted() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.send("a", 0, 1)
    status = watched(run).status()
    assert status is not None
    a, b = status.members
    assert (a.queued, b.queued) == (2, 0)
    assert (a.bytes_received > 0, b.bytes_received) == (True, 0)
    assert a.state == "TRAINING"


def test_accuracies_are_those_of_the_last_evaluation() -> None:
    run = Run(rounds=2, eval_every=1)
    run.join("a")
    before = watched(run).status()
    assert before is not None and before.members[0].exit_accuracy is None
    run.round("a")
    status = watched(run).status()
    assert status is not None
    expected = an_evaluation(0)
    (member,) = status.members
    assert (member.exit_accuracy, member.server_accuracy) == (
        expected.exit_accuracy,
        expected.server_accuracy,
    )
    assert (member.threshold_accuracy, member.offload_share) == (
        expected.threshold_accuracy,
        expected.offload_share,
    )


def test_the_time_left_and_since_the_last_checkpoint_are_told() -> None:
    run, clock = Run(), Clock()
    run.join("a")
    monitor = monitor_of(run, clock)
    for round_ in range(2):
        clock.now += 20.0
        monitor.observe(an_event("round", **round_event(round_)))
    monitor.observe(an_event("checkpoint", round=1, failed=None))
    clock.now += 5.0
    status = monitor.status()
    assert status is not None
    assert (status.seconds_left, status.saved_seconds) == (15.0, 5.0)


def test_while_it_waits_nobody_knows_how_long_it_takes() -> None:
    run, clock = Run(clients=2), Clock()
    monitor = monitor_of(run, clock)
    for round_ in range(2):
        clock.now += 20.0
        monitor.observe(an_event("round", **round_event(round_)))
    status = monitor.status()
    assert status is not None and status.seconds_left is None


def test_a_resumed_run_shows_what_it_recorded_before() -> None:
    monitor = Monitor()
    monitor.replay([Recorded(900.0, an_event("round", **round_event(0)))])
    assert monitor.chronicle.rounds["a"].exit_loss == 2.0


def test_a_round_that_has_closed_is_logged_with_its_losses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    run, clock = Run(rounds=3), Clock()
    monitor = monitor_of(run, clock)
    for round_ in range(3):
        clock.now += 20.0
        monitor.observe(an_event("round", **round_event(round_)))
        monitor.performed(BoundaryWork(round_, [], SharedWeights()), None, 0.1)
    lines = [r for r in caplog.records if r.name == "hetero_server.monitoring.monitor"]
    assert [record.getMessage() for record in lines] == [
        "exit loss 2.000, server loss 1.000",
        "exit loss 2.000, server loss 1.000, 20 s left",
        "exit loss 2.000, server loss 1.000, 0 s left",
    ]
    assert [record.levelname for record in lines] == ["DEBUG", "DEBUG", "INFO"]
