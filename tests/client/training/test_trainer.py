"""A client's training step, held against the method written down once more in plain torch."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_client.exits.rule import DEFAULT_RULE
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.plan import Feedback, Plan
from hetero_common.compute.augmentation import augment
from hetero_common.compute.sampling import batch_indices
from hetero_common.compute.seeding import derive_seed
from hetero_common.errors import RefusedInput
from hetero_common.tensors import codec
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights, load_states, numbered
from hetero_lab.simulation import InNoFile, SimulatedClient, simulate
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch, one_by_one
from hetero_server.run.engine import Engine
from hetero_server.run.orders import arrival
from support.plain_client import (
    CUT,
    PLAN,
    PlainClient,
    assert_close,
    assert_same_bits,
    device_model,
    plan_of,
    some_images,
    tensors,
)

# --- without feedback -----------------------------------------------------------------------------


class HostileStrategy:
    """Trains nothing, and answers each step with garbage, as large as the wire dtype can hold."""

    is_joint = False
    minds_order = True

    def __init__(self, initial: InitialModel) -> None:
        self._initial = initial
        self.steps = 0

    def add(self, client_id: str, cut_layer: int) -> None: ...

    def remove(self, client_id: str) -> None: ...

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        return one_by_one(self._train, batches)

    def _train(self, batch: ClientBatch) -> StepOutcome:
        self.steps += 1
        gradient = torch.full_like(batch.activation, 3e38)
        return StepOutcome(-1e30, 0, codec.encode(gradient, "fp32"))

    def nbytes(self) -> int:
        return 0

    def forget_statistics(self, client_id: str) -> None: ...

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        return {}

    def adopt(self, averaged: Weights) -> None: ...

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        return torch.full((len(activation), 10), 0.1)

    def checkpoint(self) -> Mapping[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None: ...

    def layers(self) -> LayerStates:
        return self._initial.weights.layers


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"optimizer": "adam", "client_lr": 1e-2},
        {"grad_clip": 0.1, "lr_schedule": "constant", "momentum": 0, "augment": "none"},
    ],
    ids=["sgd", "adam", "clipped"],
)
def test_without_feedback_nothing_that_the_server_returns_can_steer_a_client(
    recipe: dict[str, Any],
) -> None:
    plan = plan_of(**recipe)
    initial = InitialModel(plan)
    strategy = HostileStrategy(initial)
    engine = Engine(plan, initial, strategy, arrival, clients=2)
    clients, references = [], []
    for client_id, cut_layer in (("phone", 1), ("board", 3)):
        shard = some_images(15 + cut_layer, seed=cut_layer)
        model = device_model(plan, cut_layer)
        count = len(shard.labels)
        trainer = PrefixTrainer(plan, client_id, model, shard, plan.steps_for(count))
        clients.append(
            SimulatedClient(client_id, trainer, count, shard, DEFAULT_RULE, 5, InNoFile())
        )
        prefix, head = copy.deepcopy(model.prefix), copy.deepcopy(model.head)
        load_states(numbered(prefix), initial.weights.layers)
        load_states({cut_layer: head}, initial.weights.exits)
        references.append(PlainClient(plan, client_id, prefix, head, shard))

    simulate(engine, "run", clients)

    assert strategy.steps == 2 * plan.rounds * plan.steps_per_round
    for client, reference in zip(clients, references, strict=True):
        reference.train()
        trained = client.trainer.model
        assert_same_bits(tensors(trained.prefix, trained.head), reference.tensors())


def test_without_feedback_a_trainer_ignores_what_is_passed_to_it() -> None:
    shard = some_images(20)
    trainers = [PrefixTrainer(PLAN, "phone", device_model(PLAN), shard, 4) for _ in range(2)]
    for round_, step in itertools.product(range(2), range(4)):
        for trainer, garbage in zip(trainers, (None, math.nan), strict=True):
            sent = trainer.forward(round_, step)
            feedback = None if garbage is None else torch.full_like(sent.activation, garbage)
            trainer.backward(round_, step, feedback)
    left, right = (tensors(t.model.prefix, t.model.head) for t in trainers)
    assert_same_bits(left, right)


# --- with feedback --------------------------------------------------------------------------------


def trained_with(
    feedback: Feedback, returned: Tensor, **changes: Any
) -> tuple[PrefixTrainer, Plan]:
    """A trainer after its first step."""
    plan = plan_of(feedback=feedback, **changes)
    trainer = PrefixTrainer(plan, "phone", device_model(plan), some_images(20), 4)
    trainer.forward(0, 0)
    trainer.backward(0, 0, returned)
    return trainer, plan


def reference_for(plan: Plan) -> PlainClient:
    model = device_model(plan)
    return PlainClient(plan, "phone", model.prefix, model.head, some_images(20))


def a_gradient() -> Tensor:
    return torch.randn(6, 4, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("exit_weight", [1.0, 0.3])
def test_gradient_feedback_is_added_to_the_gradient_of_the_exit(exit_weight: float) -> None:
    trainer, plan = trained_with("gradient", a_gradient(), exit_weight=exit_weight)
    reference = reference_for(plan)
    activation, logits, labels = reference.forward(0, 0)
    # d(sum(g * h)) / dh is g, to the bit.
    surrogate = (activation * a_gradient()).sum()
    reference.backward(exit_weight * F.cross_entropy(logits, labels) + surrogate, 0, 0)
    assert_same_bits(tensors(trainer.model.prefix, trainer.model.head), reference.tensors())


def test_gradient_feedback_alone_trains_the_prefix_and_leaves_the_exit() -> None:
    trainer, plan = trained_with("gradient", a_gradient(), exit_weight=0, weight_decay=0)
    reference = reference_for(plan)
    initial_head = copy.deepcopy(reference.head.state_dict())
    activation, _, _ = reference.forward(0, 0)
    reference.backward((activation * a_gradient()).sum(), 0, 0)
    assert_same_bits(trainer.model.prefix.state_dict(), reference.prefix.state_dict())
    assert_same_bits(trainer.model.head.state_dict(), initial_head)


def test_logits_feedback_distills_the_server_into_the_exit() -> None:
    server_logits = 3 * torch.randn(6, 10, generator=torch.Generator().manual_seed(2))
    trainer, plan = trained_with("logits", server_logits, exit_weight=0.7, distill_weight=0.4)
    reference = reference_for(plan)
    _, logits, labels = reference.forward(0, 0)
    server, client = server_logits.softmax(dim=1), logits.softmax(dim=1)
    divergence = (server * (server.log() - client.log())).sum() / 6  # KL(server || client)
    reference.backward(0.7 * F.cross_entropy(logits, labels) + 0.4 * divergence, 0, 0)
    assert_close(tensors(trainer.model.prefix, trainer.model.head), reference.tensors())


def test_the_exit_moves_along_the_closed_form_of_its_gradient() -> None:
    server_logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(3))
    trainer, plan = trained_with(
        "logits", server_logits, distill_weight=0.5, momentum=0, weight_decay=0
    )
    reference = reference_for(plan)
    activation, logits, labels = reference.forward(0, 0)
    client, server = logits.softmax(dim=1), server_logits.softmax(dim=1)
    by_logits = ((client - F.one_hot(labels, 10)) + 0.5 * (client - server)) / 6
    head = reference.head.state_dict()
    expected = {
        "linear.weight": head["linear.weight"]
        - plan.client_lr * by_logits.T @ activation.mean(dim=(2, 3)),
        "linear.bias": head["linear.bias"] - plan.client_lr * by_logits.sum(dim=0),
    }
    assert_close(trainer.model.head.state_dict(), {k: v.detach() for k, v in expected.items()})


# --- with logit adjustment ------------------------------------------------------------------------


def skewed_images() -> Shard:
    """Of classes 0 to 2 only, the most of them 0."""
    shard = some_images(20)
    return Shard(shard.images, torch.tensor([0] * 14 + [1] * 4 + [2] * 2))


@pytest.mark.parametrize("exits", ["last", "all"])
def test_the_loss_of_every_exit_is_adjusted_by_the_prior_of_the_shard(
    exits: str,
) -> None:
    plan = plan_of(logit_adjustment=1.5, exits=exits)
    shard = skewed_images()
    trainer = PrefixTrainer(plan, "phone", device_model(plan), shard, 4)
    assert trainer.class_counts == (14, 4, 2, 0, 0, 0, 0, 0, 0, 0)
    prior = torch.tensor([14, 4, 2] + [0.5] * 7) / 20
    model = copy.deepcopy(trainer.model)
    sent = trainer.forward(0, 0)
    chosen = torch.from_numpy(batch_indices(20, plan.batch_size, 0, plan.seed, "phone"))
    seed = derive_seed(plan.seed, "augment", "phone", 0, 0)
    model.train(True)
    _, logits = model.forward(augment(shard.images[chosen], plan.augment, seed))
    losses = [F.cross_entropy(each + 1.5 * prior.log(), sent.labels) for each in logits]
    assert len(losses) == (CUT if exits == "all" else 1)
    trainer.backward(0, 0)
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    expected = [p.grad for module in model.modules() for p in module.parameters()]
    actual = [p.grad for module in trainer.model.modules() for p in module.parameters()]
    torch.testing.assert_close(actual, expected)
    report = trainer.round_done(0)
    assert report.exit_loss == pytest.approx(float(losses[-1].detach()), rel=1e-5)
    right = int((logits[-1].argmax(dim=1) == sent.labels).sum())
    assert report.exit_accuracy == right / 6, "of the logits as they are at inference"


def test_a_teacher_is_followed_without_adjustment() -> None:
    """Its logits are those of inference, and so must be what follows them."""
    server_logits = 3 * torch.randn(6, 10, generator=torch.Generator().manual_seed(2))
    plan = plan_of(feedback="logits", exit_weight=0, distill_weight=0.4, logit_adjustment=2.0)
    trainer = PrefixTrainer(plan, "phone", device_model(plan), some_images(20), 4)
    trainer.forward(0, 0)
    trainer.backward(0, 0, server_logits)
    other, _ = trained_with("logits", server_logits, exit_weight=0, distill_weight=0.4)
    left, right = (tensors(t.model.prefix, t.model.head) for t in (trainer, other))
    assert_same_bits(left, right)


def test_inference_is_not_adjusted() -> None:
    plan = plan_of(logit_adjustment=2.0)
    trainer = PrefixTrainer(plan, "phone", device_model(plan), skewed_images(), 4)
    plain = device_model(PLAN)
    images = some_images(5).images
    for answer, expected in zip(trainer.model.infer(images), plain.infer(images), strict=True):
        assert torch.equal(answer, expected)


# --- what is sent and reported --------------------------------------------------------------------


def test_the_activation_that_goes_out_is_not_touched_by_the_optimizer() -> None:
    trainer = PrefixTrainer(PLAN, "phone", device_model(PLAN), some_images(20), 4)
    sent = trainer.forward(0, 0)
    before = sent.activation.clone()
    trainer.backward(0, 0)
    assert not sent.activation.requires_grad
    assert torch.equal(sent.activation, before)


def test_the_labels_that_go_out_are_of_the_images_of_the_batch() -> None:
    shard = some_images(20)
    trainer = PrefixTrainer(PLAN, "phone", device_model(PLAN), shard, 4)
    for round_, step in itertools.product(range(3), range(4)):
        sent = trainer.forward(round_, step)
        trainer.backward(round_, step)
        chosen = batch_indices(20, 6, 4 * round_ + step, PLAN.seed, "phone")
        assert torch.equal(sent.labels, shard.labels[torch.from_numpy(chosen)])


def test_a_report_holds_the_means_of_its_own_round() -> None:
    trainer = PrefixTrainer(PLAN, "phone", device_model(PLAN), some_images(20), 4)
    reference = reference_for(PLAN)
    for round_ in range(2):
        losses, right = [], 0
        for step in range(4):
            trainer.forward(round_, step)
            trainer.backward(round_, step)
            _, logits, labels = reference.forward(round_, step)
            loss = F.cross_entropy(logits, labels)
            reference.backward(loss, round_, step)
            losses.append(loss.item())
            right += int((logits.argmax(dim=1) == labels).sum())
        report = trainer.round_done(round_)
        trainer.begin_round()
        assert report.round == round_
        assert report.exit_loss == pytest.approx(sum(losses) / 4, rel=1e-12)
        assert report.exit_accuracy == right / 24
