"""The messages of a stream and the bulk bytes they carry.

Bulk bytes travel in the field `chunk = 15` of a stream's messages, 1 MiB at most in each: the first
of them with the message that announces them, the others alone. They are written and read here
without protobuf, byte for byte what protobuf would write: protobuf copies a bytes field twice on
each side, which at 4 MiB a batch is most of what a step costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from hetero_common.errors import RefusedInput

CHUNK_BYTES = 1 << 20
"""Bulk bytes in one message; gRPC takes messages of 4 MiB."""

_CHUNK_TAG = 0x7A  # field 15, length-delimited
_LENGTH_DELIMITED = 2  # the lowest three bits of a tag
_LONGEST_VARINT = 4  # bytes that are read here; what is longer is protobuf's to read

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Frame(Generic[M]):
    """One message of a stream.

    Attributes:
        message: What it says; None if it only carries bulk bytes.
        chunk: The bulk bytes; None if it carries none.
    """

    message: M | None = None
    chunk: memoryview | None = None


def frames(message: M, data: memoryview) -> Iterator[Frame[M]]:
    """An announcement and all its bulk bytes; nothing is copied."""
    yield Frame(message, data[:CHUNK_BYTES] if data.nbytes else None)
    for start in range(CHUNK_BYTES, data.nbytes, CHUNK_BYTES):
        yield Frame(None, data[start : start + CHUNK_BYTES])


def serialize(item: Frame[Any] | Message) -> bytes:
    """A frame, or a message that has no bulk bytes, as protobuf would write it."""
    if not isinstance(item, Frame):
        return item.SerializeToString()
    message = b"" if item.message is None else item.message.SerializeToString()
    if item.chunk is None:
        return message
    return b"".join((message, _chunk_head(item.chunk.nbytes), item.chunk))


def deserializer(message: type[M]) -> Callable[[bytes], Any]:
    """Reads messages that have bulk bytes as `Frame`s, and others as themselves.

    The function it returns raises RefusedInput on bytes that are no such message.
    """

    def parse(data: bytes) -> M:
        try:
            return message.FromString(data)
        except DecodeError:
            raise RefusedInput("a message could not be read") from None

    def parse_frame(data: bytes) -> Frame[M]:
        found = _last_chunk(data)
        if found is not None:
            start, rest = found
            return Frame(parse(data[:start]) if start else None, rest)
        parsed: Any = parse(data)
        chunk = memoryview(parsed.chunk) if parsed.chunk else None
        parsed.ClearField("chunk")
        return Frame(None if chunk and not parsed.ByteSize() else parsed, chunk)

    return parse_frame if "chunk" in message.DESCRIPTOR.fields_by_name else parse


def _chunk_head(size: int) -> bytes:
    """Tag and length, a varint, of a chunk of `size` bytes."""
    head = bytearray((_CHUNK_TAG,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def _last_chunk(data: bytes) -> tuple[int, memoryview] | None:
    """Return where the field `chunk` begins, and what it holds, if it is the message's last one.

    None where it is empty, or anything else is unusual: that is for protobuf to read.
    """
    start = 0
    while start < len(data):
        tag = data[start]
        body, size = _varint(data, start + 1)
        if tag == _CHUNK_TAG:
            is_last = size > 0 and body + size == len(data)
            return (start, memoryview(data)[body:]) if is_last else None
        if tag & 7 != _LENGTH_DELIMITED or tag >= 0x80 or size < 0:
            return None
        start = body + size
    return None


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return where a varint ends, and its value; -1 if it is cut short or unusually long."""
    value = 0
    for index, byte in enumerate(data[start : start + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return start + index + 1, value
    return start, -1


class Assembler:
    """Collects the chunks of one announced size.

    Args:
        size: Bytes to come; agreed or checked before, since they are allocated at once.
    """

    def __init__(self, size: int) -> None:
        self._buffer = np.empty(size, np.uint8)
        self._filled = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything has come."""
        return self._filled == self._buffer.nbytes

    def feed(self, chunk: memoryview) -> None:
        """Take the next chunk.

        Raises:
            RefusedInput: More bytes came than were announced.
        """
        end = self._filled + chunk.nbytes
        if end > self._buffer.nbytes:
            raise RefusedInput("more bytes came than were announced")
        self._buffer[self._filled : end] = chunk
        self._filled = end

    def view(self) -> memoryview:
        """The collected bytes."""
        return self._buffer.data
