from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hetero_common.errors import RefusedInput
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights
from hetero_server.learning.aggregation import BoundaryResult, Contribution, cross_boundary
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch

LAYERS = 4
Values = dict[int, float]
"""A layer's number and the one weight it has in these tests."""


def states(values: Values) -> LayerStates:
    return {number: {"w": torch.tensor([value])} for number, value in values.items()}


def values(layers: Mapping[int, Mapping[str, Tensor]]) -> Values:
    return {number: float(state["w"]) for number, state in layers.items()}


@dataclass
class FakeStrategy:
    """Holds the copies it is given and remembers what it is told."""

    is_joint = False
    minds_order = True
    replicas: dict[str, Values] = field(default_factory=dict)
    kept: Values = field(default_factory=dict)
    adopted: list[Values] = field(default_factory=list)
    asked: list[tuple[int, bool]] = field(default_factory=list)

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        self.asked.append((round_, last))
        return {client_id: Weights(states(replica)) for client_id, replica in self.replicas.items()}

    def adopt(self, averaged: Weights) -> None:
        self.adopted.append(values(averaged.layers))
        self.kept |= {k: v for k, v in values(averaged.layers).items() if k in self.kept}

    def layers(self) -> LayerStates:
        return states(self.kept)

    def checkpoint(self) -> Mapping[str, Tensor]:
        raise AssertionError("not at a boundary")

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        raise AssertionError("not at a boundary")

    def add(self, client_id: str, cut_layer: int) -> None:
        raise AssertionError("not at a boundary")

    def remove(self, client_id: str) -> None:
        raise AssertionError("not at a boundary")

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        raise AssertionError("not at a boundary")

    def nbytes(self) -> int:
        return 0

    def forget_statistics(self, client_id: str) -> None:
        raise AssertionError("not at a boundary")

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        raise AssertionError("not at a boundary")


def contribution(
    client_id: str, weight: float, prefix: list[float], exit_: float = 0.0
) -> Contribution:
    """A client's part: the weight of each layer of its prefix, and its exit's."""
    cut = len(prefix)
    pushed = Weights(states(dict(enumerate(prefix, start=1))), states({cut: exit_}))
    return Contribution(client_id, cut, weight, pushed)


SHALLOW = contribution("shallow", 10.0, [1.0], exit_=5.0)
MIDDLE = contribution("middle", 30.0, [5.0, 7.0], exit_=6.0)
OTHER = contribution("other", 60.0, [11.0, 2.0], exit_=8.0)
CLIENTS = [SHALLOW, MIDDLE, OTHER]


def cross(
    strategy: FakeStrategy,
    contributions: list[Contribution],
    *,
    average_clients: bool = True,
    last: bool = False,
) -> BoundaryResult:
    return cross_boundary(strategy, contributions, 3, average_clients=average_clients, last=last)


def test_clients_are_averaged_over_whoever_holds_a_layer_or_an_exit() -> None:
    strategy = FakeStrategy()
    result = cross(strategy, CLIENTS)
    assert result.model is None
    assert result.shared is not None
    assert values(result.shared.layers) == {
        1: pytest.approx((10 * 1 + 30 * 5 + 60 * 11) / 100),
        2: pytest.approx((30 * 7 + 60 * 2) / 90),
    }
    assert values(result.shared.exits) == {1: 5.0, 2: pytest.approx((30 * 6 + 60 * 8) / 90)}
    assert strategy.adopted == []


def test_a_layer_is_averaged_over_its_copies_on_both_sides() -> None:
    strategy = FakeStrategy({"shallow": {2: 100.0, 3: 4.0}, "middle": {3: 8.0}, "other": {3: 0.0}})
    result = cross(strategy, CLIENTS)
    assert result.shared is not None
    expected = {
        1: pytest.approx((10 * 1 + 30 * 5 + 60 * 11) / 100),
        2: pytest.approx((10 * 100 + 30 * 7 + 60 * 2) / 100),
        3: pytest.approx((10 * 4 + 30 * 8 + 60 * 0) / 100),
    }
    assert values(result.shared.layers) == expected
    assert strategy.adopted == [expected]


def test_without_client_aggregation_only_replicas_are_averaged() -> None:
    strategy = FakeStrategy({"shallow": {2: 100.0, 3: 4.0}, "middle": {3: 8.0}, "other": {3: 0.0}})
    result = cross(strategy, CLIENTS, average_clients=False)
    assert result == BoundaryResult(aggregated=True, shared=None, model=None)
    assert strategy.adopted == [{2: 100.0, 3: pytest.approx((10 * 4 + 30 * 8) / 100)}]


def test_without_any_aggregation_nothing_changes() -> None:
    strategy = FakeStrategy()
    silent = [replace(client, pushed=None) for client in CLIENTS]
    result = cross(strategy, silent, average_clients=False)
    assert result == BoundaryResult(aggregated=False, shared=None, model=None)
    assert strategy.adopted == []


def test_replicas_of_clients_that_did_not_contribute_do_not_count() -> None:
    strategy = FakeStrategy({"middle": {3: 8.0}, "joined late": {2: 50.0, 3: 1000.0}})
    cross(strategy, [MIDDLE], average_clients=False)
    assert strategy.adopted == [{3: 8.0}]


def test_clients_that_contributed_nothing_count_the_same() -> None:
    idle = [replace(client, weight=0.0) for client in (MIDDLE, OTHER)]
    result = cross(FakeStrategy(), idle)
    assert result.shared is not None
    assert values(result.shared.layers) == {1: 8.0, 2: 4.5}
    assert values(result.shared.exits) == {2: 7.0}


@pytest.mark.parametrize("last", [False, True])
def test_the_strategy_decides_by_round_whether_replicas_take_part(last: bool) -> None:
    strategy = FakeStrategy()
    cross(strategy, [SHALLOW], last=last)
    assert strategy.asked == [(3, last)]


# The assembled model.


def test_after_the_last_round_the_averages_and_the_servers_layers_are_the_model() -> None:
    strategy = FakeStrategy(kept={2: 20.0, 3: 30.0, 4: 40.0})
    result = cross(strategy, CLIENTS, last=True)
    assert result.shared is not None
    assert result.model is not None
    assert values(result.model.layers) == {
        1: values(result.shared.layers)[1],
        2: 20.0,  # the server's: the shallowest cut is 1
        3: 30.0,
        4: 40.0,
    }
    assert values(result.model.exits) == values(result.shared.exits)


def test_the_model_has_the_layers_as_they_are_after_aggregation() -> None:
    strategy = FakeStrategy({"middle": {3: 8.0}, "other": {3: 2.0}}, kept={3: 99.0, 4: 1.0})
    result = cross(strategy, [MIDDLE, OTHER], last=True)
    assert result.model is not None
    assert values(result.model.layers)[3] == pytest.approx((30 * 8 + 60 * 2) / 90)
    assert values(result.model.layers)[4] == 1.0


def test_prefixes_that_were_never_averaged_are_not_mixed_in_the_model() -> None:
    strategy = FakeStrategy(kept={2: 20.0, 3: 30.0, 4: 40.0})
    result = cross(strategy, CLIENTS, average_clients=False, last=True)
    assert result.shared is None
    assert result.model is not None
    assert values(result.model.layers) == {1: 1.0, 2: 20.0, 3: 30.0, 4: 40.0}
    assert values(result.model.exits)[1] == 5.0


@pytest.mark.parametrize(
    ("clients", "chosen"),
    [
        ([MIDDLE, OTHER], OTHER),
        ([OTHER, MIDDLE], OTHER),
        ([replace(OTHER, weight=30.0), MIDDLE], MIDDLE),
        ([OTHER, SHALLOW, MIDDLE], SHALLOW),
    ],
    ids=["most samples", "in any order", "first by id", "shallowest"],
)
def test_whose_prefix_the_model_gets(clients: list[Contribution], chosen: Contribution) -> None:
    strategy = FakeStrategy(kept={2: 20.0, 3: 30.0, 4: 40.0})
    result = cross(strategy, clients, average_clients=False, last=True)
    assert result.model is not None
    assert chosen.pushed is not None
    prefix = {k: v for k, v in values(result.model.layers).items() if k <= chosen.cut_layer}
    assert prefix == values(chosen.pushed.layers)
    assert list(values(result.model.layers)) == [1, 2, 3, 4]


@pytest.mark.parametrize("clients", [[MIDDLE, OTHER], [OTHER, MIDDLE]])
def test_the_model_gets_the_exit_that_belongs_to_its_prefix(clients: list[Contribution]) -> None:
    strategy = FakeStrategy(kept={3: 30.0, 4: 40.0})
    result = cross(strategy, [SHALLOW, *clients], average_clients=False, last=True)
    assert result.model is not None
    assert values(result.model.exits)[1] == 5.0
    result = cross(strategy, clients, average_clients=False, last=True)
    assert result.model is not None
    assert values(result.model.exits) == {2: 8.0}  # OTHER's: it has more samples


@st.composite
def boundaries(draw: st.DrawFn) -> tuple[FakeStrategy, list[Contribution], bool]:
    """Any clients, with or without replicas, with or without client aggregation."""
    numbers = st.floats(-100, 100, width=32)
    clients, strategy = [], FakeStrategy()
    has_replicas = draw(st.booleans())
    for client_id in draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)):
        prefix = draw(st.lists(numbers, min_size=1, max_size=LAYERS - 1))
        weight = draw(st.one_of(st.just(0.0), st.floats(1, 1e4)))
        clients.append(contribution(client_id, weight, prefix, draw(numbers)))
        if has_replicas:
            strategy.replicas[client_id] = {
                number: draw(numbers) for number in range(len(prefix) + 1, LAYERS + 1)
            }
    return strategy, clients, draw(st.booleans())


@settings(deadline=None)
@given(boundaries())
def test_every_layer_is_the_weighted_mean_of_all_its_copies(
    case: tuple[FakeStrategy, list[Contribution], bool],
) -> None:
    strategy, clients, average_clients = case
    copies: dict[int, list[tuple[float, float]]] = {}
    for client in clients:
        own = values(client.pushed.layers) if average_clients and client.pushed else {}
        for number, value in (strategy.replicas.get(client.client_id, {}) | own).items():
            copies.setdefault(number, []).append((value, client.weight))
    expected = {}
    for number, held in copies.items():
        total = sum(weight for _, weight in held)
        mean = sum(v * w for v, w in held) / total if total else sum(v for v, _ in held) / len(held)
        expected[number] = pytest.approx(mean, rel=1e-4, abs=1e-3)
    result = cross(strategy, clients, average_clients=average_clients)
    assert strategy.adopted == ([expected] if strategy.replicas else [])
    assert result.aggregated == (average_clients or bool(strategy.replicas))
    if average_clients:
        assert result.shared is not None
        assert values(result.shared.layers) == expected
    else:
        assert result.shared is None
