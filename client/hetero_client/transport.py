"""The one door to the server: calls, streams and their errors. Nothing above it knows gRPC."""

from __future__ import annotations

import contextlib
import io
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import torch
from google.protobuf.message import Message
from torch import Tensor

from hetero_client.inbox import Inbox
from hetero_common import codec, rpc, wire
from hetero_common.codec import Payload
from hetero_common.control import Directive, Evaluate, Evaluation, Finish, Report, StartRound
from hetero_common.errors import (
    HeteroError,
    Mismatch,
    RefusedInput,
    ServerUnreachable,
    VersionMismatch,
)
from hetero_common.frames import Frame, frames
from hetero_common.plan import Plan
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.weights import Weights
from hetero_splitee.v1 import service_pb2 as pb

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_PREDICTIONS_AHEAD = 4
Item = Frame[Any] | Message


@dataclass(frozen=True)
class Registration:
    """What the server grants: its session, credits (batches) and steps per round."""

    run_id: str
    credits: int
    steps: int


@dataclass(frozen=True)
class ServerStatus:
    """What the server does, and the plan to join it with."""

    run_id: str
    phase: str
    strategy: str
    plan: Plan
    fingerprint: str


class ServerLink:
    """A client's connection to one server.

    Args:
        address: `host:port`.
        connect_timeout: Seconds to keep trying to reach a server that does not answer yet.
        wire_dtype: How activations travel, until `status` learns it from the server.
    """

    def __init__(
        self, address: str, connect_timeout: float = 60.0, wire_dtype: str = "fp32"
    ) -> None:
        self.address = address
        self._connect_timeout = connect_timeout
        self._channel = grpc.insecure_channel(address, options=rpc.CLIENT_OPTIONS)
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._wire_dtype = wire_dtype
        self._outgoing: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._inbox = Inbox()
        self._reader: threading.Thread | None = None
        self.bytes_sent = 0
        """Payload of activations and weights, without frame headers."""
        self.bytes_received = 0

    def status(self) -> ServerStatus:
        """Ask what the server trains, waiting for a server that is not up yet.

        Raises:
            ServerUnreachable: Nobody answered within the connect timeout.
            VersionMismatch: The server speaks another protocol version.
        """
        deadline = time.monotonic() + self._connect_timeout
        while True:
            try:
                answer: pb.GetStatusResponse = self._call("GetStatus", pb.GetStatusRequest(), 10.0)
                break
            except ServerUnreachable as error:
                if time.monotonic() >= deadline:
                    raise ServerUnreachable(
                        f"no server answers at {self.address} after {self._connect_timeout:g} s: "
                        f"check --server and that hetero-server runs ({error})"
                    ) from None
                log.warning("waiting for the server at %s: %s", self.address, error)
                time.sleep(_RETRY_SECONDS)
        if answer.protocol_version != PROTOCOL_VERSION:
            raise VersionMismatch(PROTOCOL_VERSION, answer.protocol_version)
        plan = wire.plan_from_wire(answer.plan)
        self._wire_dtype = plan.wire
        return ServerStatus(answer.run_id, answer.phase, answer.strategy, plan, answer.fingerprint)

    def register(
        self, client_id: str, cut_layer: int, shard_size: int, fingerprint: str
    ) -> Registration:
        """Open a session.

        Raises:
            HeteroError: The server refuses this client, and says why.
        """
        answer: pb.RegisterResponse = self._call(
            "Register",
            pb.RegisterRequest(
                protocol_version=PROTOCOL_VERSION,
                client_id=client_id,
                cut_layer=cut_layer,
                fingerprint=fingerprint,
                shard_size=shard_size,
                wire_dtypes=wire.wire_dtypes(),
            ),
            30.0,
        )
        self._metadata = ((rpc.SESSION_KEY, answer.session),)
        self._inbox = Inbox(answer.credits)
        return Registration(answer.run_id, answer.credits, answer.steps)

    def open(self) -> None:
        """Open the training stream; directives arrive from now on."""
        call = self._method("Train")(
            iter(self._outgoing.get, None), metadata=self._metadata, wait_for_ready=True
        )
        self._reader = threading.Thread(
            target=_read, args=(call, self._inbox), name="train-reader", daemon=True
        )
        self._reader.start()

    def next_directive(self) -> Directive:
        """Wait for what to do next. Raises HeteroError when the stream has broken."""
        return self._inbox.next_directive()

    def send_batch(self, round_: int, step: int, activation: Tensor, labels: Tensor) -> None:
        """Hand a batch (B, ...) with labels (B,) to the stream; waits while credits are used up.

        The activation is finite: `Trainer.forward` gives no other.
        """
        payload = codec.encode(activation, self._wire_dtype, known_finite=True)
        self._inbox.take_credit()
        batch = pb.Batch(
            round=round_,
            step=step,
            labels=labels.tolist(),
            activation=wire.header_to_wire(payload),
        )
        self._put(self._outgoing, pb.TrainRequest(batch=batch), payload)

    def feedback(self, step: int) -> Tensor:
        """Wait for what the server returns of a step: its gradient or its logits."""
        payload = self._inbox.feedback(step)
        self.bytes_received += payload.data.nbytes
        return codec.decode(payload)

    def drain(self) -> None:
        """Wait until every batch is acknowledged."""
        self._inbox.drain()

    def report(self, report: Report) -> None:
        """Tell the server that a round or an evaluation is done."""
        if isinstance(report, Evaluation):
            request = pb.TrainRequest(evaluation=wire.record_to_wire(report, pb.Evaluation))
        else:
            request = pb.TrainRequest(round_done=wire.record_to_wire(report, pb.RoundDone))
        self._outgoing.put(request)

    def push_state(self, round_: int, weights: Weights) -> None:
        """Send prefix and exit at the end of a round."""
        data = memoryview(weights.to_bytes())
        header = pb.StateHeader(round=round_, bytes=data.nbytes)
        self._call("PushState", frames(pb.PushStateRequest(header=header), data), None)
        self.bytes_sent += data.nbytes

    def pull_state(self) -> Weights:
        """Get the weights that this client continues with."""
        data, announced = io.BytesIO(), 0
        with _translated():
            for frame in self._method("PullState")(pb.PullStateRequest(), metadata=self._metadata):
                announced = frame.message.header.bytes if frame.message else announced
                data.write(frame.chunk or b"")
        if data.tell() != announced:
            raise ServerUnreachable("the server stopped within the weights it was sending")
        self.bytes_received += data.tell()
        return Weights.from_bytes(data.getvalue())

    def predict(
        self,
        activations: Iterator[Tensor],
        *,
        cut_layer: int,
        fingerprint: str,
        deadline: float | None = None,
    ) -> Iterator[Tensor]:
        """Class probabilities (B, classes) of each activation (B, ...), in order.

        A few activations are sent ahead of their answers.

        Args:
            activations: Consumed lazily.
            cut_layer: Where they were cut.
            fingerprint: Of the model they come from.
            deadline: Seconds for the whole call; None for no limit.

        Raises:
            ServerUnreachable: The connection failed or the deadline has passed.
        """
        outgoing: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        outgoing.put(
            pb.PredictRequest(open=pb.PredictOpen(cut_layer=cut_layer, fingerprint=fingerprint))
        )
        with _translated():
            answers = self._method("Predict")(
                iter(outgoing.get, None), metadata=self._metadata, timeout=deadline
            )
            try:
                ahead = 0
                for activation in activations:
                    payload = codec.encode(activation, self._wire_dtype)
                    request = pb.PredictRequest(activation=wire.header_to_wire(payload))
                    self._put(outgoing, request, payload)
                    ahead += 1
                    if ahead >= _PREDICTIONS_AHEAD:
                        answer = next(answers, None)
                        if answer is None:
                            break
                        yield self._probabilities(answer)
                        ahead -= 1
                outgoing.put(None)
                for answer in answers:  # to the end: a cancelled call is an error to the server
                    yield self._probabilities(answer)
                    ahead -= 1
                if ahead:
                    raise ServerUnreachable("the server stopped answering predictions")
            finally:
                outgoing.put(None)
                answers.cancel()

    def leave(self) -> None:
        """End the session for good."""
        self._call("Leave", pb.LeaveRequest(), 10.0)

    def close(self) -> None:
        """Close the stream and the connection."""
        self._outgoing.put(None)
        self._channel.close()
        if self._reader is not None:
            self._reader.join(timeout=5)

    def __enter__(self) -> ServerLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.close()

    def _put(
        self, to: queue.SimpleQueue[Item | None], announcement: Message, payload: Payload
    ) -> None:
        for frame in frames(announcement, payload.data):
            to.put(frame)
        self.bytes_sent += payload.data.nbytes

    def _probabilities(self, answer: pb.PredictResponse) -> Tensor:
        self.bytes_received += len(answer.probabilities)
        values = torch.frombuffer(bytearray(answer.probabilities), dtype=torch.float32)
        return values.view(answer.rows, -1)

    def _method(self, name: str) -> Callable[..., Any]:
        return rpc.callable_for(self._channel, name)

    def _call(self, name: str, request: object, timeout: float | None) -> Any:
        with _translated():
            return self._method(name)(request, metadata=self._metadata, timeout=timeout)


def _read(call: Iterator[Frame[pb.TrainResponse]], inbox: Inbox) -> None:
    """Sort a training stream into an inbox, to its end; runs in a thread of its own."""
    error: HeteroError = ServerUnreachable("the server closed the connection")
    try:
        with _translated():
            for frame in call:
                assert frame.message is not None, "bulk bytes follow an announcement"
                if frame.message.WhichOneof("kind") == "ack":
                    inbox.acknowledge(frame.message.ack.step, _feedback(frame, call))
                else:
                    inbox.direct(_directive(frame.message))
    except HeteroError as failure:
        error = failure
    inbox.fail(error)


def _feedback(
    frame: Frame[pb.TrainResponse], following: Iterator[Frame[pb.TrainResponse]]
) -> Payload | None:
    assert frame.message is not None, "it holds an acknowledgement"
    if not frame.message.ack.HasField("feedback"):
        return None
    tensor = wire.incoming(frame.message.ack.feedback)
    chunk = frame.chunk
    while chunk is not None:
        tensor.feed(chunk)
        if tensor.is_whole:
            return tensor.payload()
        chunk = next(following, Frame()).chunk
    raise RefusedInput("the server's feedback is not complete")


def _directive(message: pb.TrainResponse) -> Directive:
    match message.WhichOneof("kind"):
        case "start_round":
            return wire.record_from_wire(message.start_round, StartRound)
        case "evaluate":
            return wire.record_from_wire(message.evaluate, Evaluate)
        case "finish":
            return wire.record_from_wire(message.finish, Finish)
        case _:
            raise Mismatch("the server directs what this client does not know: upgrade the client")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise rpc.error_from_status(error) from error
