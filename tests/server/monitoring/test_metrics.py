"""What Prometheus reads off a server, of an engine that trains nothing."""

from __future__ import annotations

import re

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hetero_common.errors import Quarantined, RefusedInput
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.monitoring.metrics import Metrics
from hetero_server.monitoring.monitor import Monitor
from hetero_server.run.member import MemberState
from hetero_server.run.work import BoundaryWork
from support.engine_run import Run, a_batch
from support.events import an_event
from support.monitored_run import samples, value, watched


def test_names_are_as_prometheus_wants_them() -> None:
    run = Run(rounds=2)
    run.join("a")
    run.round("a")
    text = generate_latest(watched(run).metrics.registry).decode()
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"(hetero|process)(_[a-z]+)+", family.name)
        assert family.documentation.endswith((".", "epoch in seconds"))
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")


def test_a_server_without_a_run_yet_has_counters_already() -> None:
    monitor = Monitor()
    monitor.metrics.refused(RefusedInput("no"))
    assert value(monitor, "refusals_total", reason="RefusedInput") == 1.0


def test_steps_and_images_are_counted_by_cut_layer() -> None:
    run = Run(clients=2, rounds=2)
    run.join("a", cut_layer=1)
    run.join("b", cut_layer=2)
    monitor = watched(run)
    run.send("a", 0)
    while (work := run.engine.work()) is not None:
        outcome = run.engine.perform(work)
        monitor.metrics.performed(work, outcome, 0.03)
        run.engine.settle(work, outcome)
    assert value(monitor, "batches_total", cut_layer="1") == 1.0
    assert value(monitor, "samples_total", cut_layer="1") == a_batch(0, 0).rows
    assert value(monitor, "step_seconds_bucket", le="0.05") == 1.0
    assert value(monitor, "step_seconds_bucket", le="0.025") == 0.0


def test_a_round_lasts_from_the_end_of_the_one_before_whoever_is_in_it() -> None:
    now = [0.0]
    monitor = Monitor()
    monitor.metrics = Metrics(lambda: now[0])
    for round_ in range(3):
        now[0] += 20.0
        monitor.performed(BoundaryWork(round_, [], SharedWeights()), None, 0.1)
    assert value(monitor, "round_seconds_count") == 2.0
    assert value(monitor, "round_seconds_sum") == 40.0


def test_outliers_are_counted() -> None:
    monitor = Monitor()
    for client, outliers in (("a", 1), ("b", 2)):
        fields = {"client": client, "cut_layer": 1, "round": 0, "samples": 1}
        monitor.observe(
            an_event("round", outliers=outliers, exit_loss=0.0, server_loss=0.0, **fields)
        )
    assert value(monitor, "outlier_steps_total") == 3.0


def test_who_is_sent_away_and_who_is_lost_is_counted_by_reason() -> None:
    run = Run(clients=2, rounds=2)
    run.join("a")
    run.join("b")
    run.engine.detach("a", MemberState.EVICTED, Quarantined("a", "its steps"))
    run.engine.detach("b", MemberState.STALE)
    monitor = watched(run)
    assert value(monitor, "evictions_total", reason="Quarantined") == 1.0
    assert value(monitor, "disconnections_total") == 1.0


def test_a_checkpoint_says_when_it_was_written() -> None:
    monitor = watched(Run())
    monitor.observe(an_event("checkpoint", round=0, failed="No space left on device"))
    assert value(monitor, "checkpoints_total", outcome="failed") == 1.0
    assert ("hetero_last_checkpoint_timestamp_seconds", frozenset()) not in samples(monitor)
    monitor.observe(an_event("checkpoint", round=0, failed=None))
    assert value(monitor, "last_checkpoint_timestamp_seconds") > 1e9
