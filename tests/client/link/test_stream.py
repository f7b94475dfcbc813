"""A training stream against answers that a test gives."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hetero_client.link.inbox import Inbox, Outgoing
from hetero_client.link.stream import TrainingStream
from hetero_common.agreement import heartbeats
from hetero_common.agreement.control import Evaluate, Evaluation, Finish, RoundDone, StartRound
from hetero_common.errors import HeteroError, Mismatch, RefusedInput, ServerUnreachable
from hetero_common.tensors import codec
from hetero_common.wire import messages
from hetero_common.wire.frames import Frame, frames
from hetero_splitee.v1 import service_pb2 as pb

SECONDS = 60.0
"""Guard against a message that never comes."""
NEVER = 1e6


class Call:
    """The other end of a stream: what was sent to it, and what it answers."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[Frame[pb.TrainResponse] | None] = queue.SimpleQueue()
        self.sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.has_ended = threading.Event()

    def __call__(self, requests: Iterator[Any]) -> Call:
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        return self

    def _read(self, requests: Iterator[Any]) -> None:
        for request in requests:
            self.sent.put(request)
        self.has_ended.set()

    def __iter__(self) -> Iterator[Frame[pb.TrainResponse]]:
        return self

    def __next__(self) -> Frame[pb.TrainResponse]:
        answer = self.answers.get(timeout=SECONDS)
        if answer is None:
            raise StopIteration
        return answer

    def cancel(self) -> None:
        self.answers.put(None)

    def says(self, data: memoryview | None = None, **kind: Any) -> None:
        response = pb.TrainResponse(**kind)
        answers = [Frame(response)] if data is None else frames(response, data)
        for frame in answers:
            self.answers.put(frame)

    def request(self) -> Any:
        return self.sent.get(timeout=SECONDS)


@pytest.fixture
def call() -> Call:
    return Call()


@pytest.fixture
def opened(call: Call) -> Iterator[TrainingStream]:
    """A stream without heartbeats."""
    stream = TrainingStream(call, Inbox(credits=4), NEVER, lambda: None)
    yield stream
    stream.close()


def end_of(stream: TrainingStream) -> HeteroError:
    """The error that it ends with."""
    with pytest.raises(HeteroError) as caught:
        stream.inbox.next_directive()
    return caught.value


def test_directives_arrive_in_the_inbox(call: Call, opened: TrainingStream) -> None:
    call.says(start_round=pb.StartRound(round=3, steps=5, push_state=True, first_step=2))
    call.says(heartbeat=pb.Heartbeat())
    call.says(evaluate=pb.Evaluate(round=3, last=True))
    call.says(finish=pb.Finish(reason="done"))
    start = opened.inbox.next_directive()
    assert isinstance(start, StartRound)
    assert (start.round, start.steps, start.push_state, start.first_step) == (3, 5, True, 2)
    assert opened.inbox.next_directive() == Evaluate(3, pull_state=False, last=True)
    assert opened.inbox.next_directive() == Finish("done")


def test_a_batch_is_announced_and_its_bytes_follow(call: Call, opened: TrainingStream) -> None:
    activation = torch.arange(8.0).view(2, 4)
    payload = codec.encode(activation, "fp32")
    assert opened.send_batch(Outgoing(1, 2, payload, torch.tensor([3, 4]))) == 32
    frame = call.request()
    batch = frame.message.batch
    assert (batch.round, batch.step, list(batch.labels)) == (1, 2, [3, 4])
    received = codec.Payload("fp32", (2, 4), memoryview(bytearray(frame.chunk)))
    assert torch.equal(codec.decode(received), activation)


def test_reports_are_sent_as_they_are(call: Call, opened: TrainingStream) -> None:
    opened.report(RoundDone(3, 1.5, 0.25))
    opened.report(Evaluation(3, 10, 0.5, 0.6, 0.4, 0.7, 0.3))
    done = call.request().round_done
    assert (done.round, done.exit_loss, done.exit_accuracy) == (3, 1.5, 0.25)
    assert call.request().evaluation.samples == 10


@pytest.mark.parametrize("has_feedback", [True, False])
def test_an_acknowledgement_comes_with_what_the_server_returns(
    has_feedback: bool, call: Call, opened: TrainingStream
) -> None:
    gradient = torch.arange(6.0).view(2, 3)
    payload = codec.encode(gradient, "fp32")
    opened.inbox.take_credit(Outgoing(0, 0, payload, torch.tensor([0, 0])))
    if has_feedback:
        ack = pb.Ack(round=0, step=0, feedback=messages.header_to_wire(payload))
        call.says(payload.data, ack=ack)
    else:
        call.says(ack=pb.Ack(round=0, step=0))
    found = opened.inbox.feedback(0, 0)
    if has_feedback:
        assert found is not None and torch.equal(codec.decode(found), gradient)
    else:
        assert found is None


def test_feedback_that_is_cut_short_ends_the_stream(call: Call, opened: TrainingStream) -> None:
    payload = codec.encode(torch.zeros(2, 3), "fp32")
    ack = pb.Ack(round=0, step=0, feedback=messages.header_to_wire(payload))
    call.answers.put(Frame(pb.TrainResponse(ack=ack), payload.data[:8]))
    call.says(heartbeat=pb.Heartbeat())
    error = end_of(opened)
    assert isinstance(error, RefusedInput)
    assert str(error) == "the server's feedback is not complete"


def test_a_directive_of_a_newer_server_ends_the_stream(call: Call, opened: TrainingStream) -> None:
    call.says()
    assert isinstance(end_of(opened), Mismatch)


def test_a_server_that_hangs_up_is_unreachable(call: Call, opened: TrainingStream) -> None:
    call.answers.put(None)
    error = end_of(opened)
    assert isinstance(error, ServerUnreachable)
    assert str(error) == "the server closed the connection"


def test_a_stream_that_is_closed_ends_its_call_and_its_threads(call: Call) -> None:
    before = threading.active_count()
    stream = TrainingStream(call, Inbox(), NEVER, lambda: None)
    stream.close()
    assert call.has_ended.wait(SECONDS)
    names = [thread.name for thread in threading.enumerate()]
    assert not {"train-reader", "train-pulse"} & set(names)
    assert threading.active_count() <= before + 1  # the call's own, which is just ending


def test_it_says_something_with_every_heartbeat(call: Call) -> None:
    stream = TrainingStream(call, Inbox(), 0.001, lambda: None)
    try:
        for _ in range(3):
            stream.inbox.hear()
            assert call.request().WhichOneof("kind") == "heartbeat"
    finally:
        stream.close()


def test_a_server_that_is_silent_for_three_heartbeats_is_given_up(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "_SILENT_BEATS", 0)
    given_up = threading.Event()
    stream = TrainingStream(call, Inbox(), 0.001, given_up.set)
    try:
        assert given_up.wait(SECONDS)
        error = end_of(stream)
        assert isinstance(error, ServerUnreachable)
        assert str(error) == "nothing came from the server for 0 s"
    finally:
        stream.close()
