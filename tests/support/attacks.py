"""What attackers send: recordings of a good client, changed at random, and messages made up.

Everything is a list of messages as bytes, so that any of them can be sent in any call.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from hetero_common.wire import rpc
from hetero_common.wire.frames import Frame, frames, serialize
from hetero_splitee.v1 import service_pb2 as pb
from support.intruder import BATCH, CUT, GOOD, SHAPE, STEPS, batch, header, registration

Item = Frame[Any] | Message
METHODS = [method.name for method in rpc.SERVICE.methods]
GARBAGE = b"\xff\xff\xff\xff"
"""No message at all, whatever is expected."""
_HEAD = 48
"""Bytes at the beginning of a message that hold most of what can be broken in it."""


@dataclass(frozen=True)
class Recording:
    """What a good client says in a session: of each call the messages, as its encoder makes them.

    Args:
        fingerprint: Of the server's model.
        weights: A state blob of the cut layer.
        name: The client's id.
    """

    fingerprint: str
    weights: bytes
    name: str

    def of(self, method: str) -> list[bytes]:
        """A whole call of this client."""
        said: dict[str, Sequence[Item]] = {
            "GetStatus": [pb.GetStatusRequest()],
            "Register": [registration(client_id=self.name, fingerprint=self.fingerprint)],
            "Train": [*_round(0), pb.TrainRequest(round_done=pb.RoundDone(exit_loss=1.5))],
            "PushState": self._push(),
            "PullState": [pb.PullStateRequest()],
            "Predict": self._predict(),
            "Leave": [pb.LeaveRequest()],
        }
        return [serialize(message) for message in said[method]]

    def _push(self) -> list[Item]:
        head = pb.PushStateRequest(header=pb.StateHeader(bytes=len(self.weights)))
        return [*frames(head, memoryview(self.weights))]

    def _predict(self) -> list[Item]:
        opening = pb.PredictOpen(cut_layer=CUT, fingerprint=self.fingerprint)
        asked = pb.PredictRequest(activation=header(BATCH, *SHAPE))
        return [pb.PredictRequest(open=opening), *frames(asked, GOOD)]


def _round(round_: int) -> list[Item]:
    said: list[Item] = [pb.TrainRequest(heartbeat=pb.Heartbeat())]
    for step in range(STEPS):
        said += frames(batch(round=round_, step=step), GOOD)
    return said


def steps_of(round_: int) -> list[bytes]:
    """A whole round of a good client, without its end."""
    return [serialize(message) for message in _round(round_)]


# Changes of a recording.

Change = Callable[[random.Random, list[bytes]], None]
"""Changes one thing in a list of messages, which is not empty."""


def _flip(draw: random.Random, messages: list[bytes]) -> None:
    def flipped(data: bytearray, at: int) -> None:
        data[at] ^= 1 << draw.randrange(8)

    _edit(draw, messages, flipped)


def _overwrite(draw: random.Random, messages: list[bytes]) -> None:
    def overwritten(data: bytearray, at: int) -> None:
        data[at : at + 8] = draw.randbytes(draw.randint(1, 8))

    _edit(draw, messages, overwritten)


def _insert(draw: random.Random, messages: list[bytes]) -> None:
    def inserted(data: bytearray, at: int) -> None:
        data[at:at] = draw.randbytes(draw.choice((1, 2, 5, 100)))

    _edit(draw, messages, inserted)


def _poison(draw: random.Random, messages: list[bytes]) -> None:
    """Where it hits a tensor, a value that is not finite."""

    def poisoned(data: bytearray, at: int) -> None:
        value = draw.choice((float("nan"), float("inf"), -float("inf"), 3e38))
        data[-4:] = struct.pack("<f", value)

    _edit(draw, messages, poisoned)


def _cut_short(draw: random.Random, messages: list[bytes]) -> None:
    index = draw.randrange(len(messages))
    messages[index] = messages[index][: draw.randrange(len(messages[index]) + 1)]


def _drop(draw: random.Random, messages: list[bytes]) -> None:
    del messages[draw.randrange(len(messages))]


def _repeat(draw: random.Random, messages: list[bytes]) -> None:
    messages.insert(draw.randrange(len(messages) + 1), draw.choice(messages))


def _shuffle(draw: random.Random, messages: list[bytes]) -> None:
    draw.shuffle(messages)


def _glue(draw: random.Random, messages: list[bytes]) -> None:
    index = draw.randrange(len(messages))
    messages[index] += draw.choice(messages)


def _noise(draw: random.Random, messages: list[bytes]) -> None:
    noise = draw.randbytes(draw.choice((1, 4, 60, 5000)))
    messages.insert(draw.randrange(len(messages) + 1), noise)


_CHANGES: tuple[Change, ...] = (
    *(_flip, _flip, _overwrite, _insert, _poison, _cut_short),
    *(_drop, _repeat, _shuffle, _glue, _noise),
)


def changed(draw: random.Random, messages: Sequence[bytes]) -> list[bytes]:
    """The messages with one to three changes."""
    result = list(messages)
    for _ in range(draw.randint(1, 3)):
        if result:
            draw.choice(_CHANGES)(draw, result)
    return result


def _edit(
    draw: random.Random, messages: list[bytes], edit: Callable[[bytearray, int], None]
) -> None:
    index = draw.randrange(len(messages))
    data = bytearray(messages[index])
    if data:
        whole = draw.random() < 0.3
        edit(data, draw.randrange(len(data) if whole else min(len(data), _HEAD)))
    messages[index] = bytes(data)


# Messages made up from their descriptors.

_EDGES = (0, 1, 2, 7, 8, 9, 255, 256, 2**20, 2**31 - 1)
_VALUES: dict[int, st.SearchStrategy[object]] = {
    FieldDescriptor.TYPE_UINT32: st.sampled_from((*_EDGES, 2**32 - 1)),
    FieldDescriptor.TYPE_UINT64: st.sampled_from((*_EDGES, 2**63, 2**64 - 1)),
    FieldDescriptor.TYPE_SINT32: st.sampled_from((-(2**31), -2, -1, *_EDGES)),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 9),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_STRING: st.text(max_size=120),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=300) | st.just(bytes(GOOD)),
}


@st.composite
def message_of(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """Any message of a type; each field is there or not, at the edges of what it can hold."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        inner = field.message_type
        value = _VALUES[field.type] if inner is None else message_of(inner)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(value, max_size=5)))
        elif inner is not None:
            getattr(message, field.name).CopyFrom(draw(value))
        else:
            setattr(message, field.name, draw(value))
    return message


@st.composite
def call_of(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A method and what is said in a call of it."""
    method = draw(st.sampled_from(list(rpc.SERVICE.methods)))
    messages = st.lists(message_of(method.input_type), max_size=4 if method.client_streaming else 1)
    return method.name, [message.SerializeToString() for message in draw(messages)]


# Noise on the bare port.

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def bare_noise(draw: random.Random) -> bytes:
    """Bytes for a bare connection: anything, or HTTP/2 that begins well and goes wrong."""
    match draw.randrange(5):
        case 0:
            return draw.randbytes(draw.choice((1, 9, 24, 500, 70_000)))
        case 1:
            return _PREFACE[: draw.randrange(len(_PREFACE))]
        case 2:
            return b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"
        case 3:
            return _PREFACE + draw.randbytes(draw.choice((1, 9, 200)))
        case _:
            settings = _frame(4, 0, 0, b"")
            noise = [_any_frame(draw) for _ in range(draw.randint(1, 6))]
            return _PREFACE + settings + b"".join(noise)


def _any_frame(draw: random.Random) -> bytes:
    payload = draw.randbytes(draw.choice((0, 1, 8, 100)))
    return _frame(draw.randrange(12), draw.randrange(256), draw.randrange(8), payload)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
