"""Who asks for too much is refused, and nobody else."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from hetero_common.errors import LimitExceeded
from hetero_server.net.limits import OpenCalls, PerMinute


def test_one_caller_has_so_many_calls_open_and_another_is_not_touched() -> None:
    calls = OpenCalls(total=10, each=2)
    with ExitStack() as stack:
        stack.enter_context(calls.one_of("a"))
        with calls.one_of("a"), pytest.raises(LimitExceeded, match="at most 2 calls of one client"):
            stack.enter_context(calls.one_of("a"))
        stack.enter_context(calls.one_of("a"))  # the place of the one that has ended
        stack.enter_context(calls.one_of("b"))


def test_all_callers_together_have_so_many_calls_open() -> None:
    calls = OpenCalls(total=3, each=2)
    with ExitStack() as stack:
        for caller in ("a", "b", "c"):
            stack.enter_context(calls.one_of(caller))
        with pytest.raises(LimitExceeded, match=r"at most 3 calls at a time \(its --max-calls\)"):
            stack.enter_context(calls.one_of("d"))
    with calls.one_of("d"):
        pass


def test_a_call_that_fails_gives_its_place_back() -> None:
    calls = OpenCalls(total=1, each=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="its own"), calls.one_of("a"):
            raise ValueError("its own")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_registrations_of_one_client_and_of_all_are_counted_by_the_minute() -> None:
    clock = Clock()
    registrations = PerMinute(total=4, each=2, clock=clock)
    for client_id in ("a", "a", "b"):
        registrations.count(client_id)
    with pytest.raises(LimitExceeded, match="at most 2 registrations of one client"):
        registrations.count("a")
    registrations.count("c")
    with pytest.raises(LimitExceeded, match="at most 4 registrations a minute"):
        registrations.count("d")
    clock.now += 59.0
    with pytest.raises(LimitExceeded):
        registrations.count("d")
    clock.now += 1.0
    for client_id in ("a", "a", "d", "d"):
        registrations.count(client_id)
