from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import NotTraining, RefusedInput
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies import Strategy
from hetero_server.learning.strategies.averaging import AveragingStrategy
from hetero_server.learning.strategies.mixed import MixedStrategy
from hetero_server.learning.strategies.sequential import SequentialStrategy
from support.stepping import a_strategy, step

AT = StepAt(0, 0, 2)
RATE = 0.1
"""The plan's server_lr."""
MakeBatch = Callable[[int, int], tuple[Tensor, Tensor]]
Build = Callable[..., Strategy]
each_strategy = pytest.mark.parametrize("name", ["sequential", "averaging", "mixed"])


class Reference:
    """Layers first..L trained by w <- w - rate * dloss/dw, entered at any cut; nothing of ours."""

    def __init__(self, initial: InitialModel, first: int) -> None:
        self.layers = dict(initial.fresh(first - 1))

    def step(self, cut: int, batch: tuple[Tensor, Tensor]) -> None:
        activation, labels = batch
        entered = [layer for number, layer in self.layers.items() if number > cut]
        loss = F.cross_entropy(nn.Sequential(*entered).train()(activation), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for layer in entered:
                for parameter in layer.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(RATE * parameter.grad)
                    parameter.grad = None

    def states(self) -> LayerStates:
        return {
            number: {name: value.clone() for name, value in layer.state_dict().items()}
            for number, layer in self.layers.items()
        }


def replica(strategy: Strategy, client_id: str) -> LayerStates:
    """What Averaging would aggregate of a client."""
    return dict(strategy.copies(0, last=True)[client_id].layers)


def average(states: list[LayerStates], weights: list[float]) -> LayerStates:
    """sum_i w_i theta_{i,k} / sum_i w_i over the holders of k, BatchNorm as pooled moments."""
    averaged: LayerStates = {}
    for k in {k for state in states for k in state}:
        held = [(s[k], w) for s, w in zip(states, weights, strict=True) if k in s]
        total = sum(w for _, w in held)
        averaged[k] = {}
        for name in held[0][0]:
            if name.endswith("num_batches_tracked"):
                averaged[k][name] = torch.stack([s[name] for s, _ in held]).max()
                continue
            mean = torch.stack([w * s[name] for s, w in held]).sum(dim=0) / total
            averaged[k][name] = mean
            if name.endswith("running_var"):
                key = name.replace("_var", "_mean")
                second = [w * (s[name] + s[key].square()) for s, w in held]
                first = torch.stack([w * s[key] for s, w in held]).sum(dim=0) / total
                averaged[k][name] = torch.stack(second).sum(dim=0) / total - first.square()
    return averaged


def assert_close(actual: LayerStates, expected: LayerStates) -> None:
    assert actual.keys() == expected.keys()
    for number, state in expected.items():
        torch.testing.assert_close(actual[number], state, rtol=1e-4, atol=1e-6)


def is_close(actual: LayerStates, expected: LayerStates) -> bool:
    try:
        assert_close(actual, expected)
    except AssertionError:
        return False
    return True


@pytest.fixture
def build(plan: Plan, initial: InitialModel, compute: Compute) -> Build:
    def build(name: str, aggregate_every: int = 1, **changes: object) -> Strategy:
        agreed = plan.model_copy(update=changes)
        return a_strategy(name, agreed, compute, initial, aggregate_every=aggregate_every)

    return build


def test_strategies_by_name(build: Build) -> None:
    assert isinstance(build("sequential"), SequentialStrategy)
    assert isinstance(build("averaging"), AveragingStrategy)
    assert isinstance(build("mixed"), MixedStrategy)


# One client.


@each_strategy
@pytest.mark.parametrize("cut", range(1, 6))
def test_one_client_is_plain_sgd_on_the_suffix(
    build: Build, initial: InitialModel, make_batch: MakeBatch, name: str, cut: int
) -> None:
    strategy, reference = build(name), Reference(initial, cut + 1)
    strategy.add("a", cut)
    for seed in range(5):
        step(strategy, "a", *make_batch(cut, seed), AT)
        reference.step(cut, make_batch(cut, seed))
    if name == "averaging":
        strategy.adopt(Weights(replica(strategy, "a")))
    assert_close(strategy.layers(), reference.states())


@each_strategy
def test_a_prediction_is_that_of_the_trained_layers(
    build: Build, initial: InitialModel, make_batch: MakeBatch, name: str
) -> None:
    strategy, reference = build(name), Reference(initial, 3)
    strategy.add("a", 2)
    step(strategy, "a", *make_batch(2, 0), AT)
    reference.step(2, make_batch(2, 0))
    activation, _ = make_batch(4, 1)
    deeper = nn.Sequential(reference.layers[5], reference.layers[6]).eval()
    with torch.no_grad():
        expected = deeper(activation).softmax(dim=1)
    for client_id in (None, "a", "somebody"):
        torch.testing.assert_close(strategy.predict(activation, 4, client_id), expected)


@each_strategy
def test_an_unknown_client_can_not_be_removed_twice(build: Build, name: str) -> None:
    strategy = build(name)
    strategy.add("a", 2)
    for client_id in ("a", "a", "b"):
        strategy.remove(client_id)


@each_strategy
def test_runs_of_the_same_batches_are_identical_bit_for_bit(
    build: Build, make_batch: MakeBatch, name: str
) -> None:
    results = []
    for _ in range(2):
        strategy = build(name, momentum=0.9)
        strategy.add("a", 2)
        losses = [step(strategy, "a", *make_batch(2, seed), AT).loss for seed in range(3)]
        strategy.adopt(strategy.copies(0, last=True).get("a", Weights()))
        results.append((losses, strategy.layers()))
    (losses, first), (again, second) = results
    assert losses == again
    for number, state in first.items():
        assert all(torch.equal(value, second[number][name]) for name, value in state.items())


# Sequential.


def test_sequential_trains_one_model_whatever_the_cuts(
    build: Build, initial: InitialModel, make_batch: MakeBatch
) -> None:
    strategy, reference = build("sequential"), Reference(initial, 2)
    cuts = {"deep": 4, "shallow": 1, "middle": 3}
    for client_id, cut in cuts.items():
        strategy.add(client_id, cut)
    for seed, client_id in enumerate(["deep", "shallow", "middle", "shallow", "deep", "deep"]):
        step(strategy, client_id, *make_batch(cuts[client_id], seed), AT)
        reference.step(cuts[client_id], make_batch(cuts[client_id], seed))
    assert_close(strategy.layers(), reference.states())


def test_sequential_grows_by_initial_layers_and_keeps_what_it_has_learned(
    build: Build, initial: InitialModel, make_batch: MakeBatch
) -> None:
    strategy, reference = build("sequential"), Reference(initial, 5)
    strategy.add("deep", 4)
    assert list(strategy.layers()) == [5, 6]
    step(strategy, "deep", *make_batch(4, 0), AT)
    reference.step(4, make_batch(4, 0))
    strategy.add("shallow", 2)
    grown = initial.weights.layers
    assert_close(strategy.layers(), reference.states() | {3: grown[3], 4: grown[4]})
    strategy.remove("shallow")
    assert list(strategy.layers()) == [3, 4, 5, 6]


def test_sequential_has_nothing_to_average(build: Build, make_batch: MakeBatch) -> None:
    strategy = build("sequential")
    strategy.add("a", 2)
    step(strategy, "a", *make_batch(2, 0), AT)
    before = strategy.layers()
    assert strategy.copies(0, last=True) == {}
    strategy.adopt(Weights({5: {name: value + 1 for name, value in before[5].items()}}))
    assert_close(strategy.layers(), before)


# Averaging.


@pytest.fixture
def two_clients(
    build: Build, initial: InitialModel, make_batch: MakeBatch
) -> tuple[Strategy, Reference, Reference]:
    """Clients `a` (cut 1) and `b` (cut 3) after some steps each, and both trained on their own."""
    strategy = build("averaging")
    references = Reference(initial, 2), Reference(initial, 4)
    strategy.add("a", 1)
    strategy.add("b", 3)
    for seed, client_id in enumerate("abbaab"):
        cut, reference = {"a": (1, references[0]), "b": (3, references[1])}[client_id]
        step(strategy, client_id, *make_batch(cut, seed), AT)
        reference.step(cut, make_batch(cut, seed))
    return strategy, *references


def test_replicas_train_independently(two_clients: tuple[Strategy, Reference, Reference]) -> None:
    strategy, first, second = two_clients
    assert_close(replica(strategy, "a"), first.states())
    assert_close(replica(strategy, "b"), second.states())


def test_averages_are_written_back_to_every_holder(
    two_clients: tuple[Strategy, Reference, Reference],
) -> None:
    strategy, first, second = two_clients
    averaged = average([first.states(), second.states()], [20.0, 60.0])
    strategy.adopt(Weights(averaged))
    assert_close(replica(strategy, "a"), averaged)
    assert_close(replica(strategy, "b"), {number: averaged[number] for number in (4, 5, 6)})
    assert_close(strategy.layers(), averaged)


def test_averages_of_layers_that_no_replica_holds_are_the_clients_own(
    two_clients: tuple[Strategy, Reference, Reference], initial: InitialModel
) -> None:
    strategy, first, second = two_clients
    strategy.adopt(Weights({1: initial.weights.layers[1]}))
    assert_close(replica(strategy, "a"), first.states())
    assert_close(replica(strategy, "b"), second.states())
    assert 1 not in strategy.layers()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_replicas_are_aggregated_every_few_rounds_and_after_the_last(
    build: Build, every: int
) -> None:
    strategy = build("averaging", aggregate_every=every)
    strategy.add("a", 4)
    strategy.add("b", 5)
    for round_, last in itertools.product(range(7), (False, True)):
        copies = strategy.copies(round_, last)
        is_due = last or round_ % every == every - 1
        assert {client_id: list(held.layers) for client_id, held in copies.items()} == (
            {"a": [5, 6], "b": [6]} if is_due else {}
        )


def test_a_replica_keeps_its_momentum_over_an_aggregation(
    build: Build, make_batch: MakeBatch
) -> None:
    """With momentum, going on after adopting the very same weights is going on undisturbed."""
    interrupted, straight = build("averaging", momentum=0.9), build("averaging", momentum=0.9)
    for strategy in (interrupted, straight):
        strategy.add("a", 2)
        step(strategy, "a", *make_batch(2, 0), AT)
        if strategy is interrupted:
            strategy.adopt(Weights(replica(strategy, "a")))
        step(strategy, "a", *make_batch(2, 1), AT)
    assert_close(replica(interrupted, "a"), replica(straight, "a"))
    forgetful = build("averaging", momentum=0.9)
    forgetful.add("a", 2)
    step(forgetful, "a", *make_batch(2, 0), AT)
    forgetful.adopt(Weights(replica(forgetful, "a")))
    forgetful.add("a", 2)
    step(forgetful, "a", *make_batch(2, 1), AT)
    assert not is_close(replica(forgetful, "a"), replica(straight, "a"))


def test_a_late_replica_starts_from_the_last_averages(
    two_clients: tuple[Strategy, Reference, Reference], make_batch: MakeBatch
) -> None:
    strategy, first, second = two_clients
    averaged = average([first.states(), second.states()], [1.0, 1.0])
    strategy.adopt(Weights(averaged))
    step(strategy, "a", *make_batch(1, 9), AT)  # not averaged yet
    strategy.add("late", 2)
    assert_close(replica(strategy, "late"), {number: averaged[number] for number in (3, 4, 5, 6)})


def test_a_late_replica_takes_layers_that_nobody_held_from_the_initial_model(
    build: Build, initial: InitialModel, make_batch: MakeBatch
) -> None:
    strategy = build("averaging")
    strategy.add("deep", 4)
    step(strategy, "deep", *make_batch(4, 0), AT)
    averaged = replica(strategy, "deep")
    strategy.adopt(Weights(averaged))
    strategy.add("late", 2)
    fresh = {number: initial.weights.layers[number] for number in (3, 4)}
    assert_close(replica(strategy, "late"), fresh | averaged)
    assert_close(strategy.layers(), fresh | averaged)


def test_a_client_that_comes_back_does_not_get_its_old_replica(
    two_clients: tuple[Strategy, Reference, Reference], initial: InitialModel
) -> None:
    strategy, first, _ = two_clients
    strategy.add("b", 2)
    fresh = {number: initial.weights.layers[number] for number in (3, 4, 5, 6)}
    assert_close(replica(strategy, "b"), fresh)
    assert_close(replica(strategy, "a"), first.states())


def test_predictions_come_from_the_clients_replica_or_the_one_that_reaches_deepest(
    two_clients: tuple[Strategy, Reference, Reference], make_batch: MakeBatch
) -> None:
    strategy, first, second = two_clients
    activation, _ = make_batch(3, 7)
    answers = {}
    for client_id, reference in (("a", first), ("b", second)):
        layers = nn.Sequential(*[reference.layers[number] for number in (4, 5, 6)]).eval()
        with torch.no_grad():
            answers[client_id] = layers(activation).softmax(dim=1)
    assert not torch.allclose(answers["a"], answers["b"])
    for asked, answering in (("a", "a"), ("b", "b"), (None, "a"), ("nobody", "a")):
        actual = strategy.predict(activation, 3, asked)
        torch.testing.assert_close(actual, answers[answering])
    with pytest.raises(RefusedInput, match="no layer 3 yet"):
        strategy.predict(make_batch(2, 0)[0], 2, "b")


def test_without_a_replica_there_is_nothing_to_predict_with(
    build: Build, make_batch: MakeBatch
) -> None:
    strategy = build("averaging")
    strategy.add("a", 2)
    strategy.remove("a")
    assert strategy.copies(0, last=True) == {}
    with pytest.raises(NotTraining, match="nothing to predict with"):
        strategy.predict(make_batch(2, 0)[0], 2, None)
