"""Tensors to bytes and back: the four wire dtypes.

A payload is raw little-endian bytes in row-major order beside its dtype and shape. `int8`
is affine with one range per channel (dimension 1; one range for tensors of fewer dimensions):

    q = round((x - minimum) / step),  x' = minimum + q * step,  step = (maximum - minimum) / 255

so that |x - x'| <= (maximum - minimum) / 510 in each channel, plus the rounding of fp32.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch

from hetero_common.errors import NonFinite, RefusedInput
from hetero_common.registry import Registry

if sys.byteorder != "little":
    raise ImportError("hetero-splitee writes little-endian tensors and has no byte swap yet")

WIRE_DTYPES: Registry[int] = Registry("wire dtype", takes_own=False)
"""Bytes per element. Both sides speak all of them, so a new one is a change of the protocol."""

for _name, _summary, _bytes in (
    ("fp32", "exactly", 4),
    ("bf16", "8 bits of precision at any size", 2),
    ("fp16", "11 bits of precision up to 65504", 2),
    ("int8", "255 levels between the extremes of each channel", 1),
):
    WIRE_DTYPES.add(_name, _summary)(_bytes)

ITEM_BYTES = {entry.name: entry.thing for entry in WIRE_DTYPES.entries()}
"""Bytes per element of each wire dtype, in the order they are listed everywhere."""

LARGEST_ACTIVATION = 65504.0
"""Largest absolute value of an activation, and what fp16 can carry. Far larger finite values would
make BatchNorm's running variance infinite, and with it the layer useless,
before any loss shows it."""

_TORCH_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LEVELS = 255
# Outside these ranges (maximum - minimum) fp32 would overflow, or lose the step to underflow.
_FP32_SAFE_RANGE = (1e-30, 1e38)


@dataclass(frozen=True)
class Payload:
    """A tensor as it travels.

    Attributes:
        wire_dtype: One of `ITEM_BYTES`.
        shape: Sizes, outermost first; () for a scalar.
        data: `prod(shape) * ITEM_BYTES[wire_dtype]` bytes.
        minimum: Smallest value per channel, fp32 (channels,); int8 only.
        maximum: Largest value per channel, fp32 (channels,); int8 only.
    """

    wire_dtype: str
    shape: tuple[int, ...]
    data: memoryview
    minimum: torch.Tensor | None = None
    maximum: torch.Tensor | None = None


def payload_bytes(shape: tuple[int, ...], wire_dtype: str) -> int:
    """Size of a payload's data, in Python integers so that no shape can overflow it."""
    return math.prod(shape) * ITEM_BYTES[wire_dtype]


def channels(shape: tuple[int, ...]) -> int:
    """Return how many int8 ranges a tensor of this shape has."""
    return shape[1] if len(shape) > 1 else 1


def encode(tensor: torch.Tensor, wire_dtype: str, *, known_finite: bool = False) -> Payload:
    """Turn a float tensor into a payload. The fp32 payload of a contiguous tensor is a view.

    Args:
        tensor: Of any shape.
        wire_dtype: One of `ITEM_BYTES`.
        known_finite: The caller has seen to it that there is no NaN and no infinity, and saves
            looking at every value again.

    Raises:
        NonFinite: The tensor holds NaN or infinity.
        RefusedInput: A value does not fit `wire_dtype`, or the wire dtype is unknown.
    """
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    shape = tuple(values.shape)
    if wire_dtype == "int8":
        return _encode_int8(values, shape)
    target = _known(wire_dtype)
    if not known_finite:
        _require_finite(values)
    narrow = values.to(target)
    if target is not torch.float32 and not _is_finite(narrow):
        raise RefusedInput(f"a value is too large for {wire_dtype}: use --wire fp32")
    return Payload(wire_dtype, shape, _bytes_of(narrow))


def decode(payload: Payload) -> torch.Tensor:
    """Turn a payload into a fp32 tensor. The fp32 tensor shares the payload's memory.

    Raises:
        NonFinite: The payload holds NaN or infinity.
        RefusedInput: Its size, dtype or ranges contradict each other.
    """
    if payload.wire_dtype not in ITEM_BYTES:
        _known(payload.wire_dtype)
    expected = payload_bytes(payload.shape, payload.wire_dtype)
    if payload.data.nbytes != expected:
        raise RefusedInput(
            f"a {payload.wire_dtype} tensor of shape {payload.shape} takes {expected} bytes, "
            f"{payload.data.nbytes} came"
        )
    if payload.wire_dtype == "int8":
        return _decode_int8(payload)
    target = _known(payload.wire_dtype)
    if expected == 0:
        return torch.empty(payload.shape)
    values = torch.frombuffer(payload.data, dtype=target).view(payload.shape)
    _require_finite(values)
    return values.to(torch.float32)


def round_trip(tensor: torch.Tensor, wire_dtype: str) -> torch.Tensor:
    """Return what the other side sees of a tensor; the simulator's stand-in for the wire."""
    return decode(encode(tensor, wire_dtype))


def _encode_int8(values: torch.Tensor, shape: tuple[int, ...]) -> Payload:
    if values.numel() == 0:
        empty = torch.zeros(channels(shape))
        return Payload("int8", shape, memoryview(b""), empty, empty)
    rows = _by_channel(values)
    minimum, maximum = rows.amin(dim=(0, 2)), rows.amax(dim=(0, 2))
    _require_finite(minimum)
    _require_finite(maximum)
    low, step = _affine(minimum, maximum)
    inverse = torch.where(step > 0, 1 / step, torch.zeros_like(step))
    levels = (rows.to(low.dtype) - low).mul_(inverse).round_().clamp_(0, _LEVELS)
    return Payload("int8", shape, _bytes_of(levels.to(torch.uint8)), minimum, maximum)


def _decode_int8(payload: Payload) -> torch.Tensor:
    minimum, maximum = payload.minimum, payload.maximum
    if (
        minimum is None
        or maximum is None
        or not (minimum.numel() == maximum.numel() == channels(payload.shape))
    ):
        raise RefusedInput(f"an int8 tensor of shape {payload.shape} takes one range per channel")
    _require_finite(minimum)
    _require_finite(maximum)
    if bool((maximum < minimum).any()):
        raise RefusedInput("an int8 range has its maximum below its minimum")
    if math.prod(payload.shape) == 0:
        return torch.empty(payload.shape)
    levels = torch.frombuffer(payload.data, dtype=torch.uint8).view(payload.shape)
    low, step = _affine(minimum, maximum)
    values = _by_channel(levels).to(low.dtype).mul_(step).add_(low)
    return values.to(torch.float32).view(payload.shape)


def _affine(minimum: torch.Tensor, maximum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Offset and step per channel, (channels, 1), in the narrowest dtype that can hold them."""
    spread = maximum.double() - minimum.double()
    nonzero = spread[spread > 0]
    lowest, highest = _FP32_SAFE_RANGE
    exact = nonzero.numel() > 0 and (float(nonzero.min()) < lowest or float(spread.max()) > highest)
    dtype = torch.float64 if exact else torch.float32
    return minimum.to(dtype).unsqueeze(1), (spread / _LEVELS).to(dtype).unsqueeze(1)


def _by_channel(tensor: torch.Tensor) -> torch.Tensor:
    """View as (batch, channels, rest), the shape the per-channel arithmetic broadcasts over."""
    if tensor.dim() < 2:
        return tensor.reshape(1, 1, -1)
    return tensor.reshape(tensor.shape[0], tensor.shape[1], -1)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.reshape(-1)
    if flat.stride(0) != 1:  # of at most one element, whose stride torch leaves open
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data


def _known(wire_dtype: str) -> torch.dtype:
    if wire_dtype not in _TORCH_DTYPE:
        raise RefusedInput(f"unknown wire dtype {wire_dtype!r}: use one of {', '.join(ITEM_BYTES)}")
    return _TORCH_DTYPE[wire_dtype]


def _is_finite(values: torch.Tensor) -> bool:
    """One read pass and no temporary, a thirtieth of what `isfinite().all()` takes."""
    if values.numel() == 0 or math.isfinite(values.sum()):
        return True
    low, high = torch.aminmax(values)  # finite values can have a sum that is not
    return math.isfinite(low) and math.isfinite(high)


def _require_finite(values: torch.Tensor) -> None:
    if not _is_finite(values):
        raise NonFinite("a tensor")
