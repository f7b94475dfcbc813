from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hetero_client.data.shard import load_shard
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_common.tensors.weights import Weights, read_file
from hetero_lab.methods.undivided import Undivided, whole_model
from lab.test_simulation import SMALL, settings_of

if TYPE_CHECKING:
    from conftest import Simulate

TWO = ("--clients", "2")


def accuracies(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_records(run) if event["event"] == "evaluation"]


def test_federated_averaging_of_one_client_is_its_own_training(simulate: Simulate) -> None:
    fedavg = simulate(*SMALL, "--clients", "1", "--method", "fedavg")
    split = simulate(
        *(*SMALL, "--clients", "1", "--method", "split", "--strategy", "sequential"),
        *("--feedback", "gradient", "--exit-weight", "0", "--cut-layers", "3"),
        *("--order", "interleaved", "--wire", "fp32", "--weights-wire", "fp32"),
    )
    layers = read_file(fedavg / MODEL_FILE)[0].layers
    for number, state in read_file(split / MODEL_FILE)[0].layers.items():
        for name, tensor in state.items():
            torch.testing.assert_close(layers[number][name], tensor)


def test_federated_averaging_averages_what_the_clients_have_trained(simulate: Simulate) -> None:
    flags = (*TWO, "--rounds", "1", "--method", "fedavg")
    settings = settings_of(*flags)
    run = simulate(*SMALL, *flags)
    plan, ends = settings.plan(), []
    for index in range(2):
        shard = load_shard(settings, plan, index, 2)
        client = Undivided(plan, f"client-{index + 1}", whole_model(plan), shard, Compute())
        for step in range(plan.steps_per_round):
            client.step(step, StepAt(0, step, plan.steps_per_round))
        ends.append(Weights(client.states()).flat())
    averaged = read_file(run / MODEL_FILE)[0].flat()
    weights = {name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0] if "weight" in name}
    for name, expected in weights.items():
        torch.testing.assert_close(averaged[name], expected, rtol=1e-2, atol=1e-4)


def test_federated_averaging_counts_the_weights_that_a_client_would_send_and_get(
    simulate: Simulate,
) -> None:
    run = simulate(*SMALL, *TWO, "--method", "fedavg", "--rounds", "3", "--eval-every", "2")
    size = (run / MODEL_FILE).stat().st_size
    counted = [
        (event["event"], event["round"], event["bytes_pushed"] / size, event["bytes_pulled"] / size)
        for event in read_records(run)
        if "round" in event
    ]
    assert counted == [
        ("round", 0, 1, 1),
        ("round", 1, 2, 2),
        ("evaluation", 1, 2, 3),  # an evaluation is of the averages
        ("round", 2, 3, 3),
        ("evaluation", 2, 3, 4),
    ]


def test_prefixes_are_averaged_once_per_cut_layer(simulate: Simulate) -> None:
    run = simulate(*SMALL, *TWO, "--cut-layers", "2,4", "--method", "fedavg-prefix")
    files = sorted(path.name for path in run.glob("*.safetensors"))
    assert files == ["prefix-2.safetensors", "prefix-4.safetensors"]
    assert [len(read_file(run / name)[0].layers) for name in files] == [3, 5]
    assert [event["cut_layer"] for event in accuracies(run)] == [2, 4]
