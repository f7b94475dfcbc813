"""What it computes is compared with a plain loop in test_simulation.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_common.tensors.weights import read_file
from lab.test_simulation import SMALL

if TYPE_CHECKING:
    from conftest import Simulate


@pytest.mark.parametrize("clients", [1, 3])
def test_it_trains_on_as_many_images_as_all_clients_together(
    clients: int, simulate: Simulate
) -> None:
    run = simulate(*SMALL, "--method", "centralized", "--clients", str(clients))
    rounds = [event for event in read_records(run) if event["event"] == "round"]
    assert [event["samples"] for event in rounds] == [clients * 5 * 8 * (r + 1) for r in range(2)]


def test_it_leaves_a_whole_model_and_the_accuracy_of_the_last_round(simulate: Simulate) -> None:
    run = simulate(*SMALL, "--method", "centralized")
    weights, _ = read_file(run / MODEL_FILE)
    assert (sorted(weights.layers), weights.exits) == ([1, 2, 3, 4, 5, 6], {})
    (evaluation,) = [event for event in read_records(run) if event["event"] == "evaluation"]
    assert (evaluation["round"], evaluation["samples"]) == (1, 364)
    assert "client" not in evaluation
