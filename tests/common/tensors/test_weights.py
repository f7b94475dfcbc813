from __future__ import annotations

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from hetero_common.errors import NonFinite, RefusedInput, SettingsError
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights, layer_states, load_states, numbered, read_file


def example() -> Weights:
    """Every kind of tensor that a client's layers hold."""
    generator = torch.Generator().manual_seed(0)

    def layer(*shape: int) -> dict[str, Tensor]:
        return {
            "conv.weight": torch.randn(shape, generator=generator),
            "bn.num_batches_tracked": torch.tensor(7),
            "empty": torch.empty(0, 3),
        }

    return Weights(
        {1: layer(4, 3, 2, 2), 12: layer(2, 2)},
        {12: {"linear.bias": torch.tensor([-0.0, 1e-45, 3e38])}},
    )


def assert_equal(actual: LayerStates, expected: LayerStates) -> None:
    assert actual.keys() == expected.keys()
    for number, state in expected.items():
        assert actual[number].keys() == state.keys()
        for name, tensor in state.items():
            found = actual[number][name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert found.numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def with_header(header: dict[str, object], data: bytes = b"") -> bytes:
    """A safetensors file written by hand: length of the header, header, data."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# Bytes.


def test_weights_come_back_bit_for_bit() -> None:
    weights = example()
    back = Weights.from_bytes(weights.to_bytes())
    assert_equal(back.layers, weights.layers)
    assert_equal(back.exits, weights.exits)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.booleans(), st.integers(0, 200), st.text(min_size=1, max_size=8)),
        st.lists(st.floats(width=32, allow_nan=False), max_size=4),
        max_size=6,
    )
)
def test_any_names_come_back(entries: dict[tuple[bool, int, str], list[float]]) -> None:
    weights = Weights()
    for (is_exit, number, name), values in entries.items():
        states = weights.exits if is_exit else weights.layers
        states.setdefault(number, {})[name] = torch.tensor(values)
    back = Weights.from_bytes(weights.to_bytes())
    assert_equal(back.layers, weights.layers)
    assert_equal(back.exits, weights.exits)


def test_the_memory_layout_is_not_written() -> None:
    plain = example()
    turned = example()
    weight = turned.layers[1]["conv.weight"]
    turned.layers[1]["conv.weight"] = weight.to(memory_format=torch.channels_last)
    assert turned.to_bytes() == plain.to_bytes()


def test_the_size_is_that_of_all_tensors() -> None:
    assert example().nbytes == 4 * (48 + 4 + 3) + 2 * 8
    assert Weights().nbytes == 0


@pytest.mark.parametrize(
    "name",
    [
        "weight",
        "layers",
        "layers.1",
        "layers.1.",
        "layers..weight",
        "layers.one.weight",
        "layers.-1.weight",
        "layers.1e3.weight",
        "layers.².weight",
        "layers." + "9" * 5000 + ".weight",
        "heads.1.weight",
        ".1.weight",
        "optimizer.layers.1.weight",
    ],
)
def test_tensors_of_foreign_names_are_refused(name: str) -> None:
    data = save({"layers.1.weight": torch.zeros(2), name: torch.zeros(2)})
    with pytest.raises(RefusedInput) as caught:
        Weights.from_bytes(data)
    assert str(caught.value) == "the weights hold a tensor that is no layer's and no exit's"


def test_a_file_cut_short_anywhere_is_refused() -> None:
    data = Weights({1: {"w": torch.ones(3)}}, {1: {"b": torch.ones(2)}}).to_bytes()
    for length in range(len(data)):
        with pytest.raises(RefusedInput) as caught:
            Weights.from_bytes(data[:length])
        assert str(caught.value) == "the weights are not a valid safetensors file"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F6_E2M3", "F4", "C64", "F128", "pickle"])
def test_a_dtype_of_no_weights_is_refused_at_the_latest_by_the_schema(dtype: str) -> None:
    size = {"F6_E2M3": 6, "F4": 4, "C64": 64}.get(dtype, 8)
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}
    data = with_header({"layers.1.weight": entry}, bytes(size))
    with pytest.raises(RefusedInput):
        Weights.from_bytes(data).require_like(Weights({1: {"weight": torch.zeros(8)}}))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(Weights({1: {"w": torch.ones(3)}}).to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RefusedInput):
        Weights.from_bytes(bytes(damaged))


class Bomb:
    """Goes off when it is unpickled."""

    exploded = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return explode, ()


def explode() -> None:
    Bomb.exploded = True


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    pickled = pickle.dumps(Bomb())
    saved = io.BytesIO()
    torch.save({"layers.1.weight": Bomb()}, saved)
    for data in (pickled, saved.getvalue()):
        with pytest.raises(RefusedInput):
            Weights.from_bytes(data)
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(SettingsError):
            read_file(tmp_path / "model.safetensors")
    assert not Bomb.exploded
    pickle.loads(pickled)
    assert Bomb.exploded  # the fuse was dry


# The agreed schema.


def test_weights_of_the_agreed_schema_pass_whatever_their_values() -> None:
    trained = example()
    trained.layers[1]["conv.weight"] += 1
    trained.layers[1]["bn.num_batches_tracked"] += 100
    trained.require_like(example())


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.layers.pop(12),
        lambda w: w.exits.clear(),
        lambda w: w.layers[1].pop("bn.num_batches_tracked"),
        lambda w: w.layers[1].update(extra=torch.zeros(1)),
        lambda w: w.layers.update({2: {"w": torch.zeros(1)}}),
        lambda w: w.exits.update({1: w.layers.pop(1)}),
        lambda w: w.layers[1].update({"conv.weight": torch.zeros(4, 3, 4)}),
        lambda w: w.layers[1].update({"conv.weight": w.layers[1]["conv.weight"].double()}),
        lambda w: w.layers[1].update({"bn.num_batches_tracked": torch.tensor([7])}),
    ],
    ids=[
        "layer missing",
        "exit missing",
        "name missing",
        "name added",
        "layer added",
        "layer as exit",
        "shape",
        "dtype",
        "0-d as 1-d",
    ],
)
def test_weights_of_another_schema_are_refused(change: Callable[[Weights], object]) -> None:
    weights = example()
    change(weights)
    for sent, agreed in ((weights, example()), (example(), weights)):
        with pytest.raises(RefusedInput, match="agreed names, shapes and dtypes"):
            sent.require_like(agreed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["layers", "exits"])
def test_weights_that_are_not_finite_are_refused(kind: str, bad: float) -> None:
    weights = example()
    state = getattr(weights, kind)[12]
    next(iter(state.values())).view(-1)[-1] = bad
    with pytest.raises(NonFinite, match=r"^the weights hold"):
        weights.require_like(example())


# Modules.


def test_states_are_copies_by_layer_number() -> None:
    linear = nn.Linear(2, 3)
    model = nn.Sequential(linear, nn.BatchNorm1d(3), nn.ReLU())
    states = layer_states(numbered(model, first=4))
    assert list(states) == [4, 5, 6]
    assert list(states[5]) == list(model[1].state_dict())
    assert states[6] == {}
    before = states[4]["weight"].clone()
    with torch.no_grad():
        linear.weight.add_(1)
    assert torch.equal(states[4]["weight"], before)


def test_only_the_layers_at_hand_are_loaded() -> None:
    source, target = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    untouched = layer_states(numbered(target))
    states = layer_states(numbered(source))
    load_states(numbered(target), {2: states[2], 3: states[1]})
    now = layer_states(numbered(target))
    assert_equal(now, {1: untouched[1], 2: states[2]})


# Files.


def test_a_file_keeps_weights_and_metadata(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(example().to_bytes({"fingerprint": "abc"}))
    weights, metadata = read_file(file)
    assert_equal(weights.layers, example().layers)
    assert metadata == {"fingerprint": "abc"}


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no weights", example().to_bytes()[:-1], save({"weight": torch.zeros(1)})],
    ids=["missing", "empty", "garbage", "cut short", "foreign"],
)
def test_what_is_no_weights_file(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_file(file)
    assert str(caught.value) == f"{file} is missing or no weights file of a finished run"
