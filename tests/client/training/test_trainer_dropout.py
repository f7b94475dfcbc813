"""Dropout is drawn like everything else: by seed, client, round and step, and by nothing before."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hetero_client.data.shard import Shard
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.tensors.weights import layer_states, numbered
from support.plain_client import PLAN, assert_same_bits, device_model, plan_of, some_images


def dropout_model(num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            linear=nn.Sequential(nn.Linear(3 * 8 * 8, 32), nn.Dropout(0.5)),
            head=nn.Linear(32, num_classes),
        )
    )


def first_activation(
    seed: int = 7, client_id: str = "phone", round_: int = 0, step: int = 0
) -> Tensor:
    """What an untrained client sends at a step: of equal images, so that only dropout differs."""
    plan = plan_of(model=f"{__name__}:dropout_model", augment="none", seed=seed)
    model = device_model(PLAN.model_copy(update={"model": plan.model}))
    image = some_images(1)
    shard = Shard(image.images.expand(20, -1, -1, -1), image.labels.expand(20))
    return PrefixTrainer(plan, client_id, model, shard, 4).forward(round_, step).activation


def test_dropout_is_a_function_of_seed_client_round_and_step() -> None:
    reference = first_activation()
    torch.manual_seed(123)
    torch.rand(5)
    assert torch.equal(first_activation(), reference)
    others = [
        first_activation(seed=8),
        first_activation(client_id="board"),
        first_activation(round_=1),
        first_activation(step=1),
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations([reference, *others], 2))


def test_training_with_dropout_does_not_depend_on_other_draws_in_the_process() -> None:
    plan = plan_of(model=f"{__name__}:dropout_model")
    trainers = [
        PrefixTrainer(plan, "phone", device_model(plan), some_images(20), 4) for _ in range(2)
    ]
    for round_, step in itertools.product(range(2), range(4)):
        for number, trainer in enumerate(trainers):
            torch.rand(number)  # somebody else's draw, before and within the step
            trainer.forward(round_, step)
            torch.rand(number)
            trainer.backward(round_, step)
    left, right = (layer_states(numbered(trainer.model.prefix)) for trainer in trainers)
    assert_same_bits(left[2], right[2])


def test_the_activation_that_goes_out_is_of_the_pass_that_is_trained_on() -> None:
    plan = plan_of(model=f"{__name__}:dropout_model", augment="none")
    trainer = PrefixTrainer(plan, "phone", device_model(plan), some_images(20), 4)
    sent = trainer.forward(0, 0)
    loss = F.cross_entropy(trainer.model.head(sent.activation), sent.labels)
    trainer.backward(0, 0)
    # Another pass would have drawn another dropout mask, and so another loss.
    assert trainer.round_done(0).exit_loss == pytest.approx(loss.item(), rel=1e-6)
