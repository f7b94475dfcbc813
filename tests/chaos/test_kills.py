"""Processes that are killed with -9 and started again: the run ends as if nothing had happened.

With the order `interleaved` that is exact: weights of server and clients equal, bit for bit, those
of the simulation, which nobody kills.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.chaos_fleet import AGREED, ROUNDS, Fleet, require_same, simulated, wait_for_rounds

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

SIGNALS = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> Path:
    return simulated(simulate, AGREED)


@pytest.fixture
def fleet(launch: Launch, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(launch, tmp_path, stack)


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


@pytest.mark.parametrize("number", SIGNALS)
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
    assert "Traceback" not in ended.stderr
    fleet.resume_server()
    require_same(fleet, undisturbed)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_client_that_is_asked_to_stop_can_go_on(
    number: signal.Signals, fleet: Fleet, undisturbed: Path
) -> None:
    wait_for_rounds(fleet.run, 5)
    client = fleet.clients["client-2"]
    client.signal(number)
    ended = client.finish()
    assert ended.code == 0
    assert f"stopped by {number.name}: start it again" in ended.stderr.splitlines()[-1]
    fleet.clients["client-2"] = fleet.start_client(2)
    require_same(fleet, undisturbed)
