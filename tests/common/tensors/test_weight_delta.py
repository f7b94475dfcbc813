"""Pushed weights as what a round has changed of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hetero_common.errors import NonFinite, RefusedInput
from hetero_common.tensors.weight_delta import pack, unpack
from hetero_common.tensors.weights import Weights, tensors_from_bytes, tensors_to_bytes

SIZES = st.floats(-20, 3)


def weights(size: float, seed: int) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    state = {
        "weight": torch.randn(3, 2, generator=draw) * 10**size,
        "bias": torch.randn(3, generator=draw) * 10**size,
        "steps": torch.randint(2**40, (), generator=draw),
        "table": torch.randint(2**40, (2, 2), generator=draw),
    }
    return Weights({1: state}, {1: {"weight": state["weight"].flip(0)}})


def moved(pulled: Weights, change: Weights) -> Weights:
    other = change.flat()
    return Weights.from_flat({name: old + other[name] for name, old in pulled.flat().items()})


@given(SIZES, SIZES, st.integers(0, 9))
def test_a_change_arrives_to_bf16_and_all_else_exactly(
    size: float, change: float, seed: int
) -> None:
    pulled = weights(size, seed)
    trained = moved(pulled, weights(change, seed + 10))
    file = tensors_to_bytes(pack(trained, pulled, "bf16"))
    arrived = unpack(tensors_from_bytes(file), pulled, "bf16").flat()
    for name, tensor in trained.flat().items():
        if not name.endswith("weight"):
            assert torch.equal(arrived[name], tensor)
            continue
        step = (tensor - pulled.flat()[name]).abs()
        most = step / 2**8 + tensor.abs() / 2**23
        assert bool(((arrived[name] - tensor).abs() <= most).all())


def test_a_step_arrives_that_is_below_what_bf16_can_tell_of_its_weight() -> None:
    pulled = Weights({1: {"weight": torch.ones(1, 1)}})
    trained = Weights({1: {"weight": torch.full((1, 1), 1 + 2**-12)}})
    arrived = unpack(pack(trained, pulled, "bf16"), pulled, "bf16")
    assert torch.equal(arrived.layers[1]["weight"], trained.layers[1]["weight"])


def test_fp32_is_the_weights_themselves() -> None:
    pulled, trained = weights(0, 1), weights(0, 2)
    packed = pack(trained, pulled, "fp32")
    arrived = unpack(packed, pulled, "fp32").flat()
    for name, tensor in trained.flat().items():
        assert torch.equal(packed[name], tensor)
        assert torch.equal(arrived[name], tensor)


def test_a_change_takes_half_the_bytes() -> None:
    pulled = Weights({1: {"weight": torch.zeros(64, 64)}})
    sizes = {
        dtype: len(tensors_to_bytes(pack(pulled, pulled, dtype))) for dtype in ("fp32", "bf16")
    }
    assert sizes["fp32"] - sizes["bf16"] == pytest.approx(64 * 64 * 2, abs=16)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(3, 2).half()],
    ids=["weights", "another shape", "another dtype"],
)
def test_what_is_no_change_is_refused(tensor: Tensor) -> None:
    pulled = weights(0, 0)
    packed = pack(pulled, pulled, "bf16") | {"layers.1.weight": tensor}
    with pytest.raises(RefusedInput, match=r"^layers\.1\.weight is no change of these weights in"):
        unpack(packed, pulled, "bf16")


@pytest.mark.parametrize("missing", ["layers.1.weight", "layers.1.bias", "exits.1.weight"])
def test_what_is_missing_or_foreign_stays_so(missing: str) -> None:
    """For whoever compares it with what was agreed."""
    pulled = weights(0, 0)
    packed = pack(pulled, pulled, "bf16")
    del packed[missing]
    with pytest.raises(RefusedInput, match="agreed names"):
        unpack(packed, pulled, "bf16").require_like(pulled)
    foreign = pack(pulled, pulled, "bf16") | {"layers.2.weight": torch.zeros(1)}
    with pytest.raises(RefusedInput, match="agreed names"):
        unpack(foreign, pulled, "bf16").require_like(pulled)


@pytest.mark.parametrize("value", [math.nan, math.inf, -3e38])
def test_a_change_that_leads_nowhere_is_not_finite(value: float) -> None:
    pulled = Weights({1: {"weight": torch.full((1, 1), -3e38)}})
    packed = {"layers.1.weight": torch.full((1, 1), value, dtype=torch.bfloat16)}
    with pytest.raises(NonFinite):
        unpack(packed, pulled, "bf16").require_like(pulled)
