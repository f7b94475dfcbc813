from __future__ import annotations

from hetero_common.errors import NonFinite, RefusedInput
from hetero_server.learning.strategies.base import all_at_once, no_exits, one_by_one

REFUSED = RefusedInput("no")


def halved(number: int) -> float:
    """Refuses odd numbers."""
    if number % 2:
        raise NonFinite(str(number))
    return number / 2


def test_one_that_is_refused_does_not_keep_the_others_from_theirs() -> None:
    first, second, third = one_by_one(halved, [2, 3, 4])
    assert (first, third) == (1.0, 2.0)
    assert isinstance(second, NonFinite)
    assert one_by_one(halved, []) == []


def test_refusals_stay_in_their_places() -> None:
    calls: list[list[int]] = []

    def together(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        return [10 * number for number in numbers]

    numbers: list[int | RefusedInput] = [1, REFUSED, 3]
    assert all_at_once(together, numbers) == [10, REFUSED, 30]
    assert calls == [[1, 3]]


def test_nothing_is_done_with_nothing() -> None:
    def together(numbers: list[int]) -> list[int]:
        raise AssertionError("it was all refused")

    assert all_at_once(together, [REFUSED, REFUSED]) == [REFUSED, REFUSED]


def test_a_server_without_exits_has_none_at_any_cut() -> None:
    assert no_exits(2) == {}
