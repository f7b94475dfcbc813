from __future__ import annotations

from typing import Any

import pytest
import torch

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.tensors.weights import Weights, layer_states, numbered
from hetero_lab.methods.undivided import Undivided, whole_model
from hetero_server.learning.initial_model import InitialModel
from support.plain_client import plan_of, some_images

TRAIN = some_images(20)


def undivided(plan: Plan, name: str = "a") -> Undivided:
    return Undivided(plan, name, whole_model(plan), TRAIN, Compute())


def bits(model: Undivided) -> bytes:
    return Weights(model.states()).to_bytes()


def train(model: Undivided, steps: range) -> list[float]:
    return [model.step(step, StepAt(0, step, 8)) for step in steps]


def test_it_starts_from_the_initial_weights_of_a_run() -> None:
    plan = plan_of()
    whole = Weights(layer_states(numbered(whole_model(plan))))
    assert whole.to_bytes() == Weights(InitialModel(plan).weights.layers).to_bytes()


def test_training_lowers_the_loss_of_what_it_is_trained_on() -> None:
    model = undivided(plan_of(augment="none", lr_schedule="constant", batch_size=20))
    losses = train(model, range(30))
    assert losses[-1] < 0.5 * losses[0]
    assert float(model.right(TRAIN).double().mean()) > 0.5


@pytest.mark.parametrize("changes", [{"seed": 8}, {"batch_size": 5}, {"server_lr": 0.5}])
def test_training_is_a_function_of_plan_name_and_images(changes: dict[str, Any]) -> None:
    first, again = undivided(plan_of()), undivided(plan_of())
    assert train(first, range(3)) == train(again, range(3))
    assert bits(first) == bits(again)
    for other in (undivided(plan_of(), "b"), undivided(plan_of(**changes))):
        train(other, range(3))
        assert bits(other) != bits(first)


def test_it_goes_on_bit_for_bit_from_its_checkpoint() -> None:
    first, second = undivided(plan_of(momentum=0.9)), undivided(plan_of(momentum=0.9))
    train(first, range(3))
    second.restore({name: value.clone() for name, value in first.checkpoint().items()})
    assert train(first, range(3, 6)) == train(second, range(3, 6))
    assert bits(first) == bits(second)


def test_testing_changes_nothing_and_its_parts_make_no_difference() -> None:
    model = undivided(plan_of())
    train(model, range(2))
    before = bits(model)
    test = some_images(11, seed=1)
    right = model.right(test)
    assert (right.shape, right.dtype) == ((11,), torch.bool)
    assert torch.equal(model.right(test, rows=4), right)
    assert bits(model) == before


def test_it_takes_over_states() -> None:
    first, second = undivided(plan_of()), undivided(plan_of())
    train(first, range(2))
    second.load(first.states())
    assert bits(second) == bits(first)
