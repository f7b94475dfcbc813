"""Messages and the values they carry, both ways; frames of bulk bytes.

Bulk bytes travel as messages that hold nothing but `chunk = 15`. Those are written and read here
without protobuf, byte for byte what protobuf would write: protobuf copies a bytes field twice on
each side, which at 4 MiB a batch is most of what a step costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from google.protobuf.message import DecodeError, Message
from pydantic import ValidationError

from hetero_common.codec import ITEM_BYTES, Payload, channels, payload_bytes
from hetero_common.errors import LimitExceeded, Mismatch, RefusedInput, SettingsError
from hetero_common.plan import Plan
from hetero_splitee.v1 import service_pb2, tensor_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FRAME_BYTES = 1 << 20
"""Largest message that carries a chunk, its tag and length included."""

_CHUNK_TAG = b"\x7a"  # field 15, length-delimited
_CHUNK_HEAD = 4  # the tag and a length below 2**21
_CHUNK_BYTES = FRAME_BYTES - _CHUNK_HEAD
_HEAD_BYTES = 1 << 16

_WIRE_DTYPES = {name: getattr(tensor_pb2, f"WIRE_DTYPE_{name.upper()}") for name in ITEM_BYTES}
_DTYPE_NAMES = {value: name for name, value in _WIRE_DTYPES.items()}

M = TypeVar("M", bound=Message)
D = TypeVar("D", bound="DataclassInstance")


def record_to_wire(record: DataclassInstance, message: type[M]) -> M:
    """A record of `hetero_common.control` as its message of the same fields."""
    return message(**{f.name: getattr(record, f.name) for f in dataclasses.fields(record)})


def record_from_wire(message: Message, record: type[D]) -> D:
    """The record of `hetero_common.control` that a message carries."""
    return record(**{f.name: getattr(message, f.name) for f in dataclasses.fields(record)})


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


def wire_dtypes() -> list[tensor_pb2.WireDtype.ValueType]:
    """All wire dtypes this side speaks."""
    return list(_WIRE_DTYPES.values())


def wire_dtype_name(value: int) -> str:
    """Name of a wire dtype, or the empty string for one this side does not know."""
    return _DTYPE_NAMES.get(value, "")


def header_to_wire(payload: Payload) -> tensor_pb2.TensorHeader:
    """What announces a payload, and holds the first bytes of its data; see `payload_chunks`."""
    header = tensor_pb2.TensorHeader(
        dtype=_WIRE_DTYPES[payload.wire_dtype],
        shape=payload.shape,
        head=bytes(payload.data[: _head_bytes(payload.data.nbytes)]),
    )
    if payload.minimum is not None and payload.maximum is not None:
        header.minimum.extend(payload.minimum.tolist())
        header.maximum.extend(payload.maximum.tolist())
    return header


def payload_chunks(payload: Payload) -> Iterator[memoryview]:
    """What follows the header of a payload; nothing is copied."""
    return chunks(payload.data[_head_bytes(payload.data.nbytes) :])


def _head_bytes(size: int) -> int:
    """How much the header holds of `size` bytes: each message costs, of whatever size it is."""
    left_over = size % _CHUNK_BYTES
    return left_over if left_over <= _HEAD_BYTES else 0


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

    def admit(self, header: tensor_pb2.TensorHeader) -> Incoming:
        """Check an announced tensor before a byte of it is allocated.

        Raises:
            RefusedInput: Its dtype, shape or ranges are not the agreed ones, or more bytes came
                with it than it has.
            LimitExceeded: The batch is larger than agreed.
        """
        shape = tuple(header.shape)
        name = wire_dtype_name(header.dtype)
        if name != self.wire_dtype:
            raise RefusedInput(
                f"the agreed wire dtype is {self.wire_dtype}, not {name or 'unknown'}"
            )
        if len(shape) != len(self.item_shape) + 1 or shape[1:] != self.item_shape or shape[0] < 1:
            raise RefusedInput(f"the agreed activation is (batch, {self.item_shape}), not {shape}")
        if shape[0] > self.max_rows:
            raise LimitExceeded(
                f"a batch of {shape[0]} rows is larger than the agreed {self.max_rows}: "
                "send smaller batches"
            )
        ranges = channels(shape) if name == "int8" else 0
        if len(header.minimum) != ranges or len(header.maximum) != ranges:
            raise RefusedInput(f"a {name} activation of shape {shape} takes {ranges} ranges")
        return Incoming(header, shape, name)


class Incoming:
    """A tensor whose chunks are arriving."""

    def __init__(
        self, header: tensor_pb2.TensorHeader, shape: tuple[int, ...], wire_dtype: str
    ) -> None:
        self._header = header
        self._shape = shape
        self._wire_dtype = wire_dtype
        self._bytes = Assembler(payload_bytes(shape, wire_dtype))
        if header.head:
            self._bytes.feed(memoryview(header.head))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing any more."""
        return self._bytes.is_full

    def feed(self, chunk: memoryview) -> bool:
        """Take the next chunk; True when the tensor is whole."""
        return self._bytes.feed(chunk)

    def payload(self) -> Payload:
        """The whole tensor, not yet checked for NaN and infinity: `codec.decode` does."""
        ranges = (
            torch.tensor(list(self._header.minimum)) if self._header.minimum else None,
            torch.tensor(list(self._header.maximum)) if self._header.maximum else None,
        )
        return Payload(self._wire_dtype, self._shape, self._bytes.view(), *ranges)


def incoming(header: tensor_pb2.TensorHeader) -> Incoming:
    """A tensor from the trusted side, whose header is taken at its word."""
    return Incoming(header, tuple(header.shape), wire_dtype_name(header.dtype))


class Assembler:
    """Collects the chunks of one announced size.

    Args:
        size: Bytes to come; agreed or checked before, since they are allocated at once.
    """

    def __init__(self, size: int) -> None:
        self._buffer = np.empty(size, np.uint8)
        self._filled = 0

    @property
    def is_full(self) -> bool:
        """Whether everything has come."""
        return self._filled == self._buffer.nbytes

    def feed(self, chunk: memoryview) -> bool:
        """Take the next chunk; True when everything has come.

        Raises:
            RefusedInput: More bytes came than were announced, or none.
        """
        end = self._filled + chunk.nbytes
        if chunk.nbytes == 0 or end > self._buffer.nbytes:
            raise RefusedInput("a chunk is empty or exceeds the announced size")
        self._buffer[self._filled : end] = chunk
        self._filled = end
        return self.is_full

    def view(self) -> memoryview:
        """The collected bytes."""
        return self._buffer.data


def chunks(data: memoryview) -> Iterator[memoryview]:
    """Slices of `data` that each fit a frame; nothing is copied."""
    for start in range(0, data.nbytes, _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


def serialize(message: Message | memoryview) -> bytes:
    """A message, or a chunk given as a bare memoryview, as the bytes of its frame."""
    if isinstance(message, memoryview):
        return b"".join((_chunk_head(message.nbytes), message))
    return message.SerializeToString()


def deserializer(message: type[M]) -> Callable[[bytes], M | memoryview]:
    """Reads frames: a chunk comes back as a memoryview, anything else as `message`.

    The function it returns raises RefusedInput on bytes that are no such message.
    """
    has_chunks = "chunk" in message.DESCRIPTOR.fields_by_name

    def parse(data: bytes) -> M | memoryview:
        chunk = _sole_chunk(data) if has_chunks else None
        if chunk is not None:
            return chunk
        try:
            parsed = message.FromString(data)
        except DecodeError:
            raise RefusedInput("a message could not be read") from None
        if has_chunks and parsed.WhichOneof("kind") == "chunk":
            return memoryview(parsed.chunk)  # type: ignore[attr-defined] # all that have chunks do
        return parsed

    return parse


def _chunk_head(size: int) -> bytes:
    """Tag and length, a varint, of a chunk of `size` bytes."""
    head = bytearray(_CHUNK_TAG)
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def _sole_chunk(data: bytes) -> memoryview | None:
    """The chunk of a frame as `serialize` writes it; whatever else is protobuf's to read."""
    for length in range(2, min(_CHUNK_HEAD, len(data)) + 1):
        if data[:length] == _chunk_head(len(data) - length):
            return memoryview(data)[length:]
    return None
