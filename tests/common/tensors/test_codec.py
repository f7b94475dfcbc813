from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hetero_common.errors import NonFinite, RefusedInput
from hetero_common.tensors.codec import (
    ITEM_BYTES,
    Payload,
    channels,
    decode,
    encode,
    payload_bytes,
    round_trip,
)

Array = npt.NDArray[np.float32]

WIRE_DTYPES = list(ITEM_BYTES)
FP32_MAX = float(np.finfo(np.float32).max)
FP32_EPS = float(np.finfo(np.float32).eps)
FP32_TINIEST = float(np.finfo(np.float32).smallest_subnormal)
FP16_MAX = 65504.0
BF16_MAX = (2 - 2**-7) * 2.0**127

SHAPES = st.sampled_from(
    [(), (0,), (1,), (7,), (0, 3), (3, 0), (4, 3), (2, 3, 5), (2, 3, 4, 4), (2, 0, 4, 4)]
)
MAGNITUDES = st.sampled_from([2e-38, 1e-30, 1.0, 1e3, 1e37, 2e38, FP32_MAX])


@st.composite
def arrays(draw: st.DrawFn, largest: float = FP32_MAX) -> Array:
    """Constant or mixed in sign, from denormal to huge, with an offset that dwarfs the spread."""
    shape = draw(SHAPES)
    bound = float(np.float32(min(draw(MAGNITUDES), largest)))
    elements = st.floats(-bound, bound, width=32)
    if draw(st.booleans()):
        return np.full(shape, draw(elements), np.float32)
    values = draw(hnp.arrays(np.float32, shape, elements=elements))
    if draw(st.booleans()):
        values = (values * np.float32(1e-3) + np.float32(bound / 2)).astype(np.float32)
    return values


def tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


def bfloat16_bytes(values: Array) -> bytes:
    """The upper half of each fp32, rounded to nearest, ties to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def payload(
    wire_dtype: str,
    shape: tuple[int, ...],
    data: bytes,
    minimum: list[float] | None = None,
    maximum: list[float] | None = None,
) -> Payload:
    ranges = (None if r is None else torch.tensor(r) for r in (minimum, maximum))
    return Payload(wire_dtype, shape, memoryview(bytearray(data)), *ranges)


@settings(deadline=None)
@given(arrays())
def test_fp32_is_bit_exact(values: Array) -> None:
    sent = encode(tensor(values), "fp32")
    assert bytes(sent.data) == values.astype("<f4").tobytes()
    assert decode(sent).numpy().tobytes() == values.tobytes()
    assert decode(sent).shape == values.shape


@settings(deadline=None)
@given(arrays(largest=FP16_MAX))
def test_fp16_rounds_to_nearest(values: Array) -> None:
    sent = encode(tensor(values), "fp16")
    assert bytes(sent.data) == values.astype("<f2").tobytes()
    error = np.abs(decode(sent).numpy().astype(np.float64) - values)
    assert (error <= np.maximum(np.abs(values.astype(np.float64)) * 2**-11, 2**-25)).all()


@settings(deadline=None)
@given(arrays(largest=BF16_MAX))
def test_bf16_rounds_to_nearest(values: Array) -> None:
    sent = encode(tensor(values), "bf16")
    assert bytes(sent.data) == bfloat16_bytes(values)
    error = np.abs(decode(sent).numpy().astype(np.float64) - values)
    assert (error <= np.maximum(np.abs(values.astype(np.float64)) * 2**-8, 2.0**-134)).all()


@settings(deadline=None)
@given(arrays())
def test_int8_errs_by_at_most_half_a_step_per_channel(values: Array) -> None:
    sent = encode(tensor(values), "int8")
    arrived = decode(sent).numpy()
    assert arrived.shape == values.shape
    assert sent.data.nbytes == values.size
    by_channel = values.shape if values.ndim > 1 else (1, 1, -1)
    wide = values.astype(np.float64).reshape(by_channel)
    error = np.abs(arrived.astype(np.float64).reshape(wide.shape) - wide)
    for channel in range(channels(values.shape) if values.size else 0):
        held = wide[:, channel]
        bound = (held.max() - held.min()) / 510
        rounding = 8 * FP32_EPS * np.abs(held).max() + FP32_TINIEST
        assert error[:, channel].max() <= bound + rounding


@settings(deadline=None)
@given(arrays(), st.sampled_from(WIRE_DTYPES))
def test_a_round_trip_is_what_the_other_side_decodes(values: Array, wire_dtype: str) -> None:
    small = tensor(np.clip(values, -FP16_MAX, FP16_MAX))
    expected = decode(encode(small, wire_dtype))
    assert torch.equal(round_trip(small, wire_dtype), expected)
    assert (expected.dtype, expected.shape) == (torch.float32, small.shape)


def test_int8_writes_levels_of_each_channels_own_range() -> None:
    first = torch.arange(256.0).view(1, 1, 16, 16)
    activation = torch.cat([first, 3 - first / 4], dim=1)
    sent = encode(activation, "int8")
    assert bytes(sent.data) == bytes(range(256)) + bytes(reversed(range(256)))
    assert sent.minimum is not None
    assert sent.maximum is not None
    assert sent.minimum.tolist() == [0.0, 3 - 255 / 4]
    assert sent.maximum.tolist() == [255.0, 3.0]


@pytest.mark.parametrize(
    ("shape", "ranges"), [((), 1), ((9,), 1), ((9, 2), 2), ((3, 5, 2), 5), ((1, 4, 2, 2), 4)]
)
def test_int8_has_a_range_per_channel(shape: tuple[int, ...], ranges: int) -> None:
    sent = encode(torch.randn(shape), "int8")
    assert channels(shape) == ranges
    assert sent.minimum is not None
    assert sent.minimum.shape == (ranges,)


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 2)),
    st.binary(min_size=3, max_size=3),
)
def test_int8_decodes_by_the_formula_whatever_ranges_are_announced(
    ends: list[tuple[float, float]], levels: bytes
) -> None:
    low, high = [min(pair) for pair in ends], [max(pair) for pair in ends]
    data = levels * len(ends)
    arrived = decode(payload("int8", (1, len(ends), 3), data, low, high)).numpy()
    for channel, (lowest, highest) in enumerate(zip(low, high, strict=True)):
        exact = [lowest + level * (highest - lowest) / 255 for level in levels]
        rounding = 4 * FP32_EPS * max(abs(lowest), abs(highest)) + FP32_TINIEST
        assert np.isfinite(arrived).all()
        np.testing.assert_allclose(
            arrived[0, channel].astype(np.float64), exact, rtol=0, atol=rounding
        )


@pytest.mark.parametrize("value", [0.0, -3.7, 1e-44, FP32_MAX, -FP32_MAX])
def test_a_constant_survives_int8_exactly(value: float) -> None:
    constant = torch.full((2, 3, 4), value)
    assert torch.equal(round_trip(constant, "int8"), constant)


@pytest.mark.parametrize("wire_dtype", WIRE_DTYPES)
def test_bytes_are_row_major_whatever_the_memory_layout(wire_dtype: str) -> None:
    plain = torch.randn(2, 3, 4, 5)
    expected = encode(plain, wire_dtype)
    doubled = torch.randn(2, 3, 8, 5)
    doubled[:, :, ::2] = plain
    layouts = [
        plain.to(memory_format=torch.channels_last),
        plain.transpose(1, 3).contiguous().transpose(1, 3),
        doubled[:, :, ::2],
        plain.double(),
        plain.clone().requires_grad_(),
    ]
    for layout in layouts:
        sent = encode(layout, wire_dtype)
        assert sent.shape == plain.shape
        assert bytes(sent.data) == bytes(expected.data)
        assert torch.equal(decode(sent), decode(expected))


def test_fp32_is_not_copied_on_either_side() -> None:
    activation = torch.zeros(2, 3)
    sent = encode(activation, "fp32")
    arrived = decode(sent)
    activation[1, 2] = 7
    assert arrived[1, 2] == 7


def test_what_is_known_to_be_finite_is_not_looked_at_again() -> None:
    bad = torch.tensor([1.0, math.nan])
    assert math.isnan(encode(bad, "fp32", known_finite=True).data.cast("f")[1])
    with pytest.raises(RefusedInput, match="too large for fp16"):  # what narrowing makes infinite
        encode(torch.tensor([1e6]), "fp16", known_finite=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wire_dtype", WIRE_DTYPES)
def test_not_finite_is_refused_before_it_is_sent(wire_dtype: str, bad: float) -> None:
    activation = torch.zeros(2, 3, 4)
    activation[1, 2, 3] = bad
    with pytest.raises(NonFinite, match=r"^a tensor holds NaN or infinity"):
        encode(activation, wire_dtype)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16", "fp16"])
def test_not_finite_is_refused_when_it_arrives(wire_dtype: str, bad: float) -> None:
    values = np.array([0, bad], np.float32)
    data = {
        "fp32": values.tobytes(),
        "fp16": values.astype(np.float16).tobytes(),
        "bf16": values.view(np.uint16)[1::2].tobytes(),
    }
    with pytest.raises(NonFinite):
        decode(payload(wire_dtype, (2,), data[wire_dtype]))


@pytest.mark.parametrize(
    ("wire_dtype", "fits", "too_large"),
    [("fp16", 65519.0, 65520.0), ("bf16", BF16_MAX, FP32_MAX)],
)
def test_a_value_too_large_for_the_wire_dtype_is_refused(
    wire_dtype: str, fits: float, too_large: float
) -> None:
    assert math.isfinite(round_trip(torch.tensor([-fits]), wire_dtype))
    with pytest.raises(RefusedInput) as caught:
        encode(torch.tensor([0.0, -too_large]), wire_dtype)
    assert str(caught.value) == f"a value is too large for {wire_dtype}: use --wire fp32"


@pytest.mark.parametrize("surplus", [-1, 1, -12])
@pytest.mark.parametrize("wire_dtype", WIRE_DTYPES)
def test_a_wrong_number_of_bytes_is_refused(wire_dtype: str, surplus: int) -> None:
    size = 12 * ITEM_BYTES[wire_dtype]
    came = bytes(max(0, size + surplus))
    with pytest.raises(RefusedInput) as caught:
        decode(payload(wire_dtype, (4, 3), came, [0.0] * 3, [1.0] * 3))
    assert str(caught.value) == (
        f"a {wire_dtype} tensor of shape (4, 3) takes {size} bytes, {len(came)} came"
    )


def test_a_shape_whose_size_overflows_64_bits_is_refused() -> None:
    shape = (2**32 - 1,) * 4
    assert payload_bytes(shape, "fp32") == 4 * (2**32 - 1) ** 4
    with pytest.raises(RefusedInput, match=r"takes \d+ bytes, 0 came"):
        decode(payload("fp32", shape, b""))


@pytest.mark.parametrize(
    ("minimum", "maximum", "reason"),
    [
        (None, None, "takes one range per channel"),
        ([0.0] * 3, None, "takes one range per channel"),
        (None, [1.0] * 3, "takes one range per channel"),
        ([0.0] * 2, [1.0] * 2, "takes one range per channel"),
        ([0.0] * 3, [1.0] * 4, "takes one range per channel"),
        ([0.0] * 4, [1.0] * 4, "takes one range per channel"),
        ([0.0, 2.0, 0.0], [1.0] * 3, "maximum below its minimum"),
        ([0.0, math.nan, 0.0], [1.0] * 3, "NaN or infinity"),
        ([0.0] * 3, [1.0, math.nan, 1.0], "NaN or infinity"),
        ([-math.inf, 0.0, 0.0], [1.0] * 3, "NaN or infinity"),
        ([0.0] * 3, [1.0, 1.0, math.inf], "NaN or infinity"),
    ],
)
def test_wrong_int8_ranges_are_refused(
    minimum: list[float] | None, maximum: list[float] | None, reason: str
) -> None:
    with pytest.raises(RefusedInput, match=reason):
        decode(payload("int8", (4, 3), bytes(12), minimum, maximum))


def test_an_unknown_wire_dtype_is_refused_both_ways() -> None:
    sent = dataclasses.replace(encode(torch.zeros(3), "fp32"), wire_dtype="fp8")
    for attempt in (lambda: encode(torch.zeros(3), "fp8"), lambda: decode(sent)):
        with pytest.raises(RefusedInput) as caught:
            attempt()
        assert str(caught.value) == ("unknown wire dtype 'fp8': use one of fp32, bf16, fp16, int8")
