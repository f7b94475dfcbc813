"""Networks that break, stall, crawl and swallow: the run ends as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.chaos_fleet import (
    MODEL,
    Fleet,
    events,
    require_same,
    simulated,
    wait_for,
    wait_for_rounds,
)
from support.proxy import DOWN, UP, Proxy, Way

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

ROUNDS = 12
AGREED = (*MODEL, "--rounds", str(ROUNDS), "--order", "interleaved", "--eval-every", "5")


@dataclass
class Network:
    """A fleet, and the proxy through which each of its clients reaches the server."""

    fleet: Fleet
    proxies: dict[int, Proxy]

    def rejoined(self, number: int) -> list[int | None]:
        """From the end of which rounds the client has gone on, each time that it came back."""
        return [e["base"] for e in events(self.fleet.folder / f"client-{number}", "rejoined")]


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> Path:
    return simulated(simulate, AGREED)


@pytest.fixture
def stall_timeout() -> float:
    """Seconds of silence after which a connection counts as lost."""
    return 30.0


@pytest.fixture
def network(launch: Launch, tmp_path: Path, stall_timeout: float) -> Iterator[Network]:
    with ExitStack() as stack:
        proxies: dict[int, Proxy] = {}

        def through_a_proxy(address: str, number: int) -> str:
            proxies[number] = stack.enter_context(Proxy(address))
            return proxies[number].address

        flags = ("--stall-timeout", str(stall_timeout))
        fleet = Fleet(launch, tmp_path, stack, AGREED, server_flags=flags, reach=through_a_proxy)
        yield Network(fleet, proxies)


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))]
SOON = {UP: 50_000, DOWN: 20_000}
"""Bytes within which a cut comes; each way carries thrice as much at least."""


@pytest.mark.parametrize("seed", SEEDS)
def test_connections_are_cut_in_the_middle_of_frames(
    seed: int, network: Network, undisturbed: Path
) -> None:
    draw = random.Random(f"cut {seed}")
    wait_for_rounds(network.fleet.run, 1)
    for proxy in network.proxies.values():
        way = draw.choice([UP, DOWN])
        proxy.cut_after(way, *(draw.randint(1, SOON[way]) for _ in range(2)))
    require_same(network.fleet, undisturbed)
    for number, proxy in network.proxies.items():
        assert proxy.cuts == 2
        assert network.rejoined(number) != []


@dataclass(frozen=True)
class Call:
    """A call to cut.

    Attributes:
        name: Its name.
        way: Which way its bytes go.
        bytes: After how many of them it is cut; it has more.
        base: The round from whose end its client then goes on.
        unfinished: What the client records when it is done.
    """

    name: str
    way: Way
    bytes: int
    base: int | None
    unfinished: str


CALLS = [
    Call("Predict", UP, 2_000, 4, "evaluation"),
    Call("PullState", DOWN, 600, None, "round"),
    Call("PushState", UP, 600, -1, "round"),
]


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_call_is_cut_in_the_middle(call: Call, network: Network, undisturbed: Path) -> None:
    network.proxies[1].cut_after(call.way, call.bytes, mark=b"/" + call.name.encode())
    network.proxies[1].wait_for_cuts(1)
    run = network.fleet.folder / "client-1"
    assert events(run, call.unfinished) == [], "it was within the first call of its kind"
    require_same(network.fleet, undisturbed)
    assert network.rejoined(1) == [call.base]


@pytest.mark.parametrize("stall_timeout", [2.0])
@pytest.mark.parametrize(
    "ways",
    [(UP, DOWN), *(pytest.param((way,), marks=pytest.mark.slow) for way in Way)],
    ids=lambda ways: "-".join(way.name for way in ways),
)
def test_a_half_open_connection_is_found_by_its_silence(
    ways: tuple[Way, ...], network: Network, undisturbed: Path
) -> None:
    wait_for_rounds(network.fleet.run, 2)
    network.proxies[2].go_silent(*ways)
    wait_for(network.fleet.run, "left", client="client-2", state="STALE")
    network.proxies[2].heal()
    require_same(network.fleet, undisturbed)
    assert network.rejoined(2) != []


@pytest.mark.slow
def test_a_slow_connection_is_only_slow(network: Network, undisturbed: Path) -> None:
    network.proxies[1].delay(0.05)
    network.proxies[3].throttle(30_000)
    require_same(network.fleet, undisturbed)
    assert network.rejoined(1) == network.rejoined(2) == network.rejoined(3) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_server_is_resumed_behind_its_proxies(
    seed: int, network: Network, undisturbed: Path
) -> None:
    draw = random.Random(f"restart {seed}")
    wait_for_rounds(network.fleet.run, draw.randint(1, ROUNDS - 4))
    network.proxies[draw.randint(1, 3)].cut_after(UP, draw.randint(1, 10_000))
    network.fleet.kill_server()
    require_same(network.fleet, undisturbed)
    assert all(network.rejoined(number) for number in network.proxies)
