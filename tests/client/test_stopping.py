"""Signals of this very process, to a client's block."""

from __future__ import annotations

import os
import signal

import pytest

from hetero_client.stopping import stoppable

NUMBERS = (signal.SIGTERM, signal.SIGINT)
each_signal = pytest.mark.parametrize("number", NUMBERS)


@each_signal
def test_a_signal_leaves_the_block_and_says_how_to_go_on(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    reached = []
    with stoppable():
        reached.append("before")
        os.kill(os.getpid(), number)
        reached.append("after")
    assert reached == ["before"]
    assert caplog.messages == [
        f"stopped by {number.name}: start it again with the same flags, and it goes on"
    ]


@each_signal
def test_on_the_way_out_a_second_signal_ends_the_process(number: signal.Signals) -> None:
    handlers = []
    with stoppable():
        try:
            os.kill(os.getpid(), number)
        finally:
            handlers = [signal.getsignal(each) for each in NUMBERS]
    assert handlers == [signal.SIG_DFL, signal.SIG_DFL]


def test_errors_pass_and_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(ValueError, match="its own"), stoppable():
        raise ValueError("its own")
    assert [signal.getsignal(number) for number in NUMBERS] == before


@each_signal
def test_nothing_that_handles_failures_takes_a_signal_for_one(number: signal.Signals) -> None:
    handled = []
    with stoppable():
        try:
            os.kill(os.getpid(), number)
        except Exception as error:
            handled.append(error)
    assert handled == []
