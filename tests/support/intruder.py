"""Clients that speak the protocol by hand, to break it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import torch

from hetero_common.tensors import codec
from hetero_common.tensors.weight_delta import pack
from hetero_common.tensors.weights import Weights
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import messages, rpc
from hetero_common.wire.frames import Frame, frames
from hetero_splitee.v1 import service_pb2 as pb
from hetero_splitee.v1 import tensor_pb2
from support.commands import SMALL

SECONDS = 200
"""Guard against a call that is never answered; DEADLINE_EXCEEDED is no expected status."""
CUT, SHAPE, BATCH, STEPS = 2, (4, 4, 4), 8, 3
DATA = ("--dataset", "digits", "--eval-samples", "50")
AGREED = (
    *(*SMALL, "--batch-size", str(BATCH), "--rounds", "2", "--steps-per-round", str(STEPS)),
    # What one client sends is not to wait for another's.
    *("--strategy", "sequential", "--order", "arrival"),
    *("--wire", "fp32"),  # what they send is written by hand
)


class Garbage:
    """Bytes that are no message; stands in for one."""

    def SerializeToString(self) -> bytes:
        return b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    sentence: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refusal:
        return cls(error.code(), error.details() or "")


def refusal_of(call: Callable[[], object]) -> Refusal:
    """How a call ends, of which every answer has been read."""
    with pytest.raises(grpc.RpcError) as caught:
        answers = call()
        if isinstance(answers, Iterator):
            for _ in answers:
                pass
    return Refusal.of(caught.value)


def registration(**changes: Any) -> pb.RegisterRequest:
    fields: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "client_id": "stranger",
        "cut_layer": CUT,
        "shard_size": 100,
        "wire_dtypes": messages.wire_dtypes(),
    }
    return pb.RegisterRequest(**(fields | changes))


def header(
    *shape: int,
    dtype: tensor_pb2.WireDtype.ValueType = tensor_pb2.WIRE_DTYPE_FP32,
) -> tensor_pb2.TensorHeader:
    return tensor_pb2.TensorHeader(dtype=dtype, shape=shape)


def batch(
    *,
    round: int = 0,
    step: int = 0,
    labels: Sequence[int] = (0,) * BATCH,
    activation: tensor_pb2.TensorHeader | None = None,
) -> pb.TrainRequest:
    """Announces a batch; a good one, unless told otherwise."""
    activation = activation or header(BATCH, *SHAPE)
    return pb.TrainRequest(
        batch=pb.Batch(round=round, step=step, labels=labels, activation=activation)
    )


def activation_of(value: float) -> memoryview:
    """The bytes of a whole activation, with one value in its very middle."""
    activation = torch.zeros(BATCH, *SHAPE)
    data = codec.encode(activation, "fp32").data
    torch.frombuffer(data, dtype=torch.float32)[BATCH * 32] = value
    return data


def framed(item: object) -> object:
    """Bare bytes as a frame that only carries them."""
    return Frame(None, item) if isinstance(item, memoryview) else item


GOOD = activation_of(0)
HANG_UP = None


class Intruder:
    """A client that speaks the protocol by hand.

    Args:
        channel: To the server.
        name: Its client id.
        fingerprint: Of the server's model.
    """

    def __init__(self, channel: grpc.Channel, name: str, fingerprint: str) -> None:
        self._channel = channel
        answer = rpc.callable_for(channel, "Register")(
            registration(client_id=name, fingerprint=fingerprint), timeout=SECONDS
        )
        self._session = ((rpc.SESSION_KEY, answer.session),)
        self._outgoing: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stream = self._call("Train", iter(self._outgoing.get, HANG_UP))

    def waits_for_round(self) -> None:
        """The round has begun, and with it waits for this client too."""
        messages = (frame.message for frame in self._stream)
        start = next(m for m in messages if m.HasField("start_round")).start_round  # or a heartbeat
        assert (start.round, start.steps, start.push_state) == (0, STEPS, True)

    def sends(self, messages: Sequence[object]) -> Refusal:
        for message in messages:
            self._outgoing.put(framed(message))
        return refusal_of(lambda: self._stream)

    def unchanged(self) -> dict[str, torch.Tensor]:
        """What a client would push that has pulled, and trained nothing."""
        chunks = self._call("PullState", pb.PullStateRequest())
        pulled = Weights.from_bytes(b"".join(frame.chunk for frame in chunks))
        return pack(pulled, pulled, "bf16")

    def pushes(self, data: bytes, round_: int = 0) -> Refusal:
        return refusal_of(lambda: self._push(data, round_))

    def pulls(self) -> Refusal:
        return refusal_of(lambda: self._call("PullState", pb.PullStateRequest()))

    def refusal(self, name: str, requests: Iterable[object]) -> Refusal:
        return refusal_of(lambda: self._call(name, map(framed, requests)))

    def leaves(self) -> None:
        self._call("Leave", pb.LeaveRequest())
        self.closes()

    def closes(self) -> None:
        self._outgoing.put(HANG_UP)
        self._stream.cancel()

    def _push(self, data: bytes, round_: int) -> object:
        head = pb.PushStateRequest(header=pb.StateHeader(round=round_, bytes=len(data)))
        return self._call("PushState", iter(frames(head, memoryview(data))))

    def _call(self, name: str, requests: object) -> Any:
        method = rpc.callable_for(self._channel, name)
        return method(requests, metadata=self._session, timeout=SECONDS)
