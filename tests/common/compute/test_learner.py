from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from hetero_common.agreement.plan import Plan
from hetero_common.compute.learner import Learner
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import NonFinite

START = StepAt(0, 0, 4)


def plan(**changes: object) -> Plan:
    """Gradients here are drawn, and far longer than those of training: not clipped by default."""
    agreed = {"lr_schedule": "constant", "momentum": 0.9, "grad_clip": 0}
    return Plan.model_validate(agreed | changes)


def module(seed: int = 0) -> nn.Module:
    """Parameters of 4, 2 and 1 dimensions."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def gradients(parameters: Sequence[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(held: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in held.parameters()]


def assert_close(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for found, value in zip(actual, expected, strict=True):
        torch.testing.assert_close(found, value.to(found.dtype))


@dataclass
class ReferenceSGD:
    """Nesterov momentum by its recurrence, in double precision.

    g <- grad + decay * w (matrices only);  v <- mu v + g;  w <- w - rate (g + mu v)
    """

    weights: list[Tensor]
    mu: float
    decay: float
    velocity: dict[int, Tensor] = field(default_factory=dict)

    def step(self, grads: Sequence[Tensor | None], rate: float) -> None:
        for index, grad in enumerate(grads):
            if grad is None:
                continue
            weight = self.weights[index]
            g = grad.double() + (self.decay * weight if weight.dim() > 1 else 0)
            v = self.mu * self.velocity.get(index, torch.zeros_like(g)) + g
            self.velocity[index] = v
            self.weights[index] = weight - rate * (g + self.mu * v)


@dataclass
class ReferenceAdam:
    """Adam (Kingma and Ba 2014, algorithm 1) with decay added to the gradient of matrices."""

    weights: list[Tensor]
    decay: float
    m: dict[int, Tensor] = field(default_factory=dict)
    v: dict[int, Tensor] = field(default_factory=dict)
    t: dict[int, int] = field(default_factory=dict)

    def step(self, grads: Sequence[Tensor | None], rate: float) -> None:
        for index, grad in enumerate(grads):
            if grad is None:
                continue
            weight = self.weights[index]
            g = grad.double() + (self.decay * weight if weight.dim() > 1 else 0)
            zero = torch.zeros_like(g)
            t = self.t[index] = self.t.get(index, 0) + 1
            m = self.m[index] = 0.9 * self.m.get(index, zero) + 0.1 * g
            v = self.v[index] = 0.999 * self.v.get(index, zero) + 0.001 * g.square()
            m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
            self.weights[index] = weight - rate * m_hat / (v_hat.sqrt() + 1e-8)


def reference(agreed: Plan, weights: list[Tensor]) -> ReferenceSGD | ReferenceAdam:
    wide = [weight.double() for weight in weights]
    if agreed.optimizer == "adam":
        return ReferenceAdam(wide, agreed.weight_decay)
    return ReferenceSGD(wide, agreed.momentum, agreed.weight_decay)


PLANS = [
    plan(weight_decay=0.1),
    plan(weight_decay=0.1, momentum=0.0),
    plan(weight_decay=0.1, lr_schedule="cosine", rounds=2),
    plan(weight_decay=0.1, optimizer="adam"),
]


each_plan = pytest.mark.parametrize(
    "agreed", PLANS, ids=["nesterov", "no momentum", "cosine", "adam"]
)


@each_plan
def test_steps_follow_the_formula_of_the_optimizer(agreed: Plan) -> None:
    held = module()
    parameters = list(held.parameters())
    expected = reference(agreed, values(held))
    learner = Learner(agreed, 0.1, [held])
    for number in range(6):
        learner.zero_grad()
        gradients(parameters, number)
        at = StepAt(number // 4, number % 4, 4)
        expected.step([p.grad for p in parameters], agreed.learning_rate(0.1, at))
        learner.step(at)
        assert_close(values(held), expected.weights)


@each_plan
def test_parameters_without_a_part_in_a_step_stay_untouched_by_it(agreed: Plan) -> None:
    shallow, deep = module(1), module(2)
    everything = [*shallow.parameters(), *deep.parameters()]
    expected = reference(agreed, [*values(shallow), *values(deep)])
    learner = Learner(agreed, 0.1, [shallow, deep])
    for number, part in enumerate([everything, list(deep.parameters()), everything]):
        before = values(shallow)
        learner.zero_grad()
        gradients(part, number)
        expected.step([p.grad for p in everything], agreed.learning_rate(0.1, START))
        learner.step(START)
        if part is not everything:
            assert all(torch.equal(a, b) for a, b in zip(values(shallow), before, strict=True))
        # After the last step this also says that momentum was neither applied nor decayed.
        assert_close([*values(shallow), *values(deep)], expected.weights)


def test_decay_shrinks_matrices_and_leaves_biases_and_batchnorm() -> None:
    held = module()
    before = {name: value.detach().clone() for name, value in held.named_parameters()}
    for parameter in held.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Learner(plan(weight_decay=0.5, momentum=0), 0.1, [held]).step(START)
    decayed = {"0.weight", "2.weight"}
    for name, value in held.named_parameters():
        torch.testing.assert_close(value.detach(), before[name] * (0.95 if name in decayed else 1))


def test_a_layer_without_matrices_may_come_first() -> None:
    held = nn.BatchNorm2d(4), nn.Linear(4, 2)
    learner = Learner(plan(weight_decay=0.5, momentum=0), 0.1, held)
    before = [values(part) for part in held]
    for part in held:
        for parameter in part.parameters():
            parameter.grad = torch.zeros_like(parameter)
    learner.step(START)
    assert_close(values(held[0]), before[0])
    assert_close(values(held[1]), [before[1][0] * 0.95, before[1][1]])


@pytest.mark.parametrize("limit", [0.5, 2.0, 1e6])
def test_a_gradient_is_clipped_to_its_norm_over_all_layers(limit: float) -> None:
    parts = module(1), module(2)
    parameters = [p for part in parts for p in part.parameters()]
    before = [value for part in parts for value in values(part)]
    gradients(parameters, 3)
    raw = [p.grad.double() for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in raw))
    Learner(plan(grad_clip=limit, momentum=0, weight_decay=0), 0.1, parts).step(START)
    scale = min(1.0, limit / norm)
    after = [value for part in parts for value in values(part)]
    for now, then, grad in zip(after, before, raw, strict=True):
        delta = (now - then).double()
        torch.testing.assert_close(delta, -0.1 * scale * grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 0.5, 1e6])
def test_a_step_returns_the_norm_of_its_gradient_before_clipping(limit: float) -> None:
    part = module(1)
    gradients(list(part.parameters()), 3)
    raw = [p.grad.double() for p in part.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in raw))
    assert Learner(plan(grad_clip=limit), 0.1, [part]).step(START) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])  # the last has no norm in fp32
@pytest.mark.parametrize("limit", [0, 1.0])
def test_a_gradient_that_is_not_finite_changes_no_weight(limit: float, bad: float) -> None:
    part = module(1)
    learner = Learner(plan(grad_clip=limit), 0.1, [part])
    gradients(list(part.parameters()), 0)
    learner.step(START)
    before, state = values(part), learner.state()
    gradients(list(part.parameters()), 1)
    grad = next(part.parameters()).grad
    assert grad is not None
    grad.view(-1)[0] = bad
    with pytest.raises(NonFinite, match="the gradient of this batch holds NaN or infinity"):
        learner.step(START)
    for now, then in zip(values(part), before, strict=True):
        assert torch.equal(now, then)
    for name, tensor in learner.state().items():
        assert torch.equal(tensor, state[name])


def test_clipping_counts_only_gradients_of_this_step() -> None:
    idle, active = module(1), module(2)
    learner = Learner(plan(grad_clip=1.0, momentum=0, weight_decay=0), 1.0, [idle, active])
    gradients(list(idle.parameters()), 0)
    learner.zero_grad()
    gradients(list(active.parameters()), 1)
    before = values(active)
    learner.step(START)
    moved = [now - then for now, then in zip(values(active), before, strict=True)]
    norm = math.sqrt(sum(float(delta.double().square().sum()) for delta in moved))
    assert norm == pytest.approx(1.0, rel=1e-4)


def test_layers_added_later_are_trained_and_the_others_keep_their_momentum() -> None:
    agreed = plan(weight_decay=0.1)
    first, second = module(1), module(2)
    learner = Learner(agreed, 0.1, [first])
    both = [*first.parameters(), *second.parameters()]
    expected = reference(agreed, [*values(first), *values(second)])
    for number, part in enumerate([list(first.parameters()), both, both]):
        if part is both and number == 1:
            learner.add(second)
        learner.zero_grad()
        gradients(part, number)
        expected.step([p.grad for p in both], 0.1)
        learner.step(START)
    assert_close([*values(first), *values(second)], expected.weights)


def test_nothing_to_train_is_no_error() -> None:
    learner = Learner(plan(), 0.1, [nn.ReLU()])
    learner.zero_grad()
    learner.step(START)
    assert learner.optimizer is None


@each_plan
def test_a_learner_goes_on_bit_for_bit_from_its_state(agreed: Plan) -> None:
    first, second = module(1), module(1)
    learner = Learner(agreed, 0.1, [first])

    def train(trained: nn.Module, by: Learner, numbers: range) -> None:
        for number in numbers:
            by.zero_grad()
            gradients(list(trained.parameters()), number)
            by.step(StepAt(number // 4, number % 4, 4))

    train(first, learner, range(3))
    state = learner.state()
    second.load_state_dict(first.state_dict())
    other = Learner(agreed, 0.1, [second])
    other.load_state({name: tensor.clone() for name, tensor in state.items()})
    train(first, learner, range(3, 6))
    train(second, other, range(3, 6))
    assert all(map(torch.equal, values(first), values(second)))


def test_the_state_of_a_learner_that_has_not_stepped_is_empty() -> None:
    learner = Learner(plan(), 0.1, [module()])
    assert learner.state() == {}
    learner.load_state({})
    assert Learner(plan(), 0.1, ()).state() == {}
