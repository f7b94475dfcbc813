from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from hetero_client.link import inbox as inbox_module
from hetero_client.link.inbox import Inbox, Outgoing
from hetero_common.agreement.control import Finish
from hetero_common.errors import ServerUnreachable, Superseded
from hetero_common.tensors.codec import Payload

SECONDS = 60.0
"""Guard against a wait that never ends."""
FEEDBACK = Payload("fp32", (1,), memoryview(bytes(4)))


def a_batch(round_: int, step: int) -> Outgoing:
    return Outgoing(round_, step, FEEDBACK, torch.zeros(1, dtype=torch.int64))


class Waiting:
    """Somebody who waits for something in a thread of its own."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=self._run, args=(wait,), daemon=True)
        self.found: object = None
        self.error: Exception | None = None
        self._thread.start()

    def _run(self, wait: Callable[[], object]) -> None:
        try:
            self.found = wait()
        except Exception as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def ended(self) -> Waiting:
        self._thread.join(SECONDS)
        assert self.is_over
        return self


def test_directives_come_in_their_order() -> None:
    inbox = Inbox()
    assert not inbox.has_directive
    first, second = Finish("first"), Finish("second")
    inbox.direct(first)
    inbox.direct(second)
    assert inbox.has_directive
    assert [inbox.next_directive(), inbox.next_directive()] == [first, second]
    assert not inbox.has_directive


def test_who_waits_for_a_directive_gets_the_next_one() -> None:
    inbox = Inbox()
    waiting = Waiting(inbox.next_directive)
    inbox.direct(Finish("over"))
    assert waiting.ended().found == Finish("over")


def test_credits_bound_what_is_under_way() -> None:
    inbox = Inbox(credits=2)
    inbox.take_credit(a_batch(0, 0))
    inbox.take_credit(a_batch(0, 1))
    waiting = Waiting(lambda: inbox.take_credit(a_batch(0, 2)))
    assert not waiting.is_over
    assert [batch.step for batch in inbox.unacknowledged()] == [0, 1]
    inbox.acknowledge(0, 0, None)
    waiting.ended()
    assert [batch.step for batch in inbox.unacknowledged()] == [1, 2]
    assert not inbox.is_under_way(0, 0) and inbox.is_under_way(0, 2)


def test_everything_is_acknowledged_in_the_end() -> None:
    inbox = Inbox(credits=2)
    inbox.drain()
    inbox.take_credit(a_batch(0, 0))
    inbox.take_credit(a_batch(0, 1))
    waiting = Waiting(inbox.drain)
    inbox.acknowledge(0, 1, None)
    assert not waiting.is_over
    inbox.acknowledge(0, 0, None)
    waiting.ended()


@pytest.mark.parametrize("feedback", [FEEDBACK, None])
def test_a_step_is_answered_with_what_the_server_returns_of_it(feedback: Payload | None) -> None:
    inbox = Inbox(credits=1)
    inbox.take_credit(a_batch(0, 0))
    waiting = Waiting(lambda: inbox.feedback(0, 0))
    inbox.acknowledge(0, 0, feedback)
    assert waiting.ended().found is feedback


def test_an_acknowledgement_of_nothing_that_is_under_way_answers_nobody() -> None:
    inbox = Inbox(credits=1)
    inbox.take_credit(a_batch(0, 1))
    waiting = Waiting(lambda: inbox.feedback(0, 1))
    inbox.acknowledge(0, 0, FEEDBACK)
    assert not waiting.is_over and inbox.is_under_way(0, 1)
    inbox.acknowledge(0, 1, None)
    assert waiting.ended().found is None


@pytest.mark.parametrize("what", ["directive", "credit", "drain", "feedback"])
def test_every_wait_ends_with_the_first_error_of_the_stream(what: str) -> None:
    inbox = Inbox(credits=1)
    inbox.take_credit(a_batch(0, 0))
    waits: dict[str, Callable[[], object]] = {
        "directive": inbox.next_directive,
        "credit": lambda: inbox.take_credit(a_batch(0, 1)),
        "drain": inbox.drain,
        "feedback": lambda: inbox.feedback(0, 0),
    }
    waiting = Waiting(waits[what])
    reason = Superseded("a")
    inbox.fail(reason)
    inbox.fail(ServerUnreachable("later"))
    assert waiting.ended().error is reason
    with pytest.raises(Superseded):
        waits[what]()


def test_what_came_before_the_end_is_still_given_out() -> None:
    inbox = Inbox()
    inbox.direct(Finish("over"))
    inbox.fail(ServerUnreachable("the server closed the connection"))
    assert inbox.next_directive() == Finish("over")
    with pytest.raises(ServerUnreachable):
        inbox.next_directive()


def test_what_was_under_way_on_a_broken_stream_counts_on_the_next() -> None:
    broken, inbox = Inbox(credits=3), Inbox(credits=3)
    for step in (1, 0):
        broken.take_credit(a_batch(2, step))
    inbox.carry_over(broken.unacknowledged())
    assert [batch.step for batch in inbox.unacknowledged()] == [0, 1]
    inbox.take_credit(a_batch(2, 2))
    inbox.carry_over([])
    inbox.drain()


def test_silence_is_counted_from_what_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(inbox_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    inbox = Inbox()
    now[0] += 7.0
    assert inbox.silence == 7.0
    inbox.hear()
    now[0] += 2.0
    assert inbox.silence == 2.0
