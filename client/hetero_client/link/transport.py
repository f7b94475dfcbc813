"""The one door to the server: what a client asks, sends and is told."""

from __future__ import annotations

import io
import logging
import queue
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from hetero_client.link.calls import Calls
from hetero_client.link.inbox import Inbox, Outgoing
from hetero_client.link.protocol import Registration
from hetero_client.link.retrying import pauses
from hetero_client.link.stream import Item, TrainingStream
from hetero_common.agreement.control import Report
from hetero_common.agreement.plan import Plan
from hetero_common.agreement.status import RunStatus
from hetero_common.errors import ServerUnreachable, VersionMismatch
from hetero_common.tensors import codec
from hetero_common.tensors.weights import Weights, tensors_to_bytes
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import messages
from hetero_common.wire.frames import frames
from hetero_splitee.v1 import service_pb2 as pb

log = logging.getLogger(__name__)

_PREDICTIONS_AHEAD = 4


@dataclass(frozen=True)
class ServerStatus:
    """What the server does, and the plan to join it with."""

    run: RunStatus
    plan: Plan
    fingerprint: str


class ServerLink:
    """A client's connection to one server.

    Args:
        address: `host:port`.
        connect_timeout: Seconds to keep trying to reach a server that does not answer.
        wire_dtype: How activations travel, until `status` learns it from the server.
        certs: Directory of certificates, for TLS.
        token: Says who this client is, beside or instead of its certificate.
        insecure: Do without TLS, unless `certs` are given.

    Raises:
        SettingsError: The certificates cannot be used, or the token would go out unencrypted.
    """

    def __init__(
        self,
        address: str,
        connect_timeout: float = 60.0,
        wire_dtype: str = "fp32",
        *,
        certs: Path | None = None,
        token: str | None = None,
        insecure: bool = False,
    ) -> None:
        self.address = address
        self.connect_timeout = connect_timeout
        self._calls = Calls(address, certs, token, insecure=insecure)
        self._wire_dtype = wire_dtype
        self.inbox = Inbox()
        self._stream: TrainingStream | None = None
        self._registration: Registration | None = None
        self._heartbeat = 0.0
        self.bytes_sent = 0
        """Payload of activations and weights, without frame headers."""
        self.bytes_received = 0
        """Payload of weights and probabilities, and of feedback on earlier streams."""

    def traffic(self) -> dict[str, int]:
        """Count what has been sent and received so far, by the names of docs/runs.md."""
        received = self.bytes_received + self.inbox.bytes_returned
        return {"bytes_sent": self.bytes_sent, "bytes_received": received}

    def status(self) -> ServerStatus:
        """Ask what the server trains, waiting for a server that is not up yet.

        Raises:
            ServerUnreachable: Nobody answered within the connect timeout.
            VersionMismatch: The server speaks another protocol version.
        """
        tries = pauses(self.connect_timeout)
        while True:
            try:
                return self.status_now()
            except ServerUnreachable as error:
                pause = next(tries, None)
                if pause is None:
                    raise ServerUnreachable(
                        f"no server answers at {self.address} after {self.connect_timeout:g} s: "
                        f"check --server and that hetero-server runs ({error})"
                    ) from None
                log.warning("waiting for the server at %s: %s", self.address, error)
                time.sleep(pause)

    def status_now(self) -> ServerStatus:
        """Ask what the server trains.

        Raises:
            ServerUnreachable: Nobody answers.
            VersionMismatch: The server speaks another protocol version.
        """
        answer: pb.GetStatusResponse = self._calls.unary("GetStatus", pb.GetStatusRequest(), 10.0)
        if answer.protocol_version != PROTOCOL_VERSION:
            raise VersionMismatch(PROTOCOL_VERSION, answer.protocol_version)
        plan = messages.plan_from_wire(answer.plan)
        self._wire_dtype = plan.wire
        return ServerStatus(messages.status_from_wire(answer), plan, answer.fingerprint)

    def run_id(self) -> str:
        """Ask which run the server trains.

        Raises:
            ServerUnreachable: Nobody answers.
            VersionMismatch: The server speaks another protocol version.
        """
        return self.status_now().run.run_id

    def register(
        self,
        client_id: str,
        cut_layer: int,
        shard_size: int,
        fingerprint: str,
        *,
        run_id: str = "",
        held_rounds: Collection[int] = (),
        class_counts: Collection[int] = (),
    ) -> Registration:
        """Open a session.

        Args:
            client_id: Stable name of this client.
            cut_layer: Its last layer.
            shard_size: Its training images.
            fingerprint: Tells its model from others.
            run_id: The run it was in before, if it was.
            held_rounds: Rounds of that run whose end it can go back to.
            class_counts: Its training images of each class, with logit adjustment.

        Raises:
            HeteroError: The server refuses this client, and says why.
        """
        answer: pb.RegisterResponse = self._calls.unary(
            "Register",
            pb.RegisterRequest(
                protocol_version=PROTOCOL_VERSION,
                client_id=client_id,
                cut_layer=cut_layer,
                fingerprint=fingerprint,
                shard_size=shard_size,
                wire_dtypes=messages.wire_dtypes(),
                run_id=run_id,
                held_rounds=held_rounds,
                class_counts=class_counts,
            ),
            30.0,
        )
        self._calls.enter_session(answer.session)
        base = answer.base_round if answer.HasField("base_round") else None
        self._registration = Registration(answer.credits, base)
        self._heartbeat = answer.heartbeat_seconds
        return self._registration

    def open(self) -> None:
        """Open the training stream; directives arrive from now on."""
        assert self._registration is not None, "a client registers first"
        unacknowledged = self.inbox.unacknowledged()
        self._hang_up()
        self.bytes_received += self.inbox.bytes_returned
        self.inbox = Inbox(self._registration.credits)
        self.inbox.carry_over(unacknowledged)
        self._stream = TrainingStream(
            lambda requests: self._calls.stream("Train", requests, wait_for_ready=True),
            self.inbox,
            self._heartbeat,
            self._calls.give_up,
        )

    def redial(self) -> None:
        """Connect anew, after a connection that has failed; what is on its way is kept."""
        self._hang_up()
        self._calls.redial()

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each new try to reach a server that is lost."""
        return pauses(self.connect_timeout)

    def wait(self, seconds: float) -> None:
        """Wait before a new try."""
        time.sleep(seconds)

    def send(self, batch: Outgoing) -> None:
        """Put a batch on its way that has taken a credit of the inbox."""
        assert self._stream is not None, "batches answer a directive"
        self.bytes_sent += self._stream.send_batch(batch)

    def report(self, report: Report) -> None:
        """Tell the server that a round or an evaluation is done."""
        assert self._stream is not None, "a report answers a directive"
        self._stream.report(report)

    def push_state(self, round_: int, packed: Mapping[str, Tensor]) -> None:
        """Send prefix and exits at the end of a round, as the trainer has packed them."""
        data = memoryview(tensors_to_bytes(packed))
        header = pb.StateHeader(round=round_, bytes=data.nbytes)
        self._calls.unary("PushState", frames(pb.PushStateRequest(header=header), data), None)
        self.bytes_sent += data.nbytes

    def pull_state(self) -> Weights:
        """Get the weights that this client continues with."""
        data, announced = io.BytesIO(), 0
        with self._calls.translated():
            for frame in self._calls.stream("PullState", pb.PullStateRequest()):
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
        with self._calls.translated():
            answers = self._calls.stream("Predict", iter(outgoing.get, None), timeout=deadline)
            try:
                ahead = 0
                for activation in activations:
                    payload = codec.encode(activation, self._wire_dtype)
                    request = pb.PredictRequest(activation=messages.header_to_wire(payload))
                    for frame in frames(request, payload.data):
                        outgoing.put(frame)
                    self.bytes_sent += payload.data.nbytes
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
        self._calls.unary("Leave", pb.LeaveRequest(), 10.0)

    def close(self) -> None:
        """Close the stream and the connection."""
        self._hang_up()
        self._calls.close()

    def __enter__(self) -> ServerLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.close()

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _probabilities(self, answer: pb.PredictResponse) -> Tensor:
        self.bytes_received += len(answer.probabilities)
        values = torch.frombuffer(bytearray(answer.probabilities), dtype=torch.float32)
        return values.view(answer.rows, -1)
