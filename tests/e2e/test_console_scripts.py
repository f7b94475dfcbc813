"""The commands as a user types them: one real run, watched from the outside."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hetero_common.agreement.plan import Plan
from hetero_common.models import build_model
from hetero_common.models.split import fingerprint, named_layers
from hetero_common.records.checkpoints import CHECKPOINTS
from hetero_common.records.history import read_records
from hetero_common.records.rundir import METRICS_FILE, MODEL_FILE, PLAN_FILE, SETTINGS_FILE
from hetero_common.tensors.weights import read_file
from hetero_lab.reading.reader import read_run
from hetero_lab.report import main

if TYPE_CHECKING:
    from e2e.conftest import Finished, Launch

COMMANDS = {
    entry.name: entry
    for entry in distribution("hetero-splitee").entry_points
    if entry.group == "console_scripts"
}
SERVING = health_pb2.HealthCheckResponse.SERVING


def health(address: str, service: str) -> int:
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(request, timeout=30).status)  # type: ignore[attr-defined]  # untyped


@dataclass
class Run:
    """What was seen of a server and two clients."""

    address: str = ""
    health: list[int] = field(default_factory=list)
    """Of the server as a whole and of our service, while training waits for the second client."""
    server: Path = Path()
    clients: dict[str, Path] = field(default_factory=dict)
    """Run directories, where they are by default."""
    finished: dict[str, Finished] = field(default_factory=dict)


@pytest.fixture(scope="module")
def run(launch: Launch) -> Iterator[Run]:
    """One client comes before its server, the other after it."""
    run = Run()
    data = ("--dataset", "digits", "--threshold", "0.3")
    with ExitStack() as processes:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            run.address = "{}:{}".format(*nobody.getsockname())
            flags = ("--server", run.address, "--cut-layer", "2", "--client-id", "early", *data)
            early = processes.enter_context(launch("hetero-client", *flags, "--shard", "1/2"))
            nobody.accept()[0].close()  # the client has called, and nobody has answered
        server = processes.enter_context(
            launch(
                *("hetero-server", "--strategy", "sequential", "--clients", "2"),
                *("--listen", run.address, "--model", "tinycnn", "--width", "4"),
                *("--image-size", "8", "--normalization", "digits", "--batch-size", "16"),
                *("--rounds", "4", "--steps-per-round", "3", "--eval-every", "2"),
            )
        )
        assert server.address == run.address
        services = ("", "hetero_splitee.v1.HeteroSplit")
        run.health = [health(run.address, service) for service in services]
        flags = ("--server", run.address, "--cut-layer", "4", "--client-id", "late", *data)
        late = processes.enter_context(launch("hetero-client", *flags, "--shard", "2/2"))
        run.finished = {
            name: process.finish()
            for name, process in (("early", early), ("late", late), ("server", server))
        }
        run.clients = {
            name: process.folder / "runs" / name
            for name, process in (("early", early), ("late", late))
        }
        (run.server,) = (server.folder / "runs").iterdir()
        yield run


def test_a_run_ends_with_exit_code_0_everywhere(run: Run) -> None:
    assert {name: ended.code for name, ended in run.finished.items()} == {
        "early": 0,
        "late": 0,
        "server": 0,
    }


def test_all_run_directories_can_be_reported_on(run: Run, launch: Launch, tmp_path: Path) -> None:
    outputs = []
    with launch("hetero-report", str(run.server), "--output", "page") as report:
        assert report.finish().code == 0
        outputs.append(report.folder / "page")
    for name, directory in run.clients.items():
        outputs.append(tmp_path / name)
        assert main([str(directory), "--output", str(outputs[-1])]) == 0
    for output in outputs:
        assert (output / "report.html").stat().st_size > 10_000
        assert len(list(output.glob("*.png"))) == 3
    at_server = {each.name: each for each in read_run(run.server).participants}
    for name, directory in run.clients.items():
        (own,), theirs = read_run(directory).participants, at_server[name]
        assert (own.cut_layer, own.images) == (theirs.cut_layer, theirs.images)
        for mine, said in zip(own.tests, theirs.tests, strict=True):
            assert dataclasses.replace(mine, payload=None) == dataclasses.replace(
                said, payload=None
            )


def test_a_server_is_healthy_while_training_waits(run: Run) -> None:
    assert run.health == [SERVING, SERVING]


def test_a_client_waits_for_its_server_visibly_and_then_trains(run: Run) -> None:
    assert f"waiting for the server at {run.address}: " in run.finished["early"].stderr
    rounds = [e["round"] for e in read_records(run.clients["early"]) if e["event"] == "round"]
    assert rounds == [0, 1, 2, 3]


def test_the_server_ends_with_a_table_of_results(run: Run) -> None:
    lines = run.finished["server"].stdout.splitlines()
    assert lines[0].strip() == "Results on the test images"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    last = {e["client"]: e for e in read_records(run.server) if e["event"] == "evaluation"}
    assert [row[:3] for row in rows] == [["early", "2", "717"], ["late", "4", "716"]]
    for row in rows:
        evaluation = last[row[0]]
        assert row[3] == f"{evaluation['exit_accuracy']:.1%}"
        assert row[4] == f"{evaluation['server_accuracy']:.1%}"
        assert row[5] == f"{evaluation['threshold_accuracy']:.1%} (0.3)"
        assert row[6] == f"{evaluation['offload_share']:.1%}"


def test_nobody_but_the_server_writes_to_standard_output(run: Run) -> None:
    assert run.finished["early"].stdout == run.finished["late"].stdout == ""


# --- run directories ------------------------------------------------------------------------------


def test_run_directories_hold_the_documented_files_and_no_others(run: Run) -> None:
    for folder in (run.server, *run.clients.values()):
        names = {path.name for path in folder.iterdir()}
        assert names == {SETTINGS_FILE, PLAN_FILE, METRICS_FILE, MODEL_FILE, CHECKPOINTS}


def test_all_sides_record_the_same_plan(run: Run) -> None:
    plan = Plan.model_validate_json((run.server / PLAN_FILE).read_bytes())
    assert (plan.model, plan.width, plan.rounds, plan.steps_per_round) == ("tinycnn", 4, 4, 3)
    for folder in run.clients.values():
        assert Plan.model_validate_json((folder / PLAN_FILE).read_bytes()) == plan


def test_settings_are_recorded_as_resolved(run: Run) -> None:
    server = yaml.safe_load((run.server / SETTINGS_FILE).read_text())
    assert (server["strategy"], server["clients"]) == ("sequential", 2), "from flags"
    assert (server["order"], server["threads"]) == ("interleaved", 1), "by default"
    client = yaml.safe_load((run.clients["late"] / SETTINGS_FILE).read_text())
    assert (client["cut_layer"], client["client_id"], client["shard"]) == (4, "late", "2/2")


def test_the_server_records_who_came_trained_evaluated_and_left(run: Run) -> None:
    events = read_records(run.server)
    by_client = [
        (e["event"], e["client"], e.get("round"))
        for e in events
        if e["event"] in ("joined", "round", "evaluation", "left")
    ]
    expected = [
        (kind, client, round_)
        for client in ("early", "late")
        for kind, rounds in (
            ("joined", [0]),
            ("round", [0, 1, 2, 3]),
            ("evaluation", [1, 3]),
            ("left", [3]),
        )
        for round_ in rounds
    ]
    assert sorted(by_client) == sorted(expected)
    kinds = [e["event"] for e in events if "client" not in e]
    assert kinds[0] == "started"
    assert sorted(kinds[1:]) == ["checkpoint", "checkpoint", "finished"], "at first and at last"
    assert [e["failed"] for e in events if e["event"] == "checkpoint"] == [None, None]
    assert {e["state"] for e in events if e["event"] == "left"} == {"LEFT"}
    sizes = [e["samples"] for e in events if e["event"] == "evaluation"]
    assert sizes == [364] * 4, "all test images there are, fewer than --eval-samples"
    assert {e["samples"] for e in events if e["event"] == "round"} == {3 * 16}


def test_a_client_records_what_the_server_records_of_it(run: Run) -> None:
    at_server = read_records(run.server)
    for client, folder in run.clients.items():
        own = read_records(folder)
        for kind in ("round", "evaluation"):
            theirs = [e for e in at_server if e["event"] == kind and e["client"] == client]
            mine = [e for e in own if e["event"] == kind]
            shared = {"event", "round", "exit_accuracy"} | (
                {"exit_loss"} if kind == "round" else {"samples", "threshold", "offload_share"}
            )
            names = {"exit_loss": "exit_loss", "exit_accuracy": "exit_train_accuracy"}
            renamed = names if kind == "round" else {}
            assert [{name: e[name] for name in shared} for e in mine] == [
                {name: e[renamed.get(name, name)] for name in shared} for e in theirs
            ]


def test_weights_are_left_on_both_sides(run: Run) -> None:
    model = build_model("tinycnn", num_classes=10, width=4)
    weights, metadata = read_file(run.server / MODEL_FILE)
    assert metadata["fingerprint"] == fingerprint(model, 8)
    assert sorted(weights.layers) == [1, 2, 3, 4, 5, 6]
    assert sorted(weights.exits) == [2, 3, 4]
    for client, cut_layer, exits in (("early", 2, [2]), ("late", 4, [3, 4])):
        own, metadata = read_file(run.clients[client] / MODEL_FILE)
        assert (metadata["cut_layer"], metadata["fingerprint"]) == (
            str(cut_layer),
            fingerprint(model, 8),
        )
        assert json.loads(metadata["classes"]) == list("0123456789")
        assert sorted(own.layers) == list(range(1, cut_layer + 1))
        assert sorted(own.exits) == exits


# --- what needs no run ----------------------------------------------------------------------------

# In this process, through the entry points that the scripts are made of: a start costs seconds, and
# `make wheel-smoke` starts every script as it is installed.


def test_the_commands_are_the_documented_ones() -> None:
    assert {"hetero-server", "hetero-client", "hetero-infer", "hetero-sim"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command].load()(["--help"])
    written = capsys.readouterr()
    assert (ended.value.code, written.err) == (0, "")
    assert written.out.startswith(f"usage: {command} ")
    assert "--threads" in written.out or command == "hetero-certs", "all others compute"


def test_list_cuts_prints_a_row_per_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--list-cuts", "--model", "tinycnn", "--width", "8", "--image-size", "16")
    assert COMMANDS["hetero-client"].load()(flags) == 0
    written = capsys.readouterr()
    assert written.err == ""
    rows = [line.split()[:2] for line in written.out.splitlines() if line.strip()[:1].isdigit()]
    layers = named_layers(build_model("tinycnn", num_classes=10, width=8))
    assert rows == [[str(number), name] for number, (name, _) in enumerate(layers[:-1], start=1)]
    assert list(tmp_path.iterdir()) == [], "it only prints"
