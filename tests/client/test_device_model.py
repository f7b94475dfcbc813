"""Several exits on one device, and heads of every kind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hetero_client.training.trainer import PrefixTrainer
from hetero_common.models.exits import EXIT_HEADS, build_exit
from support.plain_client import device_model, plan_of, some_images

KINDS = EXIT_HEADS.names()
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("shape", [(6,), (6, 1, 1), (6, 3, 3), (6, 8, 8), (6, 5, 9)])
def test_every_head_takes_every_activation(kind: str, shape: tuple[int, ...]) -> None:
    logits = build_exit(kind, shape, 7)(torch.randn(4, *shape))
    assert logits.shape == (4, 7)


@pytest.mark.parametrize("kind", ["grid", "conv", "deep"])
def test_the_richer_heads_see_where_something_is(kind: str) -> None:
    torch.manual_seed(0)
    head = build_exit(kind, (8, 8, 8), 3).eval()
    spot, moved = torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    spot[0, 0, 1, 1] = moved[0, 0, 6, 1] = 100.0
    linear = build_exit("linear", (8, 8, 8), 3)
    assert torch.allclose(linear(spot), linear(moved))
    if kind == "grid":
        assert not torch.allclose(head(spot), head(moved))
    else:  # it sees patterns of neighbours, wherever they are
        pair, apart = spot.clone(), spot.clone()
        pair[0, 0, 1, 2] = apart[0, 0, 6, 6] = 100.0
        assert torch.allclose(linear(pair), linear(apart))
        assert not torch.allclose(head(pair), head(apart))


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        ((1, 1), [12]),
        ((4, 4), [12]),
        ((8, 8), [12]),
        ((16, 16), [12, 24]),
        ((17, 3), [12, 24, 24]),
        ((32, 32), [12, 24, 24]),
        ((96, 96), [12, 24, 24, 24, 24]),
    ],
)
def test_the_deep_head_halves_what_it_sees_to_4x4(
    size: tuple[int, int], channels: list[int]
) -> None:
    stages = list(build_exit("deep", (6, *size), 7).children())[:-1]
    seen = torch.randn(2, 6, *size)
    for stage, expected in zip(stages, channels, strict=True):
        seen = stage(seen)
        assert seen.shape[1] == expected
    assert max(seen.shape[2:]) <= 4


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
