"""Frames are protobuf, byte for byte, whoever writes and whoever reads them."""

from __future__ import annotations

import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero_common.errors import RefusedInput
from hetero_common.wire import frames
from hetero_common.wire.frames import CHUNK_BYTES, Assembler, Frame
from hetero_splitee.v1 import service_pb2 as pb

MESSAGES: list[type[Message]] = [
    GetMessageClass(message) for message in pb.DESCRIPTOR.message_types_by_name.values()
]
CHUNKED = [message for message in MESSAGES if "chunk" in message.DESCRIPTOR.fields_by_name]

each_message = pytest.mark.parametrize(
    "message", MESSAGES, ids=lambda message: message.DESCRIPTOR.name
)
each_chunked = pytest.mark.parametrize(
    "message", CHUNKED, ids=lambda message: message.DESCRIPTOR.name
)

Read = tuple[bytes, bytes] | None
"""The rest of a message, and its chunk; None for garbage."""


def read_by_protobuf(message: type[Message], data: bytes) -> Read:
    try:
        parsed = message.FromString(data)
    except DecodeError:
        return None
    chunk: bytes = parsed.chunk  # type: ignore[attr-defined]  # all in CHUNKED have it
    parsed.ClearField("chunk")
    return parsed.SerializeToString(deterministic=True), chunk


def read_here(message: type[Message], data: bytes) -> Read:
    try:
        frame = frames.deserializer(message)(data)
    except RefusedInput:
        return None
    assert frame.message is not None or frame.chunk, "there is always something"
    rest = b"" if frame.message is None else frame.message.SerializeToString(deterministic=True)
    return rest, bytes(frame.chunk or b"")


def kinds_of(message: type[Message]) -> list[Message]:
    """A message of each kind, empty but there."""
    filled = []
    for field in message.DESCRIPTOR.fields:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated:
            filled.append(message())
            getattr(filled[-1], field.name).SetInParent()
    return filled


def test_every_stream_of_bulk_bytes_is_covered() -> None:
    assert {message.DESCRIPTOR.name for message in CHUNKED} == {
        *("TrainRequest", "TrainResponse", "PushStateRequest", "PullStateResponse"),
        "PredictRequest",
    }


@each_chunked
def test_a_chunk_is_field_15_beside_whatever_the_message_says(message: type[Message]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    assert fields["chunk"].number == 15
    assert fields["chunk"].cpp_type == FieldDescriptor.CPPTYPE_STRING
    (oneof,) = message.DESCRIPTOR.oneofs
    assert {field.name for field in oneof.fields} == set(fields) - {"chunk"}


@pytest.mark.parametrize("size", [1, 127, 128, 129, 16383, 16384, 16385, CHUNK_BYTES])
@each_chunked
def test_frames_are_written_and_read_as_protobuf_does(message: type[Message], size: int) -> None:
    chunk = (bytes(i % 251 for i in range(251)) * (size // 251 + 1))[:size]
    for kind in (None, *kinds_of(message)):
        expected = message(chunk=chunk)
        if kind is not None:
            expected.MergeFrom(kind)
        data = frames.serialize(Frame(kind, memoryview(chunk)))
        assert data == expected.SerializeToString()
        assert frames.deserializer(message)(data) == Frame(kind, memoryview(chunk))


@each_message
def test_messages_without_bulk_bytes_pass_unchanged(message: type[Message]) -> None:
    for sent in (message(), *kinds_of(message)):
        read = frames.deserializer(message)(frames.serialize(sent))
        assert (read == Frame(sent)) if message in CHUNKED else (read == sent)


@settings(deadline=None)
@given(st.binary(), st.sampled_from(CHUNKED))
def test_any_bytes_are_read_as_protobuf_reads_them(data: bytes, message: type[Message]) -> None:
    assert read_here(message, data) == read_by_protobuf(message, data)


varints = st.lists(st.sampled_from([0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0x82, 0xFF]), max_size=11)
fields = st.builds(
    lambda tag, length, rest: bytes([tag, *length]) + rest,
    st.sampled_from([0x7A, 0x0A, 0x12, 0x1A, 0x08, 0x7D, 0x78, 0x82]),
    varints,
    st.binary(max_size=3),
)


@settings(deadline=None, max_examples=400)
@given(st.lists(fields, max_size=3).map(b"".join), st.sampled_from(CHUNKED))
def test_any_sequence_of_fields_is_read_as_protobuf_reads_it(
    data: bytes, message: type[Message]
) -> None:
    assert read_here(message, data) == read_by_protobuf(message, data)


@each_chunked
def test_of_two_chunks_in_a_message_the_last_one_counts(message: type[Message]) -> None:
    data = b"".join(frames.serialize(Frame(None, memoryview(c))) for c in (b"first", b"last"))
    assert read_here(message, data) == (b"", b"last")


@pytest.mark.parametrize(
    "data", [b"\x7a", b"\x7a\x05four", b"\x7a\xff\xff\xff\xff\xff", b"\x0a\x7f", b"\xff" * 20]
)
@each_message
def test_garbage_is_refused(message: type[Message], data: bytes) -> None:
    with pytest.raises(RefusedInput) as caught:
        frames.deserializer(message)(data)
    assert str(caught.value) == "a message could not be read"


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (0, 1),
        (1, 1),
        (CHUNK_BYTES, 1),
        (CHUNK_BYTES + 1, 2),
        (4 << 20, 4),
        (2 * CHUNK_BYTES + 9, 3),
    ],
)
def test_bulk_bytes_cross_with_their_announcement_and_behind_it(size: int, count: int) -> None:
    data = torch.arange(size, dtype=torch.int64).to(torch.uint8).numpy()
    announcement = pb.PushStateRequest(header=pb.StateHeader(round=3, bytes=size))
    sent = [frames.serialize(frame) for frame in frames.frames(announcement, data.data)]
    assert len(sent) == count
    assert all(len(frame) <= CHUNK_BYTES + 64 for frame in sent)
    read = [frames.deserializer(pb.PushStateRequest)(frame) for frame in sent]
    assert [frame.message for frame in read] == [announcement] + [None] * (count - 1)
    assembler = Assembler(size)
    for frame in read if size else ():
        assert not assembler.is_whole
        assembler.feed(frame.chunk)
    assert assembler.is_whole
    assert bytes(assembler.view()) == data.tobytes()


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(1, 59)))
def test_an_assembler_takes_any_chunking(data: bytes, cuts: list[int]) -> None:
    ends = sorted({cut for cut in cuts if cut < len(data)} | {len(data)})
    assembler = Assembler(len(data))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        assert not assembler.is_whole
        assembler.feed(memoryview(data)[start:end])
    assert assembler.is_whole
    assert bytes(assembler.view()) == data


def test_an_assembler_refuses_surplus_bytes() -> None:
    assembler = Assembler(6)
    assembler.feed(memoryview(b"ab"))
    with pytest.raises(RefusedInput, match=r"^more bytes came than were announced$"):
        assembler.feed(memoryview(b"12345"))
    assembler.feed(memoryview(b"cdef"))  # what was refused left no trace
    assert bytes(assembler.view()) == b"abcdef"
    with pytest.raises(RefusedInput):
        assembler.feed(memoryview(b"g"))
