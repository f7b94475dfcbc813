"""Whether a server grows: its memory over many rounds, and its queue under a slow model.

Memory: a server with three clients trains a tiny model, as real processes. Resident memory when
round 100 has closed is compared with the same process at round 10, when everything that a run
allocates once is there. Averaging, because its server holds and aggregates a replica per client.

Queue: a server whose model takes 5 ms a step, and clients that send as fast as they may. The most
batches that ever wait at once are compared with the credits given out: above 1 the bound would not
hold, far below 1 the clients would not have tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from measure import SEED, Result
from null_run import NullClient, null_engine, served
from processes import Process, wait_for_round

from hetero_server.run.engine import Engine
from hetero_server.run.member import Batch

_EARLY, _LATE = 10, 100
_ROUNDS = _LATE + 10  # the end of a run, with its evaluation, comes after the last sample
_CUT_LAYERS = (1, 2, 3)
_PLAN = [
    *("--model", "tinycnn", "--width", "8", "--image-size", "16", "--batch-size", "32"),
    *("--normalization", "digits", "--strategy", "averaging", "--steps-per-round", "2"),
    *("--exits", "last", "--exit-head", "linear"),
    *("--rounds", str(_ROUNDS), "--seed", str(SEED)),
]
_EVERY_COMMAND = ["--threads", "1", "--log-level", "warning", "--run-dir", "run"]

_QUEUE_CLIENTS = 4
_QUEUE_STEPS = 40
_SLOW_SECONDS = 0.005
_MOST_REPEATS = 3  # each takes minutes where the others take seconds, and varies less


def run(repeats: int) -> list[Result]:
    """Growth of resident memory, and the fullest queue."""
    torch.set_num_threads(1)
    resident = [_resident() for _ in range(min(repeats, _MOST_REPEATS))]
    queued = [asyncio.run(_fullest_queue()) for _ in range(min(repeats, _MOST_REPEATS))]
    name = "server's resident memory"
    growth = [late / early for early, late in resident]
    megabytes = [late / 1e6 for _, late in resident]
    return [
        Result("memory", f"{name}, round {_LATE} / round {_EARLY}", growth, 1.05),
        Result("memory", f"{name}, MB at round {_LATE}", megabytes),
        Result("memory", "most batches queued / credits given", queued, 1.0),
    ]


def _resident() -> tuple[float, float]:
    """Bytes of the server's resident memory, early and late."""
    with TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(
            Process(
                *("-m", "hetero_server", *_PLAN, *_EVERY_COMMAND, "--listen", "127.0.0.1:0"),
                *("--clients", str(len(_CUT_LAYERS))),
                folder=folder / "server",
            )
        )
        address = server.ready()
        for number, cut_layer in enumerate(_CUT_LAYERS, start=1):
            stack.enter_context(
                Process(
                    *("-m", "hetero_client", *_EVERY_COMMAND, "--server", address),
                    *("--dataset", "digits", "--shard", f"{number}/{len(_CUT_LAYERS)}"),
                    *("--cut-layer", str(cut_layer), "--client-id", f"client-{number}"),
                    folder=folder / f"client-{number}",
                )
            )
        metrics = folder / "server" / "run"
        early = _resident_when_closed(server, metrics, _EARLY)
        return early, _resident_when_closed(server, metrics, _LATE)


def _resident_when_closed(server: Process, run_dir: Path, rounds: int) -> float:
    """Bytes of resident memory as soon as this many rounds have closed."""
    wait_for_round(rounds, run_dir, server)
    return float(psutil.Process(server.pid).memory_info().rss)


class WatchedEngine(Engine):
    """An engine that remembers how full its queues have been."""

    most_queued = 0

    def submit(self, client_id: str, batch: Batch) -> None:
        """Queue a batch, and count."""
        super().submit(client_id, batch)
        queued = sum(len(member.queue) for member in self.members.values())
        self.most_queued = max(self.most_queued, queued)


async def _fullest_queue() -> float:
    engine = null_engine(
        WatchedEngine, steps=_QUEUE_STEPS, clients=_QUEUE_CLIENTS, seconds=_SLOW_SECONDS
    )
    assert isinstance(engine, WatchedEngine)
    async with served(engine) as address:
        await asyncio.gather(
            *(asyncio.to_thread(_flood, address, f"client-{n}") for n in range(_QUEUE_CLIENTS))
        )
    return engine.most_queued / (engine.credits * _QUEUE_CLIENTS)


def _flood(address: str, client_id: str) -> None:
    client = NullClient(address, client_id)
    client.train_round()
    client.close()
