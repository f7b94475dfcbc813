from __future__ import annotations

import pytest

from support.engine_run import Run
from support.monitored_run import samples, value, watched


def test_the_state_of_the_run_is_read_when_it_is_asked_for() -> None:
    run = Run(clients=2, rounds=3)
    run.join("a", cut_layer=1)
    monitor = watched(run)
    assert value(monitor, "phase", phase="waiting") == 1.0
    run.join("b", cut_layer=2)
    run.send("a", 0, 1)
    assert value(monitor, "phase", phase="training") == 1.0
    assert value(monitor, "phase", phase="waiting") == 0.0
    assert value(monitor, "clients", state="training") == 2.0
    assert value(monitor, "connected_clients", cut_layer="2") == 1.0
    assert value(monitor, "queued_batches") == 2.0
    assert value(monitor, "rounds") == 3.0


def test_accuracies_are_means_over_the_clients_of_a_cut_layer() -> None:
    run = Run(clients=2, rounds=2, eval_every=1)
    run.join("a", cut_layer=1)
    run.join("b", cut_layer=2)
    run.round("a", "b")
    monitor = watched(run)
    evaluations = {f["client"]: f for event, f in run.events if event == "evaluation"}
    for client, cut in (("a", "1"), ("b", "2")):
        expected = evaluations[client]["exit_accuracy"]
        assert value(monitor, "exit_accuracy_ratio", cut_layer=cut) == expected
        labels = {"client": client, "cut_layer": cut}
        assert value(monitor, "client_exit_accuracy_ratio", **labels) == expected


@pytest.mark.parametrize("series", [0, 2])
def test_only_so_many_clients_have_series_of_their_own(series: int) -> None:
    run = Run(clients=5)
    for index in range(5):
        run.join(f"client-{index}")
    monitor = watched(run, series)
    named = {dict(labels)["client"] for _, labels in samples(monitor) if "client" in dict(labels)}
    assert named == {f"client-{index}" for index in range(series)}
    assert value(monitor, "clients_without_series") == 5 - series
    assert value(monitor, "clients", state="training") == 5.0
