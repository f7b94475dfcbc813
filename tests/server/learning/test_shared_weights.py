"""What is taken of the weights that clients push."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hetero_common.errors import RefusedInput
from hetero_common.tensors.weight_delta import pack
from hetero_common.tensors.weights import Weights, tensors_to_bytes
from hetero_server.learning.shared_weights import SharedWeights
from support.engine_run import PLAN, initial_model

CUT = 2
Change = Callable[[Tensor], Tensor]


@pytest.fixture
def shared() -> SharedWeights:
    weights = initial_model().weights
    return SharedWeights(weights.layers, weights.exits)


def changed(shared: SharedWeights, name: str, change: Change) -> bytes:
    """What a client may push, but for one tensor."""
    flat = dict(shared.for_cut(CUT).flat())
    flat[name] = change(flat[name])
    return Weights.from_flat(flat).to_bytes()


def with_changes() -> SharedWeights:
    return SharedWeights.of(initial_model().weights, PLAN)


def of_rms(rms: float) -> Change:
    return lambda tensor: torch.full_like(tensor, rms)


TAKEN: dict[str, tuple[str, Change]] = {
    "the same": ("layers.1.conv.weight", lambda tensor: tensor),
    "fifty times the weights": ("layers.1.conv.weight", lambda tensor: 50 * tensor),
    "a bias that began at 0": ("layers.1.bn.bias", of_rms(9.9)),
    "a scale that began at 1": ("layers.2.bn.weight", of_rms(99.0)),
    "an exit": ("exits.2.head.linear.bias", of_rms(5.0)),
    "a large mean": ("layers.1.bn.running_mean", of_rms(-6e4)),
    "a large variance": ("layers.1.bn.running_var", of_rms(6e4**2)),
    "no variance": ("layers.1.bn.running_var", torch.zeros_like),
    "many batches": ("layers.1.bn.num_batches_tracked", lambda n: n + 2**31),
}
REFUSED: dict[str, tuple[str, Change, str]] = {
    "absurd weights": (
        "layers.1.conv.weight",
        of_rms(1e4),
        "the RMS of layers.1.conv.weight is 1e+04, and at most ",
    ),
    "weights whose square is infinite": (
        "layers.2.conv.weight",
        of_rms(1e30),
        "the RMS of layers.2.conv.weight is inf, and at most ",
    ),
    "an absurd bias": (
        "layers.1.bn.bias",
        of_rms(10.1),
        "the RMS of layers.1.bn.bias is 10.1, and at most 10 is taken: lower the client's "
        "learning rate",
    ),
    "an absurd exit": (
        "exits.2.head.linear.weight",
        of_rms(-1e3),
        "the RMS of exits.2.head.linear.weight",
    ),
    "an absurd mean": ("layers.1.bn.running_mean", of_rms(7e4), "and at most 6.55e+04 is taken"),
    "an absurd variance": ("layers.1.bn.running_var", of_rms(7e4**2), "at most 6.55e+04 is taken"),
    "a negative variance": (
        "layers.2.bn.running_var",
        lambda tensor: tensor - 1.001,
        "layers.2.bn.running_var is negative, which no variance is",
    ),
    "a negative counter": (
        "layers.1.bn.num_batches_tracked",
        lambda n: n - 1,
        "layers.1.bn.num_batches_tracked is negative, or has gone on by more than 2^31",
    ),
    "a counter about to overflow": (
        "layers.1.bn.num_batches_tracked",
        lambda n: torch.full_like(n, 2**63 - 1),
        "layers.1.bn.num_batches_tracked is negative, or has gone on by more than 2^31",
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_training_can_give_is_taken(case: str, shared: SharedWeights) -> None:
    name, change = TAKEN[case]
    read = shared.read_pushed(CUT, changed(shared, name, change)).flat()
    assert torch.equal(read[name], change(shared.for_cut(CUT).flat()[name]))


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_training_gives_is_refused(case: str, shared: SharedWeights) -> None:
    name, change, sentence = REFUSED[case]
    with pytest.raises(RefusedInput) as caught:
        shared.read_pushed(CUT, changed(shared, name, change))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_change_is_one_of_what_the_client_has_pulled() -> None:
    shared = with_changes()
    pulled = shared.for_cut(CUT)
    trained = dict(pulled.flat())
    name = "layers.1.conv.weight"
    trained[name] = trained[name] + 2**-20
    data = tensors_to_bytes(pack(Weights.from_flat(trained), pulled, "bf16"))
    read = shared.read_pushed(CUT, data).flat()
    torch.testing.assert_close(read[name], trained[name], rtol=0, atol=2**-24)
    assert not torch.equal(read[name], pulled.flat()[name])


@pytest.mark.parametrize("rms", [1e4, 1e30])
def test_a_change_that_no_training_makes_is_refused(rms: float) -> None:
    shared = with_changes()
    pulled = shared.for_cut(CUT)
    packed = pack(pulled, pulled, "bf16")
    packed["layers.1.conv.weight"] = torch.full_like(packed["layers.1.conv.weight"], rms)
    with pytest.raises(RefusedInput, match=r"^the RMS of layers\.1\.conv\.weight is"):
        shared.read_pushed(CUT, tensors_to_bytes(packed))


def test_weights_are_no_change() -> None:
    shared = with_changes()
    with pytest.raises(RefusedInput, match="is no change of these weights in bf16"):
        shared.read_pushed(CUT, shared.for_cut(CUT).to_bytes())


def test_a_push_that_comes_after_its_round_has_closed_is_read_like_any_other(
    shared: SharedWeights,
) -> None:
    """The shared counters have gone on meanwhile."""
    late = shared.for_cut(CUT).to_bytes()
    later = Weights.from_bytes(late)
    for state in later.layers.values():
        state["bn.num_batches_tracked"] += 100
    shared.take(later)
    shared.read_pushed(CUT, late)
