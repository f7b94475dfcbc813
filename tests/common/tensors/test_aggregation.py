from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hetero_common.tensors.aggregation import LayerStates, State, cross_layer_average

WEIGHTS = st.one_of(st.just(0.0), st.integers(1, 100_000).map(float), st.floats(1e-3, 1e3))


def layer(generator: torch.Generator, scale: float = 1.0) -> State:
    """Everything that a state dict may hold."""

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    return {
        "conv.weight": draw(2, 3, 1, 1),
        "scale": draw(),
        "bn.weight": draw(2),
        "bn.running_mean": draw(2),
        "bn.running_var": draw(2).square(),
        "bn.num_batches_tracked": torch.randint(0, 99, (), generator=generator),
        "counts": torch.randint(-9, 9, (1, 3), generator=generator),
        "mask": torch.randint(0, 2, (3,), generator=generator).bool(),
    }


def holder(cuts: range, seed: int, scale: float = 1.0) -> LayerStates:
    generator = torch.Generator().manual_seed(seed)
    return {number: layer(generator, scale) for number in cuts}


@dataclass(frozen=True)
class Case:
    """Holders of parts of a model of five layers: prefixes, suffixes and single layers mixed.

    Attributes:
        parts: First and last layer of each holder.
    """

    parts: list[tuple[int, int]]
    weights: list[float]
    seed: int
    scale: float

    def states(self) -> list[LayerStates]:
        return [
            holder(range(min(part), max(part) + 1), self.seed + index, self.scale)
            for index, part in enumerate(self.parts)
        ]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers = st.integers(1, 5)
    parts = draw(st.lists(st.tuples(layers, layers), min_size=1, max_size=5))
    weights = draw(st.lists(WEIGHTS, min_size=len(parts), max_size=len(parts)))
    scale = draw(st.sampled_from([1e-10, 1.0, 1e10]))
    return Case(parts, weights, draw(st.integers(0, 1000)), scale)


def reference(states: Sequence[LayerStates], weights: Sequence[float]) -> LayerStates:
    """Per layer k and entry, element by element: sum_i w_i theta_{i,k} / sum_i w_i."""
    averaged: LayerStates = {}
    for k in sorted({k for state in states for k in state}):
        held = [
            (state[k], weight) for state, weight in zip(states, weights, strict=True) if k in state
        ]
        if sum(weight for _, weight in held) == 0:
            held = [(state, 1.0) for state, _ in held]
        averaged[k] = {name: reference_entry(held, name) for name in held[0][0]}
    return averaged


def reference_entry(held: list[tuple[State, float]], name: str) -> Tensor:
    first = held[0][0][name]
    values = []
    for index in range(first.numel()):

        def at(state: State, entry: str, index: int = index) -> float:
            return float(state[entry].flatten()[index])

        def mean(numbers: list[float]) -> float:
            products = (w * x for (_, w), x in zip(held, numbers, strict=True))
            return math.fsum(products) / math.fsum(w for _, w in held)

        own = [at(state, name) for state, _ in held]
        if not first.is_floating_point():
            values.append(max(own))
        elif name.endswith("running_var"):
            means = [at(state, name.replace("_var", "_mean")) for state, _ in held]
            spread = mean([(x - mean(means)) ** 2 for x in means])
            values.append(mean(own) + spread)
        else:
            values.append(mean(own))
    return torch.tensor(values, dtype=torch.float64).reshape(first.shape)


def magnitude(layer: State, name: str) -> float:
    """Of the terms that make up an average; a variance's are squares of means as well."""
    mean = layer[name.replace("running_var", "running_mean")].double()
    return float(max(layer[name].double().abs().max(), mean.square().max() if "var" in name else 0))


def assert_averaged(
    states: Sequence[LayerStates], weights: Sequence[float], actual: LayerStates
) -> None:
    expected = reference(states, weights)
    assert list(actual) == list(expected)
    for number, state in expected.items():
        assert list(actual[number]) == list(state)
        for name, value in state.items():
            found = actual[number][name]
            held = [layers[number] for layers in states if number in layers]
            assert found.dtype == held[0][name].dtype
            scale = max(magnitude(layer, name) for layer in held)
            torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-6 * scale)


def assert_identical(first: LayerStates, second: LayerStates) -> None:
    assert first.keys() == second.keys()
    for number, state in first.items():
        assert state.keys() == second[number].keys()
        assert all(torch.equal(value, second[number][name]) for name, value in state.items())


@settings(deadline=None, max_examples=40)
@given(cases())
def test_each_layer_is_the_weighted_mean_of_its_holders(case: Case) -> None:
    states, weights = case.states(), case.weights
    assert_averaged(states, weights, cross_layer_average(states, weights))


def test_uneven_cuts_by_hand() -> None:
    def held(**layers: float) -> LayerStates:
        return {int(k[1:]): {"w": torch.tensor([v])} for k, v in layers.items()}

    states = [held(l1=1.0, l2=2.0, l3=3.0), held(l2=4.0, l3=9.0), held(l3=12.0, l4=7.0)]
    averaged = cross_layer_average(states, [10.0, 30.0, 20.0])
    values = {k: float(state["w"]) for k, state in averaged.items()}
    assert values == {
        1: 1.0,
        2: pytest.approx((10 * 2 + 30 * 4) / 40),
        3: pytest.approx((10 * 3 + 30 * 9 + 20 * 12) / 60),
        4: 7.0,
    }


def test_weights_are_of_this_layers_holders_only() -> None:
    states = [holder(range(1, 3), 0), holder(range(2, 4), 1), holder(range(3, 4), 2)]
    averaged = cross_layer_average(states, [0.0, 0.0, 5.0])
    assert_identical({3: averaged[3]}, {3: cross_layer_average(states[1:], [0.0, 5.0])[3]})
    torch.testing.assert_close(  # nobody's weight counts here, so both count the same
        averaged[2]["conv.weight"],
        (states[0][2]["conv.weight"] + states[1][2]["conv.weight"]) / 2,
    )


@pytest.mark.parametrize("position", [0, 1])
def test_a_weight_of_zero_leaves_the_other_copy(position: int) -> None:
    weights = [3.0, 3.0]
    weights[position] = 0.0
    states = [holder(range(1, 2), 0), holder(range(1, 2), 1)]
    averaged = cross_layer_average(states, weights)[1]
    other = states[1 - position][1]
    for name in ("conv.weight", "bn.running_mean", "bn.running_var", "scale"):
        torch.testing.assert_close(averaged[name], other[name])


def test_a_layer_held_once_is_an_exact_copy_of_its_own() -> None:
    states = [holder(range(1, 3), 0), holder(range(2, 4), 1)]
    before = copy.deepcopy(states)
    averaged = cross_layer_average(states, [0.3, 0.7])
    assert_identical({1: averaged[1]}, {1: states[0][1]})
    assert_identical({3: averaged[3]}, {3: states[1][3]})
    for state in averaged.values():
        for value in state.values():
            value.fill_(1)
    for state_before, state_after in zip(before, states, strict=True):
        assert_identical(state_before, state_after)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.lists(WEIGHTS, min_size=1, max_size=6))
def test_equal_copies_stay_bit_for_bit(seed: int, weights: list[float]) -> None:
    states = [holder(range(1, 3), seed) for _ in weights]
    assert_identical(cross_layer_average(states, weights), states[0])


@settings(deadline=None, max_examples=40)
@given(cases())
def test_a_mean_lies_between_its_copies(case: Case) -> None:
    states, weights = case.states(), case.weights
    for number, state in cross_layer_average(states, weights).items():
        held = [holder[number] for holder in states if number in holder]
        for name in ("conv.weight", "scale", "bn.weight", "bn.running_mean"):
            copies = torch.stack([state[name] for state in held])
            slack = 1e-6 * copies.abs().amax(dim=0)
            assert (state[name] >= copies.amin(dim=0) - slack).all()
            assert (state[name] <= copies.amax(dim=0) + slack).all()
        assert (state["bn.running_var"] >= 0).all()


@settings(deadline=None, max_examples=40)
@given(cases(), st.permutations(range(5)))
def test_the_order_of_the_holders_changes_no_more_than_rounding(
    case: Case, permutation: list[int]
) -> None:
    states, weights = case.states(), case.weights
    order = [index for index in permutation if index < len(states)]
    shuffled = cross_layer_average([states[i] for i in order], [weights[i] for i in order])
    assert_averaged(states, weights, shuffled)


def test_running_statistics_become_those_of_the_pooled_data() -> None:
    torch.manual_seed(0)
    parts = [3 + torch.randn(50, 4), -1 + 2 * torch.randn(150, 4), 5 * torch.randn(20, 4)]
    states: list[LayerStates] = [
        {
            1: {
                "bn.running_mean": part.mean(dim=0),
                "bn.running_var": part.var(dim=0, unbiased=False),
            }
        }
        for part in parts
    ]
    averaged = cross_layer_average(states, [float(len(part)) for part in parts])[1]
    pooled = torch.cat(parts)
    torch.testing.assert_close(averaged["bn.running_mean"], pooled.mean(dim=0))
    torch.testing.assert_close(averaged["bn.running_var"], pooled.var(dim=0, unbiased=False))


def test_each_batchnorm_of_a_layer_is_pooled_with_its_own_mean() -> None:
    def state(first: float, second: float) -> LayerStates:
        entries = {"running_mean": first, "running_var": 1}
        nested = {"block.2.running_mean": second, "block.2.running_var": 1}
        return {1: {name: torch.tensor([float(x)]) for name, x in (entries | nested).items()}}

    averaged = cross_layer_average([state(0, 10), state(2, 30)], [1, 1])[1]
    assert {name: float(value) for name, value in averaged.items()} == {
        "running_mean": 1,
        "running_var": 1 + 1,
        "block.2.running_mean": 20,
        "block.2.running_var": 1 + 100,
    }


def test_a_variance_without_a_mean_is_averaged_like_any_buffer() -> None:
    states: list[LayerStates] = [{1: {"running_var": torch.tensor([v])}} for v in (1.0, 4.0)]
    assert cross_layer_average(states, [2, 1])[1]["running_var"].tolist() == [2.0]


def test_counters_and_masks_take_the_maximum_whatever_the_weights() -> None:
    states: list[LayerStates] = [
        {
            1: {
                "num_batches_tracked": torch.tensor(tracked),
                "mask": torch.tensor(mask),
                "levels": torch.tensor(levels, dtype=torch.uint8),
            }
        }
        for tracked, mask, levels in [
            (7, [True, False, False], [200, 1]),
            (12, [False, True, False], [100, 2]),
        ]
    ]
    averaged = cross_layer_average(states, [100.0, 0.0])[1]
    assert averaged["num_batches_tracked"].equal(torch.tensor(12))
    assert averaged["mask"].equal(torch.tensor([True, True, False]))
    assert averaged["levels"].equal(torch.tensor([200, 2], dtype=torch.uint8))


def test_the_average_of_modules_can_be_loaded_and_carries_no_gradient() -> None:
    def module() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    modules = [module(), module()]
    for held in modules:
        held(torch.randn(8, 3, 2, 2))
    states = [{1: held.state_dict(keep_vars=True)} for held in modules]
    averaged = cross_layer_average(states, [1, 3])
    assert not any(value.requires_grad for value in averaged[1].values())
    module().load_state_dict(averaged[1])
    detached: list[LayerStates] = [{1: dict(held.state_dict())} for held in modules]
    assert_averaged(detached, [1, 3], averaged)


def test_half_precision_stays_half_precision() -> None:
    states: list[LayerStates] = [
        {1: {"weight": torch.tensor([value], dtype=torch.bfloat16)}} for value in (1.0, 2.0)
    ]
    averaged = cross_layer_average(states, [1, 1])[1]["weight"]
    assert averaged.equal(torch.tensor([1.5], dtype=torch.bfloat16))


def test_nobody_holds_nothing() -> None:
    assert cross_layer_average([], []) == {}
    assert cross_layer_average([{}, {}], [1, 2]) == {}


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 2.0, 3.0], [1.0, -0.5]])
def test_one_weight_per_holder_and_none_negative(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="one weight >= 0 per holder"):
        cross_layer_average([holder(range(1, 2), 0), holder(range(1, 2), 1)], weights)
