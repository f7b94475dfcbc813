"""Signals of this very process, to a client's block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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


HANGS = """
import os, signal, sys, threading
from hetero_client import stopping
stopping._FAREWELL_SECONDS = 0.1
with stopping.stoppable():
    try:
        os.kill(os.getpid(), signal.Signals[sys.argv[1]])
    finally:
        threading.Event().wait()
"""


@each_signal
def test_what_can_not_be_closed_holds_nobody_up(number: signal.Signals) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGS, number.name], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0
    said = f"stopped by {number.name}: start it again with the same flags, and it goes on\n"
    assert ended.stderr == said
