"""A strategy that is taken up from a checkpoint trains on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.records.checkpoints import Checkpoint, CheckpointStore
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies import Strategy
from support.stepping import a_strategy, step

MakeBatch = Callable[[int, int], tuple[Tensor, Tensor]]

# Names that look alike, or like a part of a tensor's name.
CUTS = {"phone": 3, "phone/weights": 2, "phone 2": 4, "weights": 3}


def build(name: str, plan: Plan, initial: InitialModel) -> Strategy:
    strategy = a_strategy(name, plan, Compute(), initial)
    for client_id, cut_layer in CUTS.items():
        strategy.add(client_id, cut_layer)
    return strategy


def train(strategy: Strategy, make_batch: MakeBatch, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        for client_id, cut_layer in CUTS.items():
            batch = make_batch(cut_layer, 10 * seed + cut_layer)
            losses.append(step(strategy, client_id, *batch, StepAt(0, seed, 9)).loss)
    return losses


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["sequential", "averaging", "mixed"])
def test_training_goes_on_bit_for_bit(
    name: str,
    optimizer: str,
    plan: Plan,
    make_batch: MakeBatch,
    tmp_path: Path,
) -> None:
    plan = plan.model_copy(update={"momentum": 0.9, "weight_decay": 0.01, "optimizer": optimizer})
    initial = InitialModel(plan)
    store = CheckpointStore(tmp_path, "run", "model")
    strategy = build(name, plan, initial)
    train(strategy, make_batch, range(3))
    if name == "averaging":
        strategy.adopt(strategy.copies(0, last=True)["phone"])
        train(strategy, make_batch, range(3, 4))
    store.write(Checkpoint(0, strategy.checkpoint()))
    taken_up = build(name, plan, initial)
    kept = store.newest()
    assert kept is not None
    taken_up.restore(kept.tensors)
    for seeds in (range(4, 6), range(6, 8)):
        assert train(taken_up, make_batch, seeds) == train(strategy, make_batch, seeds)
    expected = strategy.layers()
    for number, state in taken_up.layers().items():
        assert all(torch.equal(tensor, expected[number][key]) for key, tensor in state.items())


def test_a_shared_model_may_reach_further_down_than_its_clients_of_now(
    plan: Plan, initial: InitialModel, make_batch: MakeBatch
) -> None:
    strategy = build("sequential", plan, initial)
    train(strategy, make_batch, range(2))
    taken_up = a_strategy("sequential", plan, Compute(), initial)
    taken_up.add("phone 2", 4)
    taken_up.restore(strategy.checkpoint())
    assert list(taken_up.layers()) == list(strategy.layers()) == [3, 4, 5, 6]
