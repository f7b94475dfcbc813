"""Functions that take turns, one at a time."""

from __future__ import annotations

import threading

import pytest
import torch

from hetero_lab.turns import Turn


def test_functions_go_on_where_they_have_passed_the_turn_on() -> None:
    heard: list[str] = []

    def started(name: str) -> Turn:
        def say() -> None:
            for number in range(3):
                heard.append(f"{name}{number}")
                turn.pass_on()

        turn = Turn(say, name)
        return turn

    turns = [started("a"), started("b")]
    for _ in range(3):
        assert [turn.advance() for turn in turns] == [True, True]
    assert [turn.advance() for turn in turns] == [False, False]
    assert heard == ["a0", "b0", "a1", "b1", "a2", "b2"]
    for turn in turns:
        turn.abandon()


def test_who_waits_passes_the_turn_on_until_it_is_true() -> None:
    given: list[int] = []
    turn = Turn(lambda: turn.wait_for(lambda: len(given) == 3), "waits")
    for number in range(3):
        assert turn.advance()
        given.append(number)
    assert not turn.advance()
    turn.abandon()


def test_what_a_function_raises_reaches_whoever_gives_the_turns() -> None:
    def fail() -> None:
        raise ValueError("no")

    turn = Turn(fail, "fails")
    with pytest.raises(ValueError, match="no"):
        turn.advance()
    turn.abandon()


def test_an_abandoned_function_ends_where_it_waits() -> None:
    ends: list[str] = []

    def wait() -> None:
        try:
            turn.wait_for(lambda: False)
        finally:
            ends.append("cleaned up")

    turn = Turn(wait, "waits for ever")
    turn.advance()
    turn.abandon()
    assert ends == ["cleaned up"]
    assert "waits for ever" not in {thread.name for thread in threading.enumerate()}


def test_a_function_that_never_had_a_turn_never_runs() -> None:
    ran: list[bool] = []
    turn = Turn(lambda: ran.append(True), "never")
    turn.abandon()
    assert not ran


def test_a_function_computes_with_as_many_threads_as_the_others() -> None:
    seen: list[int] = []
    turn = Turn(lambda: seen.append(torch.get_num_threads()), "computes")
    turn.advance()
    turn.abandon()
    assert seen == [torch.get_num_threads()]
