from __future__ import annotations

import dataclasses
import inspect
import math
from types import GenericAlias
from typing import Any, get_type_hints

import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero_common.agreement import control
from hetero_common.agreement.control import (
    LONGEST_CURVE,
    Evaluate,
    Evaluation,
    Finish,
    OperatingPoint,
    RoundDone,
    StartRound,
)
from hetero_common.agreement.plan import Plan
from hetero_common.errors import LimitExceeded, Mismatch, RefusedInput
from hetero_common.models.normalization import NORMALIZATIONS
from hetero_common.tensors import codec
from hetero_common.wire import messages
from hetero_common.wire.messages import TensorSchema
from hetero_splitee.v1 import service_pb2, tensor_pb2

MESSAGES: list[type[Message]] = [
    GetMessageClass(message) for message in service_pb2.DESCRIPTOR.message_types_by_name.values()
]
RECORDS = [
    record
    for _, record in inspect.getmembers(control, dataclasses.is_dataclass)
    if inspect.isclass(record)
]
PYTHON_TYPES = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
}

uint32 = st.integers(0, 2**32 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
rates = st.floats(1e-9, 1e9)

plans = st.builds(
    Plan,
    model=st.sampled_from(["resnet18", "tinycnn", "my.models:build"]),
    width=st.integers(1, 2**32 - 1),
    stem=st.sampled_from(["cifar", "imagenet"]),
    image_size=st.integers(4, 2**32 - 1),
    classes=st.integers(2, 2**32 - 1),
    normalization=st.sampled_from([*NORMALIZATIONS, "0,0.5,1/0.1,0.2,0.3"]),
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
    logit_adjustment=st.floats(0, 10),
    client_aggregation=st.sampled_from(["none", "round"]),
    eval_every=uint32,
    wire=st.sampled_from(list(codec.ITEM_BYTES)),
    precision=st.sampled_from(["fp32", "bf16", "auto"]),
    seed=st.integers(0, 2**63 - 1),
)
points = st.builds(OperatingPoint, finite, finite, finite)
curves = st.lists(points, max_size=LONGEST_CURVE).map(tuple)
records = st.one_of(
    st.builds(StartRound, uint32, uint32, st.booleans(), st.booleans(), uint32, int32),
    st.builds(Evaluate, uint32, st.booleans(), st.booleans()),
    st.builds(Finish, st.text()),
    st.builds(RoundDone, uint32, finite, finite),
    st.builds(
        Evaluation,
        *(uint32, uint32, *(finite for _ in range(6)), curves),
        *([st.lists(uint32).map(tuple)] * 3),
    ),
    points,
)


def message_of(record: type) -> type[Message]:
    found: type[Message] = getattr(service_pb2, record.__name__)
    return found


# Tensors.


SCHEMA = TensorSchema("fp16", (3, 2, 2), max_rows=8)


def header(
    dtype: int = tensor_pb2.WIRE_DTYPE_FP16,
    shape: tuple[int, ...] = (8, 3, 2, 2),
    minimum: tuple[float, ...] = (),
    maximum: tuple[float, ...] = (),
) -> tensor_pb2.TensorHeader:
    announced = tensor_pb2.TensorHeader(shape=shape, minimum=minimum, maximum=maximum)
    announced.dtype = dtype  # type: ignore[assignment]  # numbers that are no dtype as well
    return announced


@pytest.mark.parametrize("wire_dtype", list(codec.ITEM_BYTES))
def test_an_announced_tensor_arrives_whole(wire_dtype: str) -> None:
    sent = codec.encode(torch.randn(5, 3, 2, 2), wire_dtype)
    schema = TensorSchema(wire_dtype, (3, 2, 2), max_rows=5)
    for receive in (schema.admit, messages.announced):
        tensor = receive(messages.header_to_wire(sent))
        assert tensor.nbytes == sent.data.nbytes
        assert torch.equal(codec.decode(tensor.payload(sent.data)), codec.decode(sent))


def test_every_row_count_up_to_the_agreed_one_is_admitted() -> None:
    for rows in range(1, 9):
        assert SCHEMA.admit(header(shape=(rows, 3, 2, 2))).nbytes == rows * 24


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


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, 0.5),
        (math.nan, 1.0),
        (0.0, math.nan),
        (0.0, math.inf),
        (-math.inf, 0.0),
        (0.0, 65600.0),
        (-1e38, 0.0),
    ],
)
def test_an_int8_range_that_no_training_gives_is_refused_before_its_bytes(
    low: float, high: float
) -> None:
    minimum, maximum = (0.0, low, 0.0), (1.0, high, 1.0)
    announced = header(tensor_pb2.WIRE_DTYPE_INT8, minimum=minimum, maximum=maximum)
    with pytest.raises(RefusedInput) as caught:
        TensorSchema("int8", (3, 2, 2), max_rows=8).admit(announced)
    assert str(caught.value) == (
        "an int8 range rises from its minimum to its maximum, both within 65504 of 0: lower the "
        "client's learning rate"
    )


def test_an_int8_range_may_be_a_point_and_reach_the_largest_activation() -> None:
    ends = (-65504.0, 0.0, 65504.0)
    announced = header(tensor_pb2.WIRE_DTYPE_INT8, minimum=ends, maximum=ends)
    tensor = TensorSchema("int8", (3, 2, 2), max_rows=8).admit(announced)
    assert codec.decode(tensor.payload(memoryview(bytearray(8 * 12)))).amax() == 65504


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
    assert messages.wire_dtypes() == list(names.values())
    assert [messages.wire_dtype_name(number) for number in names.values()] == list(names)
    assert messages.wire_dtype_name(0) == messages.wire_dtype_name(99) == ""


# Values of the same fields.


@settings(deadline=None)
@given(plans)
def test_a_plan_crosses_unchanged(plan: Plan) -> None:
    sent = messages.plan_to_wire(plan).SerializeToString()
    assert messages.plan_from_wire(service_pb2.Plan.FromString(sent)) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [("wire", "fp8"), ("optimizer", "lion"), ("batch_size", 0), ("normalization", "svhn")],
)
def test_a_plan_of_another_version_is_a_mismatch(field: str, value: str | int) -> None:
    message = messages.plan_to_wire(Plan())
    setattr(message, field, value)
    with pytest.raises(Mismatch, match=f"{field} is {value!r}, which this client does not know"):
        messages.plan_from_wire(message)


def test_the_plan_and_its_message_have_the_same_fields() -> None:
    fields = service_pb2.Plan.DESCRIPTOR.fields
    assert {field.name for field in fields} == set(Plan.model_fields)
    for field in fields:
        default = Plan.model_fields[field.name].default
        assert type(default) is PYTHON_TYPES[field.cpp_type], field.name


@settings(deadline=None)
@given(records)
def test_a_record_crosses_unchanged(
    record: StartRound | Evaluate | Finish | RoundDone | Evaluation | OperatingPoint,
) -> None:
    message = message_of(type(record))
    sent = messages.record_to_wire(record, message).SerializeToString()
    assert messages.record_from_wire(message.FromString(sent), type(record)) == record


def test_every_record_of_the_round_control_is_covered() -> None:
    assert set(RECORDS) == {StartRound, Evaluate, Finish, RoundDone, Evaluation, OperatingPoint}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_and_its_message_have_the_same_fields(record: type) -> None:
    fields = message_of(record).DESCRIPTOR.fields
    types: dict[str, Any] = {f.name: PYTHON_TYPES.get(f.cpp_type, OperatingPoint) for f in fields}
    types |= {f.name: GenericAlias(tuple, (types[f.name], ...)) for f in fields if f.is_repeated}
    assert get_type_hints(record) == types


def test_a_curve_that_is_too_long_is_refused_before_it_is_read() -> None:
    points = [service_pb2.OperatingPoint(accuracy=0.5)] * LONGEST_CURVE
    whole = messages.record_from_wire(service_pb2.Evaluation(curve=points), Evaluation)
    assert whole.curve == (OperatingPoint(0.0, 0.5, 0.0),) * LONGEST_CURVE
    with pytest.raises(RefusedInput, match="a curve has at most 101 points, not 102"):
        messages.record_from_wire(service_pb2.Evaluation(curve=[*points, points[0]]), Evaluation)


def test_a_client_that_tells_no_curve_is_understood() -> None:
    message = service_pb2.Evaluation(round=2, samples=10, exit_accuracy=0.5)
    assert messages.record_from_wire(message, Evaluation) == Evaluation(
        2, 10, 0.5, 0, 0, 0, 0, curve=()
    )
