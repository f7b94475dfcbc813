"""Several exits on one device, and heads of every kind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hetero_client.training.trainer import PrefixTrainer
from hetero_common.models.exits import EXIT_HEADS
from support.plain_client import device_model, plan_of, some_images

KINDS = EXIT_HEADS.names()
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_a_client_has_the_exits_that_the_plan_says(kind: str) -> None:
    last = device_model(plan_of(exit_head=kind), cut_layer=3)
    every = device_model(plan_of(exit_head=kind, exits="all"), cut_layer=3)
    some = device_model(plan_of(exit_head=kind, exits="4,2,2"), cut_layer=3)
    assert (list(last.heads), list(every.heads), list(some.heads)) == ([3], [1, 2, 3], [2, 3])
    assert sorted(every.weights().exits) == [1, 2, 3]
    assert every.head is every.heads[3]
    activation, logits = every.forward(some_images(5).images)
    assert len(logits) == 3
    assert activation.shape[1:] == every.activation_shape


def test_the_loss_is_the_sum_over_the_exits_and_trains_each_of_them() -> None:
    plan = plan_of(exits="all")
    model = device_model(plan, cut_layer=3)
    trainer = PrefixTrainer(plan, "c", model, some_images(20), 4)
    before = model.weights()
    sent = trainer.forward(0, 0)
    assert trainer._pending is not None
    losses = [F.cross_entropy(each, sent.labels) for each in trainer._pending.logits]
    assert trainer._pending.loss == torch.stack(losses).sum()
    trainer.backward(0, 0)
    after = model.weights()
    for states, old in ((after.layers, before.layers), (after.exits, before.exits)):
        for number in (1, 2, 3):
            moved = [
                not torch.equal(new, old[number][name]) for name, new in states[number].items()
            ]
            assert any(moved)
    assert trainer.round_done(0).exit_loss == pytest.approx(float(losses[-1].detach()))


def test_the_server_teaches_every_exit() -> None:
    plan = plan_of(exits="all", feedback="logits", exit_weight=0.0)
    model = device_model(plan, cut_layer=3)
    trainer = PrefixTrainer(plan, "c", model, some_images(20), 4)
    before = model.weights().exits
    trainer.forward(0, 0)
    trainer.backward(0, 0, torch.randn(6, 10))
    after = model.weights().exits
    for number in (1, 2, 3):
        assert not torch.equal(after[number]["linear.weight"], before[number]["linear.weight"])
