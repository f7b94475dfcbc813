"""Messages and the values they carry, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from google.protobuf.message import Message
from pydantic import ValidationError

from hetero_common.agreement.control import LONGEST_CURVE, OperatingPoint
from hetero_common.agreement.plan import Plan
from hetero_common.agreement.status import MemberStatus, RunStatus
from hetero_common.errors import LimitExceeded, Mismatch, RefusedInput, SettingsError
from hetero_common.tensors.codec import (
    ITEM_BYTES,
    LARGEST_ACTIVATION,
    Payload,
    channels,
    payload_bytes,
)
from hetero_splitee.v1 import service_pb2, tensor_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_WIRE_DTYPES = {name: getattr(tensor_pb2, f"WIRE_DTYPE_{name.upper()}") for name in ITEM_BYTES}
_DTYPE_NAMES = {value: name for name, value in _WIRE_DTYPES.items()}

_TOLD = 8  # dimensions of a wrong shape that are repeated

M = TypeVar("M", bound=Message)
D = TypeVar("D", bound="DataclassInstance")


def record_to_wire(record: DataclassInstance, message: type[M]) -> M:
    """A record of `hetero_common.agreement.control` as its message of the same fields."""
    return message(**dataclasses.asdict(record))


def record_from_wire(message: Message, record: type[D]) -> D:
    """The record of `hetero_common.agreement.control` that a message carries.

    Raises:
        RefusedInput: A curve is longer than agreed.
    """
    values = {f.name: getattr(message, f.name) for f in dataclasses.fields(record)}
    if "curve" in values:
        values["curve"] = _curve_from_wire(values["curve"])
    repeated = {f.name for f in dataclasses.fields(record) if isinstance(f.default, tuple)}
    return record(**values | {name: tuple(values[name]) for name in repeated})


def _curve_from_wire(points: Sequence[Message]) -> tuple[OperatingPoint, ...]:
    if len(points) > LONGEST_CURVE:
        raise RefusedInput(
            f"a curve has at most {LONGEST_CURVE} points, not {len(points)}: leave some out"
        )
    return tuple(record_from_wire(point, OperatingPoint) for point in points)


def plan_to_wire(plan: Plan) -> service_pb2.Plan:
    """The plan as a message of the same fields."""
    return service_pb2.Plan(**plan.model_dump())


def plan_from_wire(message: service_pb2.Plan) -> Plan:
    """The plan a message carries.

    Raises:
        Mismatch: It holds a value that this side does not know.
    """
    values = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    try:
        return Plan(**values)
    except (ValidationError, SettingsError) as error:
        named = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ()
        name = str(named[0]) if named else "normalization"
        raise Mismatch(
            f"the server's {name} is {values[name]!r}, which this client does not know: "
            "install the same version of hetero-splitee on both sides"
        ) from None


def member_to_wire(status: MemberStatus) -> service_pb2.MemberStatus:
    """A client's status as a message; what is None stays unset."""
    values = dataclasses.asdict(status).items()
    return service_pb2.MemberStatus(**{name: value for name, value in values if value is not None})


def status_from_wire(message: service_pb2.GetStatusResponse) -> RunStatus:
    """The status that a message carries."""
    return RunStatus(
        *(message.run_id, message.phase, message.strategy, message.plan.model),
        round=message.round,
        rounds=message.plan.rounds,
        seconds_left=_if_set(message, "seconds_left"),
        saved_seconds=_if_set(message, "saved_seconds"),
        members=tuple(_member_from_wire(member) for member in message.members),
    )


def _member_from_wire(message: service_pb2.MemberStatus) -> MemberStatus:
    fields = (field.name for field in dataclasses.fields(MemberStatus))
    return MemberStatus(**{name: _if_set(message, name) for name in fields})


def _if_set(message: Message, name: str) -> Any:
    has_presence = message.DESCRIPTOR.fields_by_name[name].has_presence
    return None if has_presence and not message.HasField(name) else getattr(message, name)


def wire_dtypes() -> list[tensor_pb2.WireDtype.ValueType]:
    """All wire dtypes this side speaks."""
    return list(_WIRE_DTYPES.values())


def wire_dtype_name(value: int) -> str:
    """Name of a wire dtype, or the empty string for one this side does not know."""
    return _DTYPE_NAMES.get(value, "")


def header_to_wire(payload: Payload) -> tensor_pb2.TensorHeader:
    """Make the header that announces a payload; its data travels in the frames that follow."""
    header = tensor_pb2.TensorHeader(dtype=_WIRE_DTYPES[payload.wire_dtype], shape=payload.shape)
    if payload.minimum is not None and payload.maximum is not None:
        header.minimum.extend(payload.minimum.tolist())
        header.maximum.extend(payload.maximum.tolist())
    return header


@dataclasses.dataclass(frozen=True)
class TensorSchema:
    """What a tensor on a stream must look like.

    Attributes:
        wire_dtype: The agreed wire dtype.
        item_shape: Shape without the batch dimension.
        max_rows: Largest batch dimension.
    """

    wire_dtype: str
    item_shape: tuple[int, ...]
    max_rows: int

    def admit(self, header: tensor_pb2.TensorHeader) -> Announced:
        """Check an announced tensor before a byte of it is allocated.

        Raises:
            RefusedInput: Its dtype, shape or ranges are not the agreed ones.
            LimitExceeded: The batch is larger than agreed.
        """
        shape = tuple(header.shape)
        name = wire_dtype_name(header.dtype)
        if name != self.wire_dtype:
            raise RefusedInput(
                f"the agreed wire dtype is {self.wire_dtype}, not {name or 'unknown'}"
            )
        if len(shape) != len(self.item_shape) + 1 or shape[1:] != self.item_shape or shape[0] < 1:
            # A shape can be a million numbers long, and this becomes a line of a log.
            told = shape if len(shape) <= _TOLD else f"one of {len(shape)} dimensions"
            raise RefusedInput(f"the agreed activation is (batch, {self.item_shape}), not {told}")
        if shape[0] > self.max_rows:
            raise LimitExceeded(
                f"a batch of {shape[0]} rows is larger than the agreed {self.max_rows}: "
                "send smaller batches"
            )
        _require_ranges(header, shape, name)
        return Announced(header, shape, name)


def _require_ranges(header: tensor_pb2.TensorHeader, shape: tuple[int, ...], name: str) -> None:
    ranges = channels(shape) if name == "int8" else 0
    if len(header.minimum) != ranges or len(header.maximum) != ranges:
        raise RefusedInput(f"a {name} activation of shape {shape} takes {ranges} ranges")
    for low, high in zip(header.minimum, header.maximum, strict=True):
        if not -LARGEST_ACTIVATION <= low <= high <= LARGEST_ACTIVATION:  # NaN neither
            raise RefusedInput(
                f"an int8 range rises from its minimum to its maximum, both within "
                f"{LARGEST_ACTIVATION:g} of 0: lower the client's learning rate"
            )


@dataclasses.dataclass(frozen=True)
class Announced:
    """A tensor whose bytes are still to come."""

    header: tensor_pb2.TensorHeader
    shape: tuple[int, ...]
    wire_dtype: str

    @property
    def nbytes(self) -> int:
        """The number of bytes to come; no shape can overflow it."""
        return payload_bytes(self.shape, self.wire_dtype)

    def payload(self, data: memoryview) -> Payload:
        """The whole tensor, not yet checked for NaN and infinity: `codec.decode` does."""
        ranges = (
            torch.tensor(list(self.header.minimum)) if self.header.minimum else None,
            torch.tensor(list(self.header.maximum)) if self.header.maximum else None,
        )
        return Payload(self.wire_dtype, self.shape, data, *ranges)


def announced(header: tensor_pb2.TensorHeader) -> Announced:
    """A tensor from the trusted side, whose header is taken at its word."""
    return Announced(header, tuple(header.shape), wire_dtype_name(header.dtype))
