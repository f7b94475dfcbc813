"""How far pushed weights have moved, and which are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from hetero_common.tensors.weights import Weights
from hetero_server.learning.aggregation import Contribution
from hetero_server.learning.pushed_weights import measure, sift
from hetero_server.learning.shared_weights import SharedWeights

CONV = torch.arange(24.0).view(2, 3, 2, 2)
LAYER = {
    "conv.weight": CONV,
    "bn.running_mean": torch.tensor([1.0, 2.0]),
    "bn.running_var": torch.tensor([4.0, 9.0]),
    "bn.num_batches_tracked": torch.tensor(5),
}
EXIT = {"linear.bias": torch.tensor([0.0, 3.0])}
SHARED = SharedWeights({1: LAYER, 2: LAYER}, {1: EXIT, 2: EXIT})


def pushed(changes: Mapping[str, float], client_id: str = "a") -> Contribution:
    """Of the one layer and its exit, with these tensors shifted."""
    flat = {
        name: tensor + changes.get(name.split(".", 2)[2], 0)
        for name, tensor in Weights({1: LAYER}, {1: EXIT}).flat().items()
    }
    return Contribution(client_id, 1, 1.0, Weights.from_flat(flat), steps=8)


def test_weights_and_buffers_are_measured_apart_and_counters_not_at_all() -> None:
    moved = measure(
        pushed({"conv.weight": 0.5, "linear.bias": 2, "bn.num_batches_tracked": 99}), SHARED
    )
    assert moved["update_norm"].norm == pytest.approx(math.sqrt(24 * 0.25 + 2 * 4))
    assert moved["update_norm"].length == pytest.approx(math.sqrt(float(CONV.square().sum()) + 9))
    assert (moved["update_norm"].steps, moved["buffers_norm"].norm) == (8, 0.0)


def test_variances_are_measured_as_deviations() -> None:
    moved = measure(pushed({"bn.running_mean": 1, "bn.running_var": 16}), SHARED)
    deviations = (math.sqrt(20) - 2) ** 2 + (5 - 3) ** 2
    assert moved["buffers_norm"].norm == pytest.approx(math.sqrt(2 + deviations))
    assert moved["buffers_norm"].length == pytest.approx(math.sqrt(1 + 4 + 4 + 9))
    assert moved["update_norm"].norm == 0.0


def test_the_memory_layout_makes_no_difference_to_the_last_bit() -> None:
    torch.manual_seed(0)
    before, after = torch.randn(2, 64, 32, 3, 3)
    norms = set()
    for old in (before, before.to(memory_format=torch.channels_last)):
        for new in (after, after.to(memory_format=torch.channels_last)):
            shared = SharedWeights({1: {"w": old}}, {1: {}})
            given = Contribution("a", 1, 1.0, Weights({1: {"w": new}}, {1: {}}))
            norms.add(measure(given, shared)["update_norm"])
    assert len(norms) == 1


def test_the_order_in_which_tensors_were_read_makes_no_difference_to_the_last_bit() -> None:
    torch.manual_seed(0)
    # Of very different sizes: squares of fp32 of one size add up in fp64 without rounding.
    old = {str(number): torch.randn(50) * 2.0 ** (number % 15) for number in range(40)}
    new = {name: tensor * (1 + torch.randn(50)) for name, tensor in old.items()}
    shared = SharedWeights({1: old}, {1: {}})
    norms = set()
    for first in range(40):
        names = [*[*new][first:], *[*new][:first]]
        layers = {1: {name: new[name] for name in names}}
        given = Contribution("a", 1, 1.0, Weights(layers, {1: {}}))
        norms.add(measure(given, shared)["update_norm"])
    assert len(norms) == 1


@pytest.mark.parametrize(
    ("absurd", "statistic"),
    [
        ({"conv.weight": 1e3}, "update_norm"),
        ({"linear.bias": -1e4}, "update_norm"),
        ({"bn.running_mean": 1e4}, "buffers_norm"),
        ({"bn.running_var": 1e8}, "buffers_norm"),
    ],
)
def test_absurd_weights_are_left_out_and_everything_else_is_kept(
    absurd: dict[str, float], statistic: str
) -> None:
    honest = [
        pushed({"conv.weight": 0.1, "bn.running_mean": 0.1}, "a"),
        pushed({"conv.weight": 0.3, "bn.running_mean": 0.2}, "b"),
    ]
    bad, silent = pushed(absurd, "bad"), Contribution("silent", 1, 1.0, None)
    sifted = sift([*honest, bad, silent], SHARED)
    assert [given.client_id for given in sifted.contributions] == ["a", "b", "bad", "silent"]
    assert sifted.contributions[:2] == honest
    assert sifted.contributions[2] == Contribution("bad", 1, 1.0, None, 8)
    assert {who: outlier.statistic for who, outlier in sifted.left_out.items()} == {
        "bad": statistic
    }
    assert sifted.norms["bad"][statistic] == sifted.left_out["bad"].value
    assert sifted.norms["silent"] == {"update_norm": None, "buffers_norm": None}
