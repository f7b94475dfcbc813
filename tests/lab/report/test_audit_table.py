"""hetero-report --audit, on run directories as they are and as they should not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hetero_common.records.rundir import METRICS_FILE, PLAN_FILE
from hetero_lab.report import main

if TYPE_CHECKING:
    from conftest import Simulate

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def simulated(simulate: Simulate) -> Path:
    return simulate(
        *("--dataset", "digits", "--normalization", "digits", "--model", "tinycnn"),
        *("--width", "4", "--image-size", "8", "--batch-size", "16", "--rounds", "3"),
        *("--steps-per-round", "4", "--clients", "2", "--eval-samples", "20"),
    )


@pytest.fixture
def run(simulated: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(simulated, tmp_path / "run")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]


def rewrite(run: Path, events: list[dict[str, Any]], end: str = "") -> None:
    text = "".join(json.dumps(event) + "\n" for event in events)
    (run / METRICS_FILE).write_text(text + end)


def rounds(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "round"]


def test_a_run_that_is_as_it_should_be_passes(run: Path, capsys: Capture) -> None:
    assert main([str(run), "--audit"]) == 0
    written = capsys.readouterr()
    assert written.err == ""
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in written.out.splitlines()]
    assert [row for row in rows if row] == [
        ["client-1", "3", "12", "-"],
        ["client-2", "3", "12", "-"],
    ]
    assert written.out.splitlines()[-1] == (
        "audit passed: 2 clients, 3 rounds, 24 steps, each applied once and in order; "
        "resumed 0 times, finished"
    )


def test_a_run_that_goes_on_passes(run: Path, capsys: Capture) -> None:
    events = lines(run)
    last = events.index(rounds(events)[-1])
    rewrite(run, events[:last], end='{"event": "round", "rou')
    assert main(["--audit", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("resumed 0 times, not finished yet")


def test_each_finding_has_a_line(run: Path, capsys: Capture) -> None:
    events = lines(run)
    rounds(events)[0]["applied"], rounds(events)[5]["applied"] = "0-2", "0,1,3,2,2"
    rewrite(run, events)
    assert main(["--audit", str(run)]) == 1
    written = capsys.readouterr()
    assert written.out.splitlines()[-2:] == [
        "client-1, round 0: step 3 did not reach the server model",
        "client-2, round 2: step 2 reached the server model more than once",
    ]
    assert written.err == "hetero-report: audit failed: 2 findings\n"


def test_one_bad_run_of_several_is_enough(run: Path, simulated: Path, capsys: Capture) -> None:
    events = lines(run)
    rounds(events)[0]["applied"] = ""
    rewrite(run, events)
    assert main(["--audit", str(simulated), str(run)]) == 1
    written = capsys.readouterr()
    assert "audit passed" in written.out
    assert written.err == "hetero-report: audit failed: 1 finding\n"


def test_a_released_client_is_shown(run: Path, capsys: Capture) -> None:
    events = lines(run)
    record = rounds(events)[2]
    record["applied"] = "0"
    gone = {"event": "released", "time": 1.0, "client": record["client"], "round": record["round"]}
    rewrite(run, [events[0], gone, *events[1:]])
    assert main(["--audit", str(run)]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["│", "client-1", "│", "3", "│", "9", "│", "1", "│"] in rows


def test_a_line_that_a_kill_cut_short_is_no_damage(run: Path) -> None:
    started = {"event": "started", "time": 1.0, "run": "one"}
    torn = '{"event": "started", "run": "o\n'
    (run / METRICS_FILE).write_text(torn + json.dumps(started) + "\n")
    assert main(["--audit", str(run)]) == 0


def damage(run: Path, what: str) -> None:
    metrics = run / METRICS_FILE
    data = bytearray(metrics.read_bytes())
    match what:
        case "a line":
            data[data.index(b"\n", len(data) // 2) - 1] ^= 2  # the brace that ends it
        case "the last line":
            data[-2] ^= 2
        case "a field":
            data = data.replace(b'"applied"', b'"appliee"', 1)
        case "a value":
            data = data.replace(b'"applied": "0-3"', b'"applied": "0-B"', 1)
        case "text":
            data[len(data) // 2] = 0xFF
        case _:
            data = bytearray(b"[1]\n")
    metrics.write_bytes(data)


@pytest.mark.parametrize(
    "what", ["a line", "the last line", "a field", "a value", "text", "no objects"]
)
def test_damaged_metrics_are_bad_input(what: str, run: Path, capsys: Capture) -> None:
    damage(run, what)
    assert main(["--audit", str(run)]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("hetero-report: ") and written.err.count("\n") == 1
    assert str(run / METRICS_FILE) in written.err


def test_directories_that_hold_no_run_of_a_server_are_bad_input(run: Path, capsys: Capture) -> None:
    def refusal(*flags: str) -> str:
        assert main(list(flags)) == 2
        written = capsys.readouterr()
        assert written.out == ""
        return written.err

    assert refusal("--audit") == "hetero-report: no run to report on: name run directories\n"
    assert refusal("--audit", str(run.parent)) == (
        f"hetero-report: {run.parent} is no run directory: it has no valid plan.json\n"
    )
    (run / PLAN_FILE).write_text("{")
    assert "no valid plan.json" in refusal("--audit", str(run))


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            {"event": "joined", "run": "one", "client": "a", "cut_layer": 2},
            "is a client's run: name the run directory of its server",
        ),
        (
            {"event": "round", "round": 0, "loss": 2.0},
            "is a centralized run: it has no clients to look at",
        ),
    ],
)
def test_other_run_directories_are_bad_input(
    event: dict[str, Any], sentence: str, run: Path, capsys: Capture
) -> None:
    rewrite(run, [event | {"time": 1.0}])
    assert main(["--audit", str(run)]) == 2
    assert capsys.readouterr().err == f"hetero-report: {run} {sentence}\n"


def test_a_directory_without_metrics_is_bad_input(run: Path, capsys: Capture) -> None:
    (run / METRICS_FILE).unlink()
    assert main(["--audit", str(run)]) == 2
    assert "cannot be read" in capsys.readouterr().err
