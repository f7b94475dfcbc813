"""A thousand clients on one server, and clients that are slow on purpose."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from hetero_common.records.history import read_records
from support.commands import SMALL
from support.intruder import BATCH, STEPS
from support.many_clients import STREAMS_PER_CONNECTION, health_checked, many_clients_at

if TYPE_CHECKING:
    from chaos.conftest import Launch, Process

ROUNDS = 2
AGREED = (
    *(*SMALL, "--batch-size", str(BATCH), "--steps-per-round", str(STEPS)),
    *("--strategy", "sequential", "--order", "arrival"),
)
HEALTHY_SECONDS = 1.0
"""In which a health check is answered, whatever the load."""


@dataclass(frozen=True)
class Load:
    """Clients with open streams, how many of them train; heartbeat and patience in seconds."""

    idle: int
    training: int
    heartbeat: float
    patience: float

    @property
    def flags(self) -> tuple[str, ...]:
        """Start when all are there and one more, and go on without those that are silent."""
        return (
            *("--clients", str(self.idle + 1), "--patience", str(self.patience), "--quorum", "1"),
            *("--stall-timeout", str(3 * self.heartbeat), "--rounds", str(ROUNDS)),
            *("--max-clients", str(self.idle + 1)),
            # They send zeros, and push what they have pulled.
            *("--wire", "fp32", "--weights-wire", "fp32"),
        )


LOADS = [
    pytest.param(Load(40, 8, 2.0, 2.0), id="small"),
    pytest.param(
        Load(1000, 200, 10.0, 8.0), id="large", marks=(pytest.mark.slow, pytest.mark.timeout(400))
    ),
]


@pytest.mark.parametrize("load", LOADS)
def test_many_clients_are_held_and_some_of_them_train(load: Load, launch: Launch) -> None:
    listen = ("--listen", "127.0.0.1:0", "--run-dir", "run")
    with launch("hetero-server", *listen, *AGREED, *load.flags) as server:
        with health_checked(server.address) as took:
            applied = asyncio.run(run_of(load, server))
        assert server.finish().code == 0
    assert applied == (load.training + 1) * ROUNDS * STEPS, "every batch reached the model, once"
    print(f"{len(took)} health checks, the slowest took {max(took):.3f} s")
    assert max(took) <= HEALTHY_SECONDS
    events = read_records(server.folder / "run")
    released = [e["client"] for e in events if e["event"] == "released"]
    assert len(released) == ROUNDS * (load.idle - load.training)


async def run_of(load: Load, server: Process) -> int:
    """The whole run; returns how many steps were applied."""
    process = psutil.Process(server.pid)
    async with many_clients_at(server.address, load.idle) as clients:
        before = process.memory_info().rss
        lives = [asyncio.Event() for _ in range(load.idle)]
        lifes = [
            asyncio.create_task(
                clients.take_part(number, trains=number < load.training, lives=lives[number])
            )
            for number in range(load.idle)
        ]
        await all_live(lives, lifes)
        used = process.memory_info().rss - before
        print(
            f"{load.idle} idle clients on {-(-load.idle // STREAMS_PER_CONNECTION)} connections: "
            f"{used / load.idle / 1024:.0f} KiB each"
        )
        last = clients.take_part(load.idle, trains=True, lives=asyncio.Event())
        return sum(await asyncio.gather(*lifes, last))


async def all_live(lives: list[asyncio.Event], lifes: list[asyncio.Task[int]]) -> None:
    """Wait until each stream has brought a heartbeat; a client that fails is no wait for good."""
    waiting = asyncio.gather(*(event.wait() for event in lives))
    failed = asyncio.gather(*lifes)
    await asyncio.wait((waiting, failed), return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        failed.result()
