from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero_common.agreement.plan import Plan
from hetero_common.agreement.steps import steps_to_text
from hetero_lab.report.audit import ClientAudit, audit
from support.events import recorded

Events = list[dict[str, Any]]
PLAN = Plan(rounds=4, steps_per_round=3)
STEPS = [0, 1, 2]


def started(run: str = "one") -> dict[str, Any]:
    return {"event": "started", "run": run}


def joined(*clients: str) -> Events:
    return [
        {"event": "joined", "client": client, "cut_layer": 1, "shard_size": 64}
        for client in clients
    ]


def closed(round_: int, *clients: str, applied: str = "0-2") -> Events:
    return [
        {"event": "round", "round": round_, "client": client, "steps": 3, "applied": applied}
        for client in clients
    ]


def released(client: str, round_: int) -> dict[str, Any]:
    return {"event": "released", "client": client, "round": round_, "why": "it is gone"}


def resumed(round_: int) -> dict[str, Any]:
    return {"event": "resumed", "round": round_}


FINISHED = {"event": "finished", "rounds": 4}


@st.composite
def histories(draw: st.DrawFn, with_releases: bool) -> tuple[Events, Plan]:
    """Of a run as it may go, with restarts of the server."""
    clients = [f"client-{n}" for n in range(draw(st.integers(1, 3)))]
    rounds, steps = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    events: Events = [started(), *joined(*clients)]
    round_, restarts = 0, draw(st.integers(0, 2))
    while round_ < rounds:
        for client in clients:
            count = steps
            if with_releases and draw(st.integers(0, 9)) == 0:
                count = draw(st.integers(0, steps))
                events.append(released(client, round_))
            events += closed(round_, client, applied=steps_to_text(range(count)))
            events[-1]["steps"] = steps
        if restarts and draw(st.integers(0, 3)) == 0:
            restarts -= 1
            round_ = draw(st.integers(-1, round_))
            events += [started(), resumed(round_)]
        round_ += 1
    if draw(st.booleans()):
        events.append(FINISHED)
    return events, Plan(rounds=rounds, steps_per_round=steps)


@given(histories(with_releases=True))
def test_a_correct_history_passes(history: tuple[Events, Plan]) -> None:
    events, plan = history
    found = audit(recorded(events), plan)
    assert found.findings == []
    assert found.rounds == plan.rounds
    assert found.resumed == sum(event["event"] == "resumed" for event in events)
    assert found.is_finished == (FINISHED in events)


@given(histories(with_releases=False), st.sampled_from(["drop", "repeat", "swap"]), st.data())
def test_any_step_that_is_lost_repeated_or_swapped_is_found(
    history: tuple[Events, Plan], what: str, data: st.DataObject
) -> None:
    events, plan = history
    steps = list(range(plan.steps_per_round))
    at = data.draw(st.sampled_from(steps))
    if what == "drop":
        del steps[at]
    elif what == "repeat":
        steps.insert(data.draw(st.integers(0, len(steps))), at)
    else:
        other = data.draw(st.sampled_from(steps))
        steps[at], steps[other] = steps[other], steps[at]
    surviving = [e for e in events if e["event"] == "round"][-1]  # nothing is taken back after it
    surviving["applied"] = steps_to_text(steps)
    is_wrong = steps != list(range(plan.steps_per_round))
    assert bool(audit(recorded(events), plan).findings) == is_wrong


@pytest.mark.parametrize(
    ("applied", "finding"),
    [
        ("", "a, round 1: steps 0-2 did not reach the server model"),
        ("0,2", "a, round 1: step 1 did not reach the server model"),
        ("0-2,1", "a, round 1: step 1 reached the server model more than once"),
        ("0,2,1", "a, round 1: its steps reached the server model in the order 0,2,1"),
        ("0-3", "a, round 1: step 3 reached the server model in a round of 3 steps"),
    ],
)
def test_a_finding_says_what_went_wrong_and_where(applied: str, finding: str) -> None:
    events = [started(), *joined("a"), *closed(0, "a"), *closed(1, "a", applied=applied)]
    assert audit(recorded(events), PLAN).findings == [finding]


@pytest.mark.parametrize(("applied", "steps"), [("", 0), ("0", 1), ("0-1", 2), ("0-2", 3)])
def test_of_a_released_client_the_first_steps_count(applied: str, steps: int) -> None:
    record = closed(0, "a", applied=applied)
    events = [started(), *joined("a", "b"), released("a", 0), *record, *closed(0, "b")]
    found = audit(recorded(events), PLAN)
    assert found.findings == []
    assert found.clients == [ClientAudit("a", 1, steps, (0,)), ClientAudit("b", 1, 3, ())]


@pytest.mark.parametrize("applied", ["1", "0,2", "1,0", "0,0"])
def test_a_released_client_is_no_excuse_for_gaps(applied: str) -> None:
    record = closed(0, "a", applied=applied)
    assert (
        audit(recorded([started(), *joined("a"), released("a", 0), *record]), PLAN).findings != []
    )


def test_what_a_restart_took_back_does_not_count() -> None:
    lost = [*closed(1, "a", applied="0"), *closed(2, "a"), released("a", 2), FINISHED]
    events = [started(), *joined("a"), *closed(0, "a"), *lost, started(), resumed(0)]
    found = audit(recorded([*events, *closed(1, "a")]), PLAN)
    assert (found.findings, found.rounds, found.resumed) == ([], 2, 1)
    assert found.clients == [ClientAudit("a", 2, 6, ())]
    assert not found.is_finished


def test_what_was_recorded_before_the_restart_does_count() -> None:
    events = [started(), *joined("a"), *closed(0, "a"), started(), resumed(0)]
    assert audit(recorded([*events, *closed(0, "a")]), PLAN).findings == [
        "a, round 0: it is recorded more than once"
    ]


def test_another_run_of_the_same_directory_counts_alone() -> None:
    events = [started("one"), *joined("a"), *closed(0, "a", applied="0")]
    events += [started("two"), *joined("a"), *closed(0, "a")]
    assert audit(recorded(events), PLAN).findings == []


def test_rounds_close_one_after_the_other() -> None:
    events = [started(), *joined("a"), *closed(0, "a"), *closed(2, "a"), *closed(1, "a")]
    assert audit(recorded(events), PLAN).findings == ["a, round 1: it is recorded after round 2"]


def test_a_round_that_nobody_has_a_record_of_is_missed() -> None:
    events = [started(), *joined("a"), *closed(1, "a")]
    assert audit(recorded(events), PLAN).findings == ["no client has a record of round 0"]
    events = [started(), *joined("a"), *closed(0, "a"), *closed(1, "a"), FINISHED]
    assert audit(recorded(events), PLAN).findings == ["no client has a record of round 2-3"]


A_WITHOUT_ROUND_1 = [started(), *joined("a", "b"), *closed(0, "a", "b"), *closed(1, "b")]


def test_a_record_that_is_missing_as_a_whole_is_missed() -> None:
    finding = "a, round 1: there is no record, and nothing says it was away"
    for later in (closed(2, "a", "b"), closed(2, "b")):
        assert audit(recorded([*A_WITHOUT_ROUND_1, *later]), PLAN).findings == [finding]


def test_the_newest_round_of_a_run_that_goes_on_may_be_half_written() -> None:
    assert audit(recorded(A_WITHOUT_ROUND_1), PLAN).findings == []
    assert audit(
        recorded([*A_WITHOUT_ROUND_1, FINISHED]), PLAN.model_copy(update={"rounds": 2})
    ).findings


def left(client: str, round_: int, state: str) -> dict[str, Any]:
    return {"event": "left", "client": client, "round": round_, "state": state}


@pytest.mark.parametrize(
    ("away", "is_explained"),
    [
        (released("a", 0), True),
        (left("a", 1, "LEFT"), True),
        (left("a", 0, "EVICTED"), True),
        (left("a", 1, "STALE"), False),
        (left("b", 1, "LEFT"), False),
        (released("a", 2), False),
    ],
)
def test_who_was_away_has_no_record(away: dict[str, Any], is_explained: bool) -> None:
    found = audit(recorded([*A_WITHOUT_ROUND_1, away, *closed(2, "a", "b")]), PLAN)
    assert (found.findings == []) == is_explained


def test_a_round_has_the_steps_of_the_plan() -> None:
    plan = Plan(rounds=1, steps_per_round=0, batch_size=16)
    events = [started(), *joined("a"), *closed(0, "a")]
    assert audit(recorded(events), plan).findings == [
        "a, round 0: it was to train 3 steps, which is not what it has agreed to"
    ]
    events[1]["shard_size"] = 48
    assert audit(recorded(events), plan).findings == []


@pytest.mark.parametrize("name", ["client", "round", "steps", "applied"])
def test_an_event_without_a_field_is_no_event(name: str) -> None:
    (record,) = closed(0, "a")
    del record[name]
    with pytest.raises(ValueError, match=name):
        audit(recorded([started(), *joined("a"), record]), PLAN)


def test_a_round_that_all_of_its_clients_have_left_has_no_record() -> None:
    away: Events = [released("a", 0), left("b", 0, "LEFT")]
    later = [event for round_ in range(1, PLAN.rounds) for event in closed(round_, "b")]
    joins = [started(), *joined("a", "b")]
    assert audit(recorded([*joins, *away, *later, {"event": "finished"}]), PLAN).findings == []
    assert audit(recorded([*joins, *later, {"event": "finished"}]), PLAN).findings == [
        "no client has a record of round 0"
    ]
