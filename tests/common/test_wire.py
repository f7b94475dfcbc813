from __future__ import annotations

import dataclasses
import inspect
from typing import get_type_hints

import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero_common import codec, control, wire
from hetero_common.control import Evaluate, Evaluation, Finish, RoundDone, StartRound
from hetero_common.errors import LimitExceeded, Mismatch, RefusedInput
from hetero_common.normalization import KNOWN
from hetero_common.plan import Plan
from hetero_common.wire import FRAME_BYTES, Assembler, TensorSchema
from hetero_splitee.v1 import service_pb2, tensor_pb2

MESSAGES: list[type[Message]] = [
    GetMessageClass(message) for message in service_pb2.DESCRIPTOR.message_types_by_name.values()
]
CHUNKED = [message for message in MESSAGES if "chunk" in message.DESCRIPTOR.fields_by_name]
LARGEST_CHUNK = FRAME_BYTES - 4
LARGEST_HEAD = 1 << 16
RECORDS = [
    record
    for _, record in inspect.getmembers(control, dataclasses.is_dataclass)
    if inspect.isclass(record)
]
PYTHON_TYPES = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
}

each_chunked = pytest.mark.parametrize(
    "message", CHUNKED, ids=lambda message: message.DESCRIPTOR.name
)
uint32 = st.integers(0, 2**32 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
rates = st.floats(1e-9, 1e9)

plans = st.builds(
    Plan,
    model=st.sampled_from(["resnet18", "tinycnn", "my.models:build"]),
    width=st.integers(1, 2**32 - 1),
    stem=st.sampled_from(["cifar", "imagenet"]),
    image_size=st.integers(4, 2**32 - 1),
    classes=st.integers(2, 2**32 - 1),
    normalization=st.sampled_from([*KNOWN, "0,0.5,1/0.1,0.2,0.3"]),
    augment=st.sampled_from(["none", "crop", "crop-flip"]),
    batch_size=st.integers(2, 2**32 - 1),
    rounds=st.integers(1, 2**32 - 1),
    steps_per_round=uint32,
    optimizer=st.sampled_from(["sgd", "adam"]),
    client_lr=rates,
    server_lr=rates,
    lr_schedule=st.sampled_from(["constant", "cosine"]),
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, 1),
    grad_clip=st.floats(0, 1e9),
    exit_weight=st.floats(0, 1e9),
    feedback=st.sampled_from(["none", "gradient", "logits"]),
    distill_weight=st.floats(0, 1e9),
    client_aggregation=st.sampled_from(["none", "round"]),
    eval_every=uint32,
    wire=st.sampled_from(list(codec.ITEM_BYTES)),
    precision=st.sampled_from(["fp32", "bf16", "auto"]),
    seed=st.integers(0, 2**63 - 1),
)
records = st.one_of(
    st.builds(StartRound, uint32, uint32, st.booleans(), st.booleans()),
    st.builds(Evaluate, uint32, st.booleans(), st.booleans()),
    st.builds(Finish, st.text()),
    st.builds(RoundDone, uint32, finite, finite),
    st.builds(Evaluation, uint32, uint32, finite, finite, finite, finite, finite),
)


def message_of(record: type) -> type[Message]:
    found: type[Message] = getattr(service_pb2, record.__name__)
    return found


def framed_by_protobuf(message: type[Message], chunk: bytes) -> bytes:
    return message(chunk=chunk).SerializeToString()


def read_by_protobuf(message: type[Message], data: bytes) -> bytes | Message | None:
    """What protobuf reads: a chunk, a message, or None for garbage."""
    try:
        parsed = message.FromString(data)
    except DecodeError:
        return None
    chunk = getattr(parsed, "chunk", b"")
    assert isinstance(chunk, bytes)
    return chunk if parsed.WhichOneof("kind") == "chunk" else parsed


def read_here(message: type[Message], data: bytes) -> bytes | Message | None:
    try:
        parsed = wire.deserializer(message)(data)
    except RefusedInput:
        return None
    return bytes(parsed) if isinstance(parsed, memoryview) else parsed


# Chunks.


def test_every_stream_of_bulk_bytes_is_covered() -> None:
    names = {message.DESCRIPTOR.name for message in CHUNKED}
    assert names == {
        "TrainRequest",
        "TrainResponse",
        "PushStateRequest",
        "PullStateResponse",
        "PredictRequest",
    }


@each_chunked
def test_a_chunk_is_field_15_and_an_alternative_to_everything_else(message: type[Message]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    assert fields["chunk"].number == 15
    assert fields["chunk"].cpp_type == FieldDescriptor.CPPTYPE_STRING
    (oneof,) = message.DESCRIPTOR.oneofs
    assert oneof.name == "kind"
    assert {field.name for field in oneof.fields} == set(fields)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16383, 16384, 16385, LARGEST_CHUNK])
@each_chunked
def test_chunks_are_framed_and_read_as_protobuf_does(message: type[Message], size: int) -> None:
    chunk = bytes(i % 251 for i in range(251)) * (size // 251 + 1)
    chunk = chunk[:size]
    frame = framed_by_protobuf(message, chunk)
    assert wire.serialize(memoryview(chunk)) == frame
    read = wire.deserializer(message)(frame)
    assert isinstance(read, memoryview)
    assert bytes(read) == chunk


@settings(deadline=None)
@given(st.binary(), st.sampled_from(CHUNKED))
def test_any_bytes_are_read_as_protobuf_reads_them(data: bytes, message: type[Message]) -> None:
    assert read_here(message, data) == read_by_protobuf(message, data)


varints = st.lists(st.sampled_from([0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0x82, 0xFF]), max_size=11)


@settings(deadline=None, max_examples=300)
@given(varints.map(bytes), st.binary(max_size=3), st.sampled_from(CHUNKED))
def test_any_length_of_a_chunk_is_read_as_protobuf_reads_it(
    length: bytes, rest: bytes, message: type[Message]
) -> None:
    data = b"\x7a" + length + rest
    assert read_here(message, data) == read_by_protobuf(message, data)


@each_chunked
def test_of_two_chunks_in_a_message_the_last_one_counts(message: type[Message]) -> None:
    frame = framed_by_protobuf(message, b"first") + framed_by_protobuf(message, b"last")
    assert read_here(message, frame) == b"last"


@pytest.mark.parametrize(
    "data", [b"\x7a", b"\x7a\x05four", b"\x7a\xff\xff\xff\xff\xff", b"\x0a\x7f", b"\xff" * 20]
)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.DESCRIPTOR.name)
def test_garbage_is_refused(message: type[Message], data: bytes) -> None:
    with pytest.raises(RefusedInput) as caught:
        wire.deserializer(message)(data)
    assert str(caught.value) == "a message could not be read"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.DESCRIPTOR.name)
def test_other_messages_pass_unchanged(message: type[Message]) -> None:
    assert wire.deserializer(message)(wire.serialize(message())) == message()
    for field in message.DESCRIPTOR.fields:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated:
            filled = message()
            getattr(filled, field.name).SetInParent()
            assert wire.deserializer(message)(wire.serialize(filled)) == filled


@pytest.mark.parametrize(
    "size",
    [0, 1, LARGEST_CHUNK - 1, LARGEST_CHUNK, LARGEST_CHUNK + 1, FRAME_BYTES, 2 * LARGEST_CHUNK + 9],
)
def test_bulk_bytes_cross_in_frames_of_the_agreed_size(size: int) -> None:
    data = torch.arange(size, dtype=torch.int64).to(torch.uint8).numpy()
    frames = [wire.serialize(chunk) for chunk in wire.chunks(data.data)]
    assert len(frames) == -(-size // LARGEST_CHUNK)
    assert all(len(frame) <= FRAME_BYTES for frame in frames)
    assembler = Assembler(size)
    read = wire.deserializer(service_pb2.TrainRequest)
    for number, frame in enumerate(frames, start=1):
        chunk = read(frame)
        assert isinstance(chunk, memoryview)
        assert assembler.feed(chunk) == (number == len(frames))
    assert bytes(assembler.view()) == data.tobytes()


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(1, 59)))
def test_an_assembler_takes_any_chunking(data: bytes, cuts: list[int]) -> None:
    ends = sorted({cut for cut in cuts if cut < len(data)} | {len(data)})
    starts = [0, *ends[:-1]]
    assembler = Assembler(len(data))
    done = [assembler.feed(memoryview(data)[a:b]) for a, b in zip(starts, ends, strict=True)]
    assert done == [False] * (len(ends) - 1) + [True]
    assert bytes(assembler.view()) == data


@pytest.mark.parametrize("surplus", [b"", b"12345"])
def test_an_assembler_refuses_empty_chunks_and_surplus_bytes(surplus: bytes) -> None:
    assembler = Assembler(6)
    assert not assembler.feed(memoryview(b"ab"))
    with pytest.raises(RefusedInput) as caught:
        assembler.feed(memoryview(surplus))
    assert str(caught.value) == "a chunk is empty or exceeds the announced size"
    assert assembler.feed(memoryview(b"cdef"))  # what was refused left no trace
    assert bytes(assembler.view()) == b"abcdef"
    with pytest.raises(RefusedInput):
        assembler.feed(memoryview(b"g"))


# Tensors.


SCHEMA = TensorSchema("fp16", (3, 2, 2), max_rows=8)


def header(
    dtype: int = tensor_pb2.WIRE_DTYPE_FP16,
    shape: tuple[int, ...] = (8, 3, 2, 2),
    minimum: tuple[float, ...] = (),
    maximum: tuple[float, ...] = (),
    head: bytes = b"",
) -> tensor_pb2.TensorHeader:
    announced = tensor_pb2.TensorHeader(shape=shape, minimum=minimum, maximum=maximum, head=head)
    announced.dtype = dtype  # type: ignore[assignment]  # numbers that are no dtype as well
    return announced


@pytest.mark.parametrize("wire_dtype", list(codec.ITEM_BYTES))
def test_an_announced_tensor_arrives_whole(wire_dtype: str) -> None:
    sent = codec.encode(torch.randn(5, 3, 2, 2), wire_dtype)
    schema = TensorSchema(wire_dtype, (3, 2, 2), max_rows=5)
    for receive in (schema.admit, wire.incoming):
        announced = wire.header_to_wire(sent)
        announced.ClearField("head")
        tensor = receive(announced)
        middle = sent.data.nbytes // 2
        assert not tensor.feed(sent.data[:middle])
        assert tensor.feed(sent.data[middle:])
        assert torch.equal(codec.decode(tensor.payload()), codec.decode(sent))


IN_HEAD_AND_CHUNKS = {
    **{0: (0, 0), 1: (1, 0), LARGEST_HEAD: (LARGEST_HEAD, 0), LARGEST_HEAD + 1: (0, 1)},
    **{LARGEST_CHUNK: (0, 1), LARGEST_CHUNK + LARGEST_HEAD: (LARGEST_HEAD, 1)},
    **{LARGEST_CHUNK + LARGEST_HEAD + 1: (0, 2), 4 << 20: (16, 4)},
}


@pytest.mark.parametrize("size", IN_HEAD_AND_CHUNKS)
def test_what_full_chunks_leave_over_travels_in_the_header(size: int) -> None:
    sent = codec.Payload("fp32", (size // 4,), torch.arange(size).to(torch.uint8).numpy().data)
    announced = wire.header_to_wire(sent)
    chunks = list(wire.payload_chunks(sent))
    assert (len(announced.head), len(chunks)) == IN_HEAD_AND_CHUNKS[size]
    assert announced.head + b"".join(chunks) == sent.data


def test_a_tensor_is_whole_with_its_last_byte_wherever_that_travels() -> None:
    data = bytes(range(24))
    for head in (0, 1, 23, 24):
        tensor = SCHEMA.admit(header(shape=(1, 3, 2, 2), head=data[:head]))
        assert tensor.is_whole == (head == 24)
        if head < 24:
            assert tensor.feed(memoryview(data[head:]))
        assert bytes(tensor.payload().data) == data


def test_a_head_longer_than_its_tensor_is_refused() -> None:
    with pytest.raises(RefusedInput, match="exceeds the announced size"):
        SCHEMA.admit(header(shape=(1, 3, 2, 2), head=bytes(25)))


def test_every_row_count_up_to_the_agreed_one_is_admitted() -> None:
    for rows in range(1, 9):
        tensor = SCHEMA.admit(header(shape=(rows, 3, 2, 2)))
        assert tensor.feed(memoryview(bytes(rows * 24)))


@pytest.mark.parametrize(
    ("announced", "reason"),
    [
        (header(dtype=tensor_pb2.WIRE_DTYPE_FP32), "wire dtype is fp16, not fp32"),
        (header(dtype=tensor_pb2.WIRE_DTYPE_UNSPECIFIED), "wire dtype is fp16, not unknown"),
        (header(dtype=99), "wire dtype is fp16, not unknown"),
        (header(shape=()), r"not \(\)"),
        (header(shape=(3, 2, 2)), r"not \(3, 2, 2\)"),
        (header(shape=(8, 3, 2, 2, 1)), r"not \(8, 3, 2, 2, 1\)"),
        (header(shape=(8, 3, 4, 1)), r"not \(8, 3, 4, 1\)"),
        (header(shape=(0, 3, 2, 2)), r"not \(0, 3, 2, 2\)"),
        (header(minimum=(0.0,) * 3, maximum=(1.0,) * 3), "takes 0 ranges"),
        (header(maximum=(1.0,)), "takes 0 ranges"),
    ],
)
def test_a_tensor_that_was_not_agreed_on_is_refused(
    announced: tensor_pb2.TensorHeader, reason: str
) -> None:
    with pytest.raises(RefusedInput, match=reason):
        SCHEMA.admit(announced)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 2), (2, 3), (4, 4), (3, 0)])
def test_an_int8_tensor_without_a_range_per_channel_is_refused(low: int, high: int) -> None:
    announced = header(tensor_pb2.WIRE_DTYPE_INT8, minimum=(0.0,) * low, maximum=(1.0,) * high)
    with pytest.raises(RefusedInput, match=r"takes 3 ranges"):
        TensorSchema("int8", (3, 2, 2), max_rows=8).admit(announced)


@pytest.mark.parametrize("rows", [9, 2**32 - 1])
def test_a_batch_beyond_the_agreed_rows_exceeds_a_limit(rows: int) -> None:
    with pytest.raises(LimitExceeded, match=rf"a batch of {rows} .*larger than the agreed 8"):
        SCHEMA.admit(header(shape=(rows, 3, 2, 2)))


def test_wire_dtypes_are_those_of_the_codec() -> None:
    names = {
        name.removeprefix("WIRE_DTYPE_").lower(): number
        for name, number in tensor_pb2.WireDtype.items()
        if number
    }
    assert list(names) == list(codec.ITEM_BYTES)
    assert wire.wire_dtypes() == list(names.values())
    assert [wire.wire_dtype_name(number) for number in names.values()] == list(names)
    assert wire.wire_dtype_name(0) == wire.wire_dtype_name(99) == ""


# Values of the same fields.


@settings(deadline=None)
@given(plans)
def test_a_plan_crosses_unchanged(plan: Plan) -> None:
    sent = wire.plan_to_wire(plan).SerializeToString()
    assert wire.plan_from_wire(service_pb2.Plan.FromString(sent)) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [("wire", "fp8"), ("optimizer", "lion"), ("batch_size", 0), ("normalization", "svhn")],
)
def test_a_plan_of_another_version_is_a_mismatch(field: str, value: str | int) -> None:
    message = wire.plan_to_wire(Plan())
    setattr(message, field, value)
    with pytest.raises(Mismatch, match=f"{field} is {value!r}, which this client does not know"):
        wire.plan_from_wire(message)


def test_the_plan_and_its_message_have_the_same_fields() -> None:
    fields = service_pb2.Plan.DESCRIPTOR.fields
    assert {field.name for field in fields} == set(Plan.model_fields)
    for field in fields:
        default = Plan.model_fields[field.name].default
        assert type(default) is PYTHON_TYPES[field.cpp_type], field.name


@settings(deadline=None)
@given(records)
def test_a_record_crosses_unchanged(
    record: StartRound | Evaluate | Finish | RoundDone | Evaluation,
) -> None:
    message = message_of(type(record))
    sent = wire.record_to_wire(record, message).SerializeToString()
    assert wire.record_from_wire(message.FromString(sent), type(record)) == record


def test_every_record_of_the_round_control_is_covered() -> None:
    assert set(RECORDS) == {StartRound, Evaluate, Finish, RoundDone, Evaluation}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_and_its_message_have_the_same_fields(record: type) -> None:
    fields = message_of(record).DESCRIPTOR.fields
    types = {field.name: PYTHON_TYPES[field.cpp_type] for field in fields}
    assert get_type_hints(record) == types
