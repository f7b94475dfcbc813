from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero_common.tensors.codec import encode
from hetero_server.run.member import Batch, Identity, Member
from hetero_server.run.orders import ORDERS, Order, arrival, interleaved, relay

BATCH = Batch(0, 0, encode(torch.zeros(2, 1), "fp32"), [0, 0])
Schedule = list[tuple[str, int]]
"""Client id and step of each batch, in the order in which they are applied."""


def member(client_id: str, steps: int, *arrivals: int) -> Member:
    held = Member(Identity(client_id, cut_layer=1, shard_size=99, steps=steps), membership=0)
    for place in arrivals:
        arrive(held, place)
    return held


def arrive(held: Member, place: int) -> None:
    held.progress.received += 1
    held.progress.queue.append(BATCH)
    held.progress.arrivals.append(place)


def apply(held: Member) -> tuple[str, int]:
    held.progress.queue.popleft()
    held.progress.arrivals.popleft()
    held.progress.applied_steps.append(held.applied)
    return held.client_id, held.applied - 1


def drain(order: Order, members: Sequence[Member], seed: int = 0, round_: int = 0) -> Schedule:
    """Apply whatever the order lets through, one after another, of what has arrived."""
    applied = []
    while (turn := order(members, seed, round_)[:1]) and turn[0].progress.queue:
        applied += [apply(held) for held in turn]
    return applied


def whole_round(order: Order, steps: dict[str, int], seed: int = 0, round_: int = 0) -> Schedule:
    """The schedule when everything has arrived before the first step."""
    members = [member(name, count, *range(count)) for name, count in steps.items()]
    return drain(order, members, seed, round_)


rounds = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 4), min_size=1)
seeds = st.integers(0, 2**63 - 1)
each_repeatable = pytest.mark.parametrize("order", [interleaved, relay])


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_first_come_first_served(places: list[int]) -> None:
    members = [member(name, 2, *sorted(places[2 * i : 2 * i + 2])) for i, name in enumerate("abc")]
    when = {
        (m.client_id, step): place
        for m in members
        for step, place in enumerate(m.progress.arrivals)
    }
    assert drain(arrival, members) == sorted(when, key=when.__getitem__)


def test_first_come_first_served_waits_for_nobody() -> None:
    members = [member("absent", 3), member("present", 3, 0, 1)]
    assert drain(arrival, members) == [("present", 0), ("present", 1)]
    assert drain(arrival, []) == []


@settings(deadline=None)
@given(rounds, seeds, st.integers(0, 9))
def test_interleaved_ends_everybodys_step_before_the_next(
    steps: dict[str, int], seed: int, round_: int
) -> None:
    schedule = whole_round(interleaved, steps, seed, round_)
    assert Counter(schedule) == Counter((name, s) for name in steps for s in range(steps[name]))
    assert [step for _, step in schedule] == sorted(step for _, step in schedule)


@settings(deadline=None)
@given(rounds, seeds, st.integers(0, 9))
def test_relay_ends_a_clients_round_before_the_next_client(
    steps: dict[str, int], seed: int, round_: int
) -> None:
    schedule = whole_round(relay, steps, seed, round_)
    legs = [
        (name, [step for _, step in leg])
        for name, leg in itertools.groupby(schedule, key=lambda turn: turn[0])
    ]
    assert sorted(legs) == sorted((name, list(range(count))) for name, count in steps.items())


@each_repeatable
@settings(deadline=None)
@given(steps=rounds, seed=seeds, data=st.data())
def test_a_repeatable_order_does_not_depend_on_who_comes_when(
    order: Order, steps: dict[str, int], seed: int, data: st.DataObject
) -> None:
    expected = whole_round(order, steps, seed)
    members = [member(name, steps[name]) for name in data.draw(st.permutations(sorted(steps)))]
    by_id = {held.client_id: held for held in members}
    arrivals = data.draw(st.permutations([name for name in steps for _ in range(steps[name])]))
    schedule = []
    for place, name in enumerate(arrivals):
        arrive(by_id[name], place)
        schedule += drain(order, members, seed)
    assert schedule == expected


@each_repeatable
def test_turns_differ_between_seeds_and_rounds(order: Order) -> None:
    steps = dict.fromkeys("abcd", 1)
    base = whole_round(order, steps)
    assert any(whole_round(order, steps, seed=seed) != base for seed in range(1, 9))
    assert any(whole_round(order, steps, round_=round_) != base for round_ in range(1, 9))
    firsts = Counter(whole_round(order, steps, seed)[0][0] for seed in range(200))
    assert min(firsts[name] for name in "abcd") > 25  # 50 each are expected


def test_interleaved_deals_new_turns_in_each_step() -> None:
    schedule = [name for name, _ in whole_round(interleaved, dict.fromkeys("abcd", 8))]
    assert len({tuple(schedule[4 * step : 4 * step + 4]) for step in range(8)}) > 1


@each_repeatable
@settings(deadline=None)
@given(steps=rounds, seed=seeds, data=st.data())
def test_who_leaves_blocks_nobody(
    order: Order, steps: dict[str, int], seed: int, data: st.DataObject
) -> None:
    members = [member(name, count, *range(count)) for name, count in steps.items()]
    schedule: Schedule = []
    for _ in range(data.draw(st.integers(0, sum(steps.values())))):
        schedule.append(apply(order(members, seed, 0)[0]))
    gone = data.draw(st.sampled_from(members))
    members.remove(gone)
    schedule += drain(order, members, seed)
    for held in members:
        own = [step for name, step in schedule if name == held.client_id]
        assert own == list(range(held.steps))


@each_repeatable
def test_whose_turn_it_is_shows_before_the_batch_arrives(order: Order) -> None:
    members = [member(name, 2) for name in "abc"]
    expected = whole_round(order, dict.fromkeys("abc", 2))
    turn = order(members, 0, 0)[0]
    assert (turn.client_id, len(turn.progress.queue)) == (expected[0][0], 0)


def test_orders_by_name() -> None:
    assert [ORDERS[name] for name in ("arrival", "interleaved", "relay")] == [
        arrival,
        interleaved,
        relay,
    ]
