"""Processes that are killed with -9 and started again: the run ends as if nothing had happened.

With the order `interleaved` that is exact: weights of server and clients equal, bit for bit, those
of the simulation, which nobody kills.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.numpy import load_file

from hetero_common.rundir import METRICS_FILE, MODEL_FILE, read_events

if TYPE_CHECKING:
    from chaos.conftest import Launch, Process
    from conftest import Simulate

CUTS = (2, 3, 4)
ROUNDS = 24
AGREED = (
    *("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits"),
    *("--batch-size", "16", "--rounds", str(ROUNDS), "--steps-per-round", "6"),
    *("--order", "interleaved", "--eval-every", "9"),
)
DATA = ("--dataset", "digits", "--eval-samples", "50")
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


def bits(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(path).items()}


def wait_for_rounds(run: Path, count: int) -> None:
    """Wait until so many rounds have closed; pytest's timeout is the limit."""
    while True:
        if (run / METRICS_FILE).exists():
            rounds = [e["round"] + 1 for e in read_events(run) if e["event"] == "round"]
            if max(rounds, default=0) >= count:
                return
        time.sleep(0.005)


class Fleet:
    """A server and three clients that can be killed and started again in the same directories."""

    def __init__(self, launch: Launch, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._launch = launch
        self._stack = stack
        self.server = self._start_server(
            *("--clients", "3", "--run-dir", str(self.run), "--listen", "127.0.0.1:0"),
            *("--checkpoint-every", "3", *AGREED),
        )
        self.address = self.server.address
        self.clients: dict[str, Process] = {}
        for number in (1, 2, 3):
            self.start_client(number)

    @property
    def run(self) -> Path:
        return self.folder / "server"

    def kill_server(self) -> None:
        self.server.kill()
        self.resume_server()

    def resume_server(self) -> None:
        self.server = self._start_server("--resume", str(self.run))  # at the same address

    def kill_client(self, number: int) -> None:
        self.clients[f"client-{number}"].kill()
        self.start_client(number)

    def _start_server(self, *flags: str) -> Process:
        return self._stack.enter_context(self._launch("hetero-server", *flags))

    def start_client(self, number: int) -> None:
        flags = (
            *("--server", self.address, "--cut-layer", str(CUTS[number - 1])),
            *("--client-id", f"client-{number}", "--shard", f"{number}/3"),
            *("--run-dir", str(self.folder / f"client-{number}")),
        )
        client = self._launch("hetero-client", *flags, *DATA)
        self.clients[f"client-{number}"] = self._stack.enter_context(client)


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> Path:
    cuts = ",".join(map(str, CUTS))
    return simulate("--clients", "3", "--cut-layers", cuts, *AGREED, *DATA)


@pytest.fixture
def fleet(launch: Launch, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(launch, tmp_path, stack)


def require_same(fleet: Fleet, undisturbed: Path) -> None:
    """All processes end well, with the weights of the run that nobody has disturbed."""
    for process in (*fleet.clients.values(), fleet.server):
        assert process.finish().code == 0
    assert bits(fleet.run / MODEL_FILE) == bits(undisturbed / MODEL_FILE)
    for name in fleet.clients:
        assert bits(fleet.folder / name / MODEL_FILE) == bits(undisturbed / f"{name}.safetensors")
    require_exactly_once(fleet.run)


def require_exactly_once(run: Path) -> None:
    """In the history that survives, each client's steps 0..5 of each round, once and in order."""
    surviving: dict[tuple[str, int], str] = {}
    for event in read_events(run):
        if event["event"] == "resumed":
            surviving = {k: v for k, v in surviving.items() if k[1] <= event["round"]}
        if event["event"] == "round":
            key = (event["client"], event["round"])
            assert key not in surviving, "a round closes once"
            surviving[key] = event["applied"]
    expected = {(f"client-{n}", round_): "0-5" for n in (1, 2, 3) for round_ in range(ROUNDS)}
    assert surviving == expected


@contextmanager
def watched_health(address: str) -> Iterator[Iterator[int]]:
    """What a server tells whoever watches its health."""
    with grpc.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest())
        yield (answer.status for answer in watching)
        watching.cancel()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_server_is_resumed(seed: int, fleet: Fleet, undisturbed: Path) -> None:
    wait_for_rounds(fleet.run, random.Random(f"server {seed}").randint(1, ROUNDS - 4))
    fleet.kill_server()
    require_same(fleet, undisturbed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_client_goes_on(seed: int, fleet: Fleet, undisturbed: Path) -> None:
    draw = random.Random(f"client {seed}")
    wait_for_rounds(fleet.run, draw.randint(1, ROUNDS - 4))
    fleet.kill_client(draw.randint(1, 3))
    require_same(fleet, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_server_and_clients_are_killed_at_once(seed: int, fleet: Fleet, undisturbed: Path) -> None:
    draw = random.Random(f"both {seed}")
    wait_for_rounds(fleet.run, draw.randint(1, ROUNDS - 4))
    fleet.kill_server()
    for number in draw.sample((1, 2, 3), draw.randint(1, 3)):
        fleet.kill_client(number)
    require_same(fleet, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_stop_leaves_a_run_that_can_be_resumed(
    number: signal.Signals, fleet: Fleet, undisturbed: Path
) -> None:
    wait_for_rounds(fleet.run, 5)
    with watched_health(fleet.address) as states:
        assert next(states) == health_pb2.HealthCheckResponse.SERVING
        fleet.server.signal(number)
        assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
    ended = fleet.server.finish()
    assert ended.code == 0
    last = ended.stderr.splitlines()[-1]
    assert last.endswith(f"stopped by {number.name}: go on later with --resume {fleet.run}")
    fleet.resume_server()
    require_same(fleet, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_client_that_is_asked_to_stop_can_go_on(
    number: signal.Signals, fleet: Fleet, undisturbed: Path
) -> None:
    wait_for_rounds(fleet.run, 5)
    client = fleet.clients["client-2"]
    client.signal(number)
    ended = client.finish()
    assert ended.code == 0
    assert f"stopped by {number.name}: start it again" in ended.stderr.splitlines()[-1]
    fleet.start_client(2)
    require_same(fleet, undisturbed)
