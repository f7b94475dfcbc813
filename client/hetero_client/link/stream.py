"""One training stream: batches and reports out, acknowledgements and directives into an inbox."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from hetero_client.link.calls import translated
from hetero_client.link.inbox import Inbox, Outgoing
from hetero_common.agreement.control import (
    Directive,
    Evaluate,
    Evaluation,
    Finish,
    Report,
    StartRound,
)
from hetero_common.agreement.heartbeats import is_lost
from hetero_common.errors import HeteroError, Mismatch, RefusedInput, ServerUnreachable
from hetero_common.tensors.codec import Payload
from hetero_common.wire import messages
from hetero_common.wire.frames import Assembler, Frame, frames
from hetero_splitee.v1 import service_pb2 as pb

Item = Frame[Any] | Message


class TrainingStream:
    """An open `Train` call and its two threads: one reads, one keeps the pulse.

    Args:
        call: Opens it on an iterator of requests; cancelled by `close`.
        inbox: Takes what comes, and the error it ends with.
        heartbeat: Seconds between two signs of life, each way.
        give_up: Called when the server shows none any more.
    """

    def __init__(
        self,
        call: Callable[[Iterator[Item]], Any],
        inbox: Inbox,
        heartbeat: float,
        give_up: Callable[[], None],
    ) -> None:
        self.inbox = inbox
        self._heartbeat = heartbeat
        self._give_up = give_up
        self._outgoing: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._answers = call(iter(self._outgoing.get, None))
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._read, "train-reader"), (self._beat, "train-pulse"))
        ]
        for thread in self._threads:
            thread.start()

    def send_batch(self, batch: Outgoing) -> int:
        """Put a batch on its way; returns the bytes of its payload."""
        message = pb.Batch(
            round=batch.round,
            step=batch.step,
            labels=batch.labels.tolist(),
            activation=messages.header_to_wire(batch.payload),
        )
        for frame in frames(pb.TrainRequest(batch=message), batch.payload.data):
            self._outgoing.put(frame)
        return batch.payload.data.nbytes

    def report(self, report: Report) -> None:
        """Tell the server that a round or an evaluation is done."""
        if isinstance(report, Evaluation):
            request = pb.TrainRequest(evaluation=messages.record_to_wire(report, pb.Evaluation))
        else:
            request = pb.TrainRequest(round_done=messages.record_to_wire(report, pb.RoundDone))
        self._outgoing.put(request)

    def close(self) -> None:
        """End the call."""
        self._closed.set()
        self._outgoing.put(None)
        self._answers.cancel()
        for thread in self._threads:
            thread.join(timeout=5)

    def _beat(self) -> None:
        """Say something regularly, and notice when the other side no longer does."""
        while not self._closed.wait(self._heartbeat):
            if is_lost(self.inbox.silence, self._heartbeat):
                silence = f"nothing came from the server for {self.inbox.silence:.0f} s"
                self.inbox.fail(ServerUnreachable(silence))
                self._give_up()
                return
            self._outgoing.put(pb.TrainRequest(heartbeat=pb.Heartbeat()))

    def _read(self) -> None:
        error: HeteroError = ServerUnreachable("the server closed the connection")
        try:
            with translated():
                for frame in self._answers:
                    self.inbox.hear()
                    message = frame.message
                    assert message is not None, "bulk bytes follow an announcement"
                    match message.WhichOneof("kind"):
                        case "heartbeat":
                            pass
                        case "ack":
                            feedback = _feedback(frame, self._answers)
                            self.inbox.acknowledge(message.ack.round, message.ack.step, feedback)
                        case _:
                            self.inbox.direct(_directive(message))
        except HeteroError as failure:
            error = failure
        self.inbox.fail(error)


def _feedback(
    frame: Frame[pb.TrainResponse], following: Iterator[Frame[pb.TrainResponse]]
) -> Payload | None:
    assert frame.message is not None, "it holds an acknowledgement"
    if not frame.message.ack.HasField("feedback"):
        return None
    tensor = messages.announced(frame.message.ack.feedback)
    collected = Assembler(tensor.nbytes)
    chunk = frame.chunk
    while chunk is not None:
        collected.feed(chunk)
        if collected.is_whole:
            return tensor.payload(collected.view())
        chunk = next(following, Frame()).chunk
    raise RefusedInput("the server's feedback is not complete")


def _directive(message: pb.TrainResponse) -> Directive:
    match message.WhichOneof("kind"):
        case "start_round":
            return messages.record_from_wire(message.start_round, StartRound)
        case "evaluate":
            return messages.record_from_wire(message.evaluate, Evaluate)
        case "finish":
            return messages.record_from_wire(message.finish, Finish)
        case _:
            raise Mismatch("the server directs what this client does not know: upgrade the client")
