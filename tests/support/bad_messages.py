"""Every way to break the protocol that we could think of, and how it is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import grpc
import torch
from safetensors.torch import save

from hetero_common.tensors.weights import tensors_to_bytes
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import rpc
from hetero_common.wire.frames import Frame
from hetero_splitee.v1 import service_pb2 as pb
from hetero_splitee.v1 import tensor_pb2
from support.intruder import (
    BATCH,
    CUT,
    GOOD,
    SECONDS,
    SHAPE,
    STEPS,
    Garbage,
    Intruder,
    Refusal,
    activation_of,
    batch,
    framed,
    header,
    registration,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LIMIT = grpc.StatusCode.RESOURCE_EXHAUSTED
GAP = grpc.StatusCode.OUT_OF_RANGE
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ENDED = grpc.StatusCode.ABORTED

# What is sent on a training stream once round 0 has begun, and how it is refused.
BAD_STREAMS: dict[str, tuple[list[object], grpc.StatusCode, str]] = {
    "a batch larger than agreed": (
        [batch(labels=[0] * 9, activation=header(9, *SHAPE))],
        LIMIT,
        "a batch of 9 rows is larger than the agreed 8",
    ),
    "a batch of four billion": (
        [batch(activation=header(2**32 - 1, *SHAPE))],
        LIMIT,
        "4294967295 rows is larger than the agreed 8",
    ),
    "a batch of one, which BatchNorm cannot train on": (
        [batch(labels=[0], activation=header(1, *SHAPE))],
        INVALID,
        "a batch has 2 rows at least",
    ),
    "another shape": ([batch(activation=header(BATCH, 4, 4, 5))], INVALID, "the agreed activation"),
    "fewer dimensions": ([batch(activation=header(BATCH, 64))], INVALID, "the agreed activation"),
    "a hundred thousand dimensions": (
        [batch(activation=header(*[7] * 100_000))],
        INVALID,
        "not one of 100000 dimensions",
    ),
    "no dimensions": ([batch(activation=header())], INVALID, "the agreed activation"),
    "another wire dtype": (
        [batch(activation=header(BATCH, *SHAPE, dtype=tensor_pb2.WIRE_DTYPE_BF16))],
        INVALID,
        "the agreed wire dtype is fp32, not bf16",
    ),
    "a label out of range": (
        [batch(labels=[0, 1, 2, 3, 4, 5, 6, 10])],
        INVALID,
        "a label is outside 0..9",
    ),
    "a label missing": ([batch(labels=[0] * 7)], INVALID, "a label for each"),
    "a gap": ([batch(step=1)], GAP, "step 1 of round 0 leaves a gap: step 0 is expected next"),
    "a step too many": ([batch(step=STEPS)], INVALID, "round 0 has steps 0..2, not 3"),
    "a round that is to come": ([batch(round=1)], INVALID, "round 1 is not the one"),
    "a NaN": ([batch(), activation_of(float("nan"))], INVALID, "a tensor holds NaN or infinity"),
    "an infinity": (
        [batch(), activation_of(-float("inf"))],
        INVALID,
        "a tensor holds NaN or infinity",
    ),
    "an absurd activation": (
        [batch(), activation_of(-1e5)],
        INVALID,
        "an activation is beyond 65504",
    ),
    "more bytes than announced": (
        [batch(), GOOD[:1000], GOOD],
        INVALID,
        "more bytes came than were announced",
    ),
    "more bytes than announced, with the announcement": (
        [Frame(batch(), memoryview(bytes(9999)))],
        INVALID,
        "more bytes came than were announced",
    ),
    "an empty chunk": ([batch(), GOOD[:0]], INVALID, "an announced tensor is not complete"),
    "bytes with a report": (
        [Frame(pb.TrainRequest(round_done=pb.RoundDone(round=0)), GOOD)],
        INVALID,
        "a chunk came where none was announced",
    ),
    "bytes that were not announced": ([GOOD], INVALID, "a chunk came where none was announced"),
    "a batch within a batch": (
        [batch(), GOOD[:1000], batch(step=1)],
        INVALID,
        "an announced tensor is not complete",
    ),
    "garbage": ([Garbage()], INVALID, "a message could not be read"),
    "garbage within a batch": ([batch(), Garbage()], INVALID, "a message could not be read"),
    "a frame larger than gRPC takes": (
        [batch(), memoryview(bytes(5 << 20))],
        LIMIT,
        "larger than max",
    ),
    "an empty message": ([pb.TrainRequest()], INVALID, "an empty message came"),
    "the end of the round before its first step": (
        [pb.TrainRequest(round_done=pb.RoundDone(round=0))],
        INVALID,
        "step 0 of round 0 is still missing",
    ),
    "an evaluation that nobody asked for": (
        [pb.TrainRequest(evaluation=pb.Evaluation(round=0, samples=1, exit_accuracy=1))],
        INVALID,
        "no evaluation was asked for",
    ),
    "an evaluation of more classes than there are": (
        [pb.TrainRequest(evaluation=pb.Evaluation(samples=1, class_samples=[0] * 100_000))],
        INVALID,
        "an evaluation tells of all 10 classes, or of none",
    ),
    "a curve of too many points": (
        [pb.TrainRequest(evaluation=pb.Evaluation(curve=[pb.OperatingPoint()] * 102))],
        INVALID,
        "a curve has at most 101 points, not 102",
    ),
}


FIRST = "layers.1.conv.weight"
Packed = dict[str, torch.Tensor]


def poisoned(packed: Packed) -> bytes:
    """Changes of the right names and shapes, one of them infinite."""
    packed[FIRST][0, 0, 0, 0] = torch.inf
    return tensors_to_bytes(packed)


def absurd(packed: Packed) -> bytes:
    packed[FIRST] += 1e4
    return tensors_to_bytes(packed)


def of_negative_variance(packed: Packed) -> bytes:
    packed[f"layers.{CUT}.bn.running_var"] -= 2
    return tensors_to_bytes(packed)


def reshaped(packed: Packed) -> bytes:
    packed[FIRST] = packed[FIRST][:, :, :1]
    return tensors_to_bytes(packed)


def unrounded(packed: Packed) -> bytes:
    packed[FIRST] = packed[FIRST].float()
    return tensors_to_bytes(packed)


def shallower(packed: Packed) -> bytes:
    return tensors_to_bytes({k: v for k, v in packed.items() if f"layers.{CUT}." not in k})


def pushing(spoil: Callable[[Packed], bytes]) -> Callable[[Intruder], Refusal]:
    return lambda intruder: intruder.pushes(spoil(intruder.unchanged()))


# What is called within a session, beside its training stream, during round 0.
BAD_SESSION_CALLS: dict[str, tuple[Callable[[Intruder], Refusal], grpc.StatusCode, str]] = {
    "infinite weights": (pushing(poisoned), INVALID, "NaN or infinity"),
    "absurd weights": (pushing(absurd), INVALID, "the RMS of layers.1.conv.weight is "),
    "a negative variance": (pushing(of_negative_variance), INVALID, "is negative"),
    "weights of another shape": (pushing(reshaped), INVALID, f"{FIRST} is no change of these"),
    "weights in place of changes": (pushing(unrounded), INVALID, f"{FIRST} is no change of these"),
    "weights of another cut layer": (pushing(shallower), INVALID, "names, shapes and dtypes"),
    "a pickle": (pushing(lambda _: pickle.dumps([1, 2])), INVALID, "safetensors"),
    "foreign tensors": (
        pushing(lambda _: save({"x": torch.zeros(1)})),
        INVALID,
        "no layer's and no exit's",
    ),
    "far too many bytes": (
        pushing(lambda _: bytes(3 << 20)),
        LIMIT,
        "a pushed state has at most",
    ),
    "weights of a round that is to come": (
        lambda intruder: intruder.pushes(tensors_to_bytes(intruder.unchanged()), round_=1),
        INVALID,
        "round 1 is not the one this client is training",
    ),
    "weights without a header": (
        lambda intruder: intruder.refusal("PushState", [GOOD]),
        INVALID,
        "a pushed state begins with its header",
    ),
    "a second training stream": (
        lambda intruder: intruder.refusal("Train", [batch()]),
        LIMIT,
        "this session has a training stream already",
    ),
}


# What needs no session, or is refused one. The server's fingerprint is filled in.
BadCall = Callable[[grpc.Channel, str], object]


def registers(**changes: Any) -> BadCall:
    def call(channel: grpc.Channel, fingerprint: str) -> object:
        request = registration(**({"fingerprint": fingerprint} | changes))
        return rpc.callable_for(channel, "Register")(request, timeout=SECONDS)

    return call


def calls(name: str, *requests: object, session: str | None = None) -> BadCall:
    """A call with these requests."""

    def call(channel: grpc.Channel, fingerprint: str) -> object:
        method = rpc.SERVICE.methods_by_name[name]
        metadata = None if session is None else ((rpc.SESSION_KEY, session),)
        given = map(framed, requests) if method.client_streaming else requests[0]
        return rpc.callable_for(channel, name)(given, metadata=metadata, timeout=SECONDS)

    return call


def predicts(*requests: object, cut_layer: int = CUT, fingerprint: str | None = None) -> BadCall:
    def call(channel: grpc.Channel, real: str) -> object:
        opening = pb.PredictOpen(cut_layer=cut_layer, fingerprint=fingerprint or real)
        return calls("Predict", pb.PredictRequest(open=opening), *requests)(channel, real)

    return call


BAD_CALLS: dict[str, tuple[BadCall, grpc.StatusCode, str]] = {
    "a newer protocol": (
        registers(protocol_version=PROTOCOL_VERSION + 1),
        PRECONDITION,
        f"the client speaks protocol version {PROTOCOL_VERSION + 1}, "
        f"the server {PROTOCOL_VERSION}: upgrade hetero-splitee on the server",
    ),
    "no protocol": (
        registers(protocol_version=0),
        PRECONDITION,
        "upgrade hetero-splitee on the client",
    ),
    "another model": (
        registers(fingerprint="0123456789abcdef"),
        PRECONDITION,
        "the client built a model with fingerprint 0123456789ab, the server trains ",
    ),
    "a fingerprint that would be a line of the log": (
        registers(fingerprint="a\n12:00:00 ERROR   fault"),
        PRECONDITION,
        "the client built a model with a fingerprint that is none",
    ),
    "a cut layer that is none": (
        registers(cut_layer=6),
        PRECONDITION,
        "cut layer 6 is out of range: choose one of 1..5: 1 (conv1), 2 (conv2)",
    ),
    "a shard of one image": (registers(shard_size=1), INVALID, "a shard of 1 images is too small"),
    "no client id": (registers(client_id=""), INVALID, "a client id has 1 to 100 characters"),
    "a long client id": (registers(client_id="x" * 101), INVALID, "1 to 100 characters"),
    "a wire dtype that the run does not use": (
        registers(wire_dtypes=[tensor_pb2.WIRE_DTYPE_INT8]),
        INVALID,
        "the run's wire dtype is fp32",
    ),
    "a registration of garbage": (calls("Register", Garbage()), INVALID, "could not be read"),
    "a question of garbage": (calls("GetStatus", Garbage()), INVALID, "could not be read"),
    "training without a session": (calls("Train", batch()), ENDED, "register again"),
    "pushing without a session": (
        calls("PushState", pb.PushStateRequest(header=pb.StateHeader(bytes=1))),
        ENDED,
        "register again",
    ),
    "pulling without a session": (
        calls("PullState", pb.PullStateRequest()),
        ENDED,
        "register again",
    ),
    "leaving without a session": (calls("Leave", pb.LeaveRequest()), ENDED, "register again"),
    "training with a made-up session": (
        calls("Train", batch(), session="secret"),
        ENDED,
        "register again",
    ),
    "predicting with a made-up session": (
        lambda channel, fingerprint: calls(
            "Predict",
            pb.PredictRequest(open=pb.PredictOpen(cut_layer=CUT, fingerprint=fingerprint)),
            session="secret",
        )(channel, fingerprint),
        ENDED,
        "register again",
    ),
    "predicting without a cut layer": (
        calls("Predict", pb.PredictRequest(activation=header(1, *SHAPE))),
        INVALID,
        "a prediction stream begins with its cut layer",
    ),
    "predicting nothing": (calls("Predict"), INVALID, "begins with its cut layer"),
    "predicting at another cut layer": (predicts(cut_layer=9), PRECONDITION, "is out of range"),
    "predicting with another model": (
        predicts(fingerprint="0123456789abcdef"),
        PRECONDITION,
        "install the same model code on both sides",
    ),
    "predicting another shape": (
        predicts(pb.PredictRequest(activation=header(1, 4, 4, 5))),
        INVALID,
        "the agreed activation",
    ),
    "predicting too many at once": (
        predicts(pb.PredictRequest(activation=header(257, *SHAPE))),
        LIMIT,
        "a batch of 257 rows is larger than the agreed 256",
    ),
    "predicting a NaN": (
        predicts(pb.PredictRequest(activation=header(BATCH, *SHAPE)), activation_of(float("nan"))),
        INVALID,
        "a tensor holds NaN or infinity",
    ),
    "predicting from an absurd activation": (
        predicts(pb.PredictRequest(activation=header(BATCH, *SHAPE)), activation_of(1e5)),
        INVALID,
        "an activation is beyond 65504",
    ),
    "predicting garbage": (predicts(Garbage()), INVALID, "a message could not be read"),
}

EXPECTED = {
    name: (code, sentence)
    for cases in (BAD_STREAMS, BAD_SESSION_CALLS, BAD_CALLS)
    for name, (_, code, sentence) in cases.items()
}
