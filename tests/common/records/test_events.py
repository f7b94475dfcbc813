"""Events as they are written, and read back by this version and by later ones."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hetero_common.agreement.control import Evaluation, OperatingPoint
from hetero_common.records import events
from hetero_common.records.events import EVENTS, Event, from_record, type_of

ENVELOPE = {"event", "time", "seconds"}
RUNS = Path(__file__).parents[3] / "docs" / "runs.md"
TRAFFIC: dict[str, Any] = {
    "bytes_received": 1,
    "bytes_returned": 2,
    "bytes_pushed": 3,
    "bytes_pulled": 4,
    "bytes_asked": 5,
    "bytes_answered": 6,
}
TALLY: dict[str, Any] = {
    "samples": 16,
    "server_loss": 0.5,
    "server_train_accuracy": 0.25,
    "gradient_norm": 1.0,
    "gradient_norm_max": 2.0,
    "activation_peak": 3.0,
    "activation_peak_max": 4.0,
    "outliers": 1,
}
ANSWERS: dict[str, Any] = {
    "round": 2,
    "samples": 10,
    "exit_accuracy": 0.5,
    "server_accuracy": 0.6,
    "threshold": 0.4,
    "threshold_accuracy": 0.7,
    "offload_share": 0.3,
    "only_server_right": 0.1,
    "curve": [{"threshold": -1.0, "accuracy": 0.6, "offload_share": 1.0}],
    "class_samples": [4, 6],
    "exit_class_accuracy": [0.5, None],
    "server_class_accuracy": [0.6, 0.6],
}
WRITTEN: list[tuple[str, dict[str, Any]]] = [
    ("Started", {"event": "started", "run": "r", "version": "1", "torch": "2"}),
    ("Joined", {"event": "joined", "client": "a", "cut_layer": 3, "shard_size": 9, "round": 0}),
    ("Returned", {"event": "returned", "client": "a", "round": 2, "base": 1, "first_step": None}),
    ("Left", {"event": "left", "client": "a", "state": "STALE", "round": 2, "reason": None}),
    ("Released", {"event": "released", "client": "a", "round": 2, "why": "it slept"}),
    (
        "LeftOut",
        {
            "event": "left_out",
            "client": "a",
            "round": 2,
            "statistic": "s",
            "value": 9.0,
            "usual": 1.0,
        },
    ),
    (
        "QuarantineEntered",
        {"event": "quarantined", "client": "a", "round": 2, "step": 1}
        | {"statistic": "s", "value": 9.0, "usual": 1.0},
    ),
    (
        "RoundClosed",
        {"event": "round", "round": 2, "client": "a", "cut_layer": 3, "steps": 2, "applied": "0-1"}
        | TALLY
        | {"exit_loss": None, "exit_train_accuracy": None}
        | TRAFFIC
        | {"update_norm": None, "buffers_norm": 0.5},
    ),
    ("Evaluated", {"event": "evaluation", "client": "a", "cut_layer": 3} | TRAFFIC | ANSWERS),
    ("CheckpointWritten", {"event": "checkpoint", "round": -1, "failed": None}),
    ("Resumed", {"event": "resumed", "round": 4}),
    ("Finished", {"event": "finished", "rounds": 5}),
    (
        "DeviceJoined",
        {"event": "joined", "run": "r", "client": "a", "cut_layer": 3, "shard_size": 9}
        | {"version": "1", "torch": "2"},
    ),
    ("Rejoined", {"event": "rejoined", "base": None}),
    (
        "DeviceRound",
        {"event": "round", "bytes_sent": 1, "bytes_received": 2, "round": 3}
        | {"exit_loss": 0.5, "exit_accuracy": 0.25},
    ),
    (
        "DeviceEvaluated",
        {"event": "evaluation", "bytes_sent": 1, "bytes_received": 2, "last": True} | ANSWERS,
    ),
    ("DeviceFinished", {"event": "finished", "bytes_sent": 1, "bytes_received": 2}),
    (
        "LocalRound",
        {"event": "round", "client": "a", "round": 3, "exit_loss": 0.5, "exit_accuracy": 0.25},
    ),
    (
        "LocalEvaluated",
        {"event": "evaluation", "round": 3, "client": "a", "cut_layer": 2, "samples": 10}
        | {"class_samples": [4, 6], "exit_accuracy": 0.5, "exit_class_accuracy": [0.5, None]},
    ),
    ("WholeRound", {"event": "round", "round": 3, "loss": 0.5, "samples": 100}),
    (
        "WholeRound",
        {"event": "round", "round": 3, "loss": 0.5, "bytes_pushed": 1, "bytes_pulled": 2},
    ),
    (
        "WholeEvaluated",
        {"event": "evaluation", "round": 3, "samples": 10, "class_samples": [4, 6]}
        | {"accuracy": 0.5, "class_accuracy": [0.5, None], "cut_layer": 3},
    ),
]
"""The type of each event, and a line of it as it has always been written."""
each_line = pytest.mark.parametrize(("name", "line"), WRITTEN, ids=[name for name, _ in WRITTEN])


@each_line
def test_what_is_written_is_read_and_written_again_as_it_was(
    name: str, line: dict[str, Any]
) -> None:
    event = from_record({**line, "time": 1.0, "seconds": 0.5})
    assert type(event).__name__ == name
    assert isinstance(event, Event)
    again = json.loads(json.dumps({"event": event.kind, **event.record()}))
    assert list(again.items()) == list(line.items()), "the order of the fields stays too"


def test_every_type_has_a_line_here() -> None:
    assert {each.__name__ for each in EVENTS} == {name for name, _ in WRITTEN}


def test_events_are_values() -> None:
    for each in EVENTS:
        assert dataclasses.is_dataclass(each)
        assert each.__dataclass_params__.frozen, each  # type: ignore[attr-defined]  # of dataclasses


@each_line
def test_a_field_of_a_later_version_is_left_out(name: str, line: dict[str, Any]) -> None:
    assert from_record({**line, "not_known_yet": [1]}) == from_record(line)


def test_a_kind_of_a_later_version_is_left_out() -> None:
    assert type_of({"event": "not known yet"}) is None
    assert from_record({"event": "not known yet", "round": 1}) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {"event": "round", "round": 0, "client": "a", "server_loss": 1.0},
            events.RoundClosed(0, "a", server_loss=1.0),
        ),
        ({"event": "joined", "client": "a", "cut_layer": 2}, events.Joined("a", 2)),
        (
            {
                "event": "evaluation",
                "round": 0,
                "client": "a",
                "samples": 3,
                "server_accuracy": 0.5,
            },
            events.Evaluated(client="a", round=0, samples=3, server_accuracy=0.5),
        ),
        ({"event": "started", "run": "r"}, events.Started("r")),
    ],
)
def test_what_an_older_version_has_not_recorded_has_its_default(
    line: dict[str, Any], expected: Event
) -> None:
    assert from_record(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        {"event": "round", "client": "a"},
        {"event": "round", "client": "a", "round": -1},
        {"event": "joined", "client": "a", "cut_layer": 0},
        {"event": "evaluation", "client": "a", "round": 0, "samples": 1, "server_accuracy": 1.5},
        {"event": "evaluation", "client": "a", "round": 0, "samples": 0, "server_accuracy": 0.5},
        {"event": "checkpoint", "round": "many"},
    ],
)
def test_what_cannot_be_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        from_record(line)


def test_an_evaluation_becomes_an_event_as_it_is() -> None:
    point = OperatingPoint(-1.0, 0.6, 1.0)
    told = Evaluation(2, 10, 0.5, 0.6, 0.4, 0.7, 0.3, 0.1, (point,), (4, 6), (2, 3), (3, 4))
    event = events.DeviceEvaluated(bytes_sent=1, bytes_received=2, last=True, **told.record())
    record = json.loads(json.dumps(event.record()))
    assert from_record({"event": "evaluation", **record}) == dataclasses.replace(
        event,
        class_samples=(4, 6),
        exit_class_accuracy=(0.5, 0.5),
        server_class_accuracy=(0.75, 4 / 6),
    )


def test_the_documents_name_all_events_and_no_others() -> None:
    text = RUNS.read_text(encoding="utf-8")
    section = text[text.index("## Events") : text.index("### Reading them")]
    named = set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) - ENVELOPE
    assert named == {each.kind for each in EVENTS}
