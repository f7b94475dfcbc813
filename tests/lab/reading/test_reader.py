"""The data model, from run directories that were trained and from such as should not be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hetero_common.agreement.control import OperatingPoint
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.history import read_records
from hetero_common.records.rundir import METRICS_FILE, PLAN_FILE, SETTINGS_FILE, read_plan
from hetero_common.version import __version__
from hetero_lab.methods import METHODS
from hetero_lab.reading.reader import read_run
from hetero_lab.reading.run import Curve, Source, TransferredBytes
from lab.test_simulation import SMALL
from support.sample_runs import PLAN, evaluation_event, joined, round_event, write_run

if TYPE_CHECKING:
    from conftest import Simulate

CLIENT = {"cut_layer": 3, "dataset": "digits"}


# What was trained.


@pytest.fixture(scope="module")
def simulated(simulate: Simulate) -> Path:
    flags = ("--clients", "3", "--eval-every", "1", "--threshold", "0.9", "--wire", "fp16")
    return simulate(*SMALL, *flags, "--seed", "5", "--feedback", "gradient")


def test_a_simulated_run_is_read_exactly(simulated: Path) -> None:
    run, events = read_run(simulated), read_records(simulated)
    assert run.name == f"{simulated.parent.name}/run"
    assert (run.source, run.method, run.plan) == (
        Source.SIMULATOR,
        "mixed",
        read_plan(simulated),
    )
    assert run.versions == {"hetero-splitee": __version__, "torch": torch.__version__}
    assert (run.started, run.rounds, run.is_finished) == (events[0]["time"], 2, True)
    assert (run.incidents, run.notes) == ((), ())
    assert [(p.name, p.cut_layer, p.images, p.steps) for p in run.participants] == [
        ("client-1", 2, 478, 10),
        ("client-2", 3, 478, 10),
        ("client-3", 4, 477, 10),
    ]
    for each in run.participants:
        own = [event for event in events if event.get("client") == each.name]
        trained = [event for event in own if event["event"] == "round"]
        assert [(m.round, m.exit, m.server) for m in each.training] == [
            (e["round"], e["exit_train_accuracy"], e["server_train_accuracy"]) for e in trained
        ]
        tests = [event for event in own if event["event"] == "evaluation"]
        assert [(m.round, m.samples, m.exit, m.server) for m in each.tests] == [
            (e["round"], e["samples"], e["exit_accuracy"], e["server_accuracy"]) for e in tests
        ]
        assert [(m.threshold, m.combined, m.offload_share) for m in each.tests] == [
            (0.9, e["threshold_accuracy"], e["offload_share"]) for e in tests
        ]
        assert [m.curve for m in each.tests] == [
            Curve(tuple(OperatingPoint(**p) for p in e["curve"]), e["only_server_right"])
            for e in tests
        ]
        assert [(m.exit_classes, m.server_classes) for m in each.tests] == [
            (tuple(e["exit_class_accuracy"]), tuple(e["server_class_accuracy"])) for e in tests
        ]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_read(method: str, simulate: Simulate) -> None:
    cuts = ("--cut-layers", "2,4" if method == "fedavg-prefix" else "3")
    run = read_run(simulate(*SMALL, "--clients", "2", *cuts, "--method", method))
    assert (run.method, run.is_finished, run.rounds) == (
        "mixed" if method == "split" else method,
        True,
        2,
    )
    expected: dict[str, list[tuple[str, int | None]]] = {
        "centralized": [("whole model", None)],
        "fedavg": [("whole model", None)],
        "fedavg-prefix": [("averaged prefix 2", 2), ("averaged prefix 4", 4)],
    }
    clients: list[tuple[str, int | None]] = [("client-1", 3), ("client-2", 3)]
    found = [(each.name, each.cut_layer) for each in run.participants]
    assert found == expected.get(method, clients)
    for each in run.participants:
        assert each.last is not None
        has_server = method not in ("isolated", "fedavg-prefix")
        has_exit = method in ("split", "isolated", "fedavg-prefix")
        assert (each.last.server is not None, each.last.exit is not None) == (has_server, has_exit)
        assert len(each.last.server_classes) == (10 if has_server else 0)
        assert len(each.last.exit_classes) == (10 if has_exit else 0)
        assert (each.payload is None) == (method in ("centralized", "isolated"))


# What a process or a server was stopped at.


def test_a_resumed_server_takes_back_what_it_does_not_know(tmp_path: Path) -> None:
    events = [
        {"event": "started", "run": "one", "version": "1", "torch": "2"},
        joined(),
        round_event(0),
        evaluation_event(0),
        round_event(1, applied="0-3"),
        {"event": "started", "run": "one", "version": "1", "torch": "3"},
        {"event": "resumed", "round": 0},
        {"event": "returned", "client": "a", "round": 1, "base": 0, "first_step": 0},
    ]
    run = read_run(write_run(tmp_path / "run", events))
    (client,) = run.participants
    assert (client.steps, [m.round for m in client.training]) == (8, [0])
    assert (run.is_finished, run.versions["torch"], run.seconds) == (False, "3", 7.0)
    assert [(i.seconds, i.round, i.client, i.what) for i in run.incidents] == [
        (6.0, 0, None, "the server was started again and went on from the end of round 1"),
        (7.0, 1, "a", "this client came back and went on from the end of round 1"),
    ]


def test_a_client_that_was_started_again_has_sent_what_both_processes_have(tmp_path: Path) -> None:
    def process(round_: int, *counts: int) -> list[dict[str, Any]]:
        event = {"event": "round", "round": round_, "exit_accuracy": 0.5}
        return [
            joined(run="one"),
            event | {"bytes_sent": counts[0], "bytes_received": counts[1]},
        ]

    events = [*process(0, 100, 10), *process(1, 50, 5)]
    torn = '{"event": "eval\n'
    write_run(tmp_path, events, CLIENT)
    lines = (tmp_path / METRICS_FILE).read_text().splitlines(keepends=True)
    (tmp_path / METRICS_FILE).write_text("".join([*lines[:2], torn, *lines[2:]]))
    run = read_run(tmp_path)
    (client,) = run.participants
    assert (run.source, run.method) == (Source.CLIENT, "client")
    assert [m.payload for m in client.training] == [
        TransferredBytes(100, 10),
        TransferredBytes(150, 15),
    ]
    assert run.notes == ("Bytes are what the client itself has counted, evaluations included.",)


# What versions before this one have recorded, and what says nothing.


def test_a_run_without_curves_and_bytes_of_weights_says_so(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, [joined(), round_event(0), evaluation_event(0)]))
    (client,) = run.participants
    assert client.payload == TransferredBytes(1000, 0)
    assert client.last is not None and (client.last.combined, client.last.curve) == (0.7, None)
    assert run.notes == (
        "This run is of a version that has not counted the bytes of weights.",
        "This run has recorded no curve of accuracy versus offload.",
    )


def test_an_exit_that_is_not_trained_answers_nothing(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"exit_weight": 0.0, "feedback": "gradient"})
    run = read_run(write_run(tmp_path, [joined(), round_event(0), evaluation_event(0)], plan=plan))
    (client,) = run.participants
    assert client.last is not None
    assert (client.last.exit, client.last.combined, client.last.server) == (None, None, 0.8)
    assert run.notes[0] == (
        "Its exits are not trained (exit weight 0), so nothing is shown of them."
    )


# What is damaged, or no run.


def change(**fields: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        events = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
        events[-1] |= fields
        lines = [json.dumps(event) + "\n" for event in events]
        (run / METRICS_FILE).write_text("".join(lines))

    return damage


def overwrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(text)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (lambda run: run.rename(run.with_name("gone")), "is no run directory"),
    "no plan": (lambda run: (run / PLAN_FILE).unlink(), "no valid plan.json"),
    "a plan of something else": (overwrite(PLAN_FILE, "[]"), "no valid plan.json"),
    "no settings": (lambda run: (run / SETTINGS_FILE).unlink(), "is missing or damaged"),
    "settings that are no YAML": (overwrite(SETTINGS_FILE, "a: [1"), "is missing or damaged"),
    "a bad date in settings": (overwrite(SETTINGS_FILE, "a: 2001-99-99"), "missing or damaged"),
    "settings of nothing": (overwrite(SETTINGS_FILE, "- 1"), "of no command that trains"),
    "settings of something else": (overwrite(SETTINGS_FILE, "a: 1"), "of no command that trains"),
    "no metrics": (lambda run: (run / METRICS_FILE).unlink(), "cannot be read"),
    "empty metrics": (overwrite(METRICS_FILE, ""), "is empty"),
    "a torn line": (overwrite(METRICS_FILE, '{"event": "rou\n{"event": "left"}\n'), "line 1 of"),
    "lists in lists": (overwrite(METRICS_FILE, "[" * 100_000 + "\n"), "line 1 of"),
    "no round": (change(round=None), "is damaged"),
    "a negative round": (change(round=-1), "is damaged"),
    "an accuracy beyond 1": (change(exit_accuracy=1.5), "is damaged"),
    "NaN": (change(server_accuracy=math.nan), "is damaged"),
    "a client without a name": (change(client=7), "is damaged"),
    "a time that cannot be": (change(time=math.inf), "is damaged"),
    "a time beyond all calendars": (change(time=1e300), "is damaged"),
    "a time in words": (change(time="now"), "is damaged"),
    "a curve of numbers": (change(curve=[1, 2]), "is damaged"),
    "a curve of no shares": (
        change(curve=[{"threshold": 0, "accuracy": 2, "offload_share": 0}] * 2),
        "is damaged",
    ),
    "nothing measured": (
        overwrite(METRICS_FILE, json.dumps(joined(time=1.0)) + "\n"),
        "has measured nothing yet",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [joined(), round_event(0), evaluation_event(0)])
    read_run(run)
    damage, sentence = DAMAGES[name]
    damage(run)
    with pytest.raises(HeteroError) as caught:
        read_run(run)
    assert not isinstance(caught.value, SettingsError), "the command was right; exit code 1"
    assert sentence in str(caught.value) and str(run) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_client_that_has_never_joined_is_damaged(tmp_path: Path) -> None:
    event = {"event": "round", "round": 0, "exit_accuracy": 0.5, "bytes_sent": 1}
    with pytest.raises(HeteroError, match="is damaged"):
        read_run(write_run(tmp_path, [event], CLIENT))
