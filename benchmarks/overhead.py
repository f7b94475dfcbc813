"""What the network costs a real training: the networked run against the simulated one.

Networked: one hetero-server and one hetero-client over loopback. Simulated: hetero-sim, which runs
the same trainer, codec, engine and strategy in one process, with the same batches and the same
weights at the end. One torch thread per process.

Fair because both are measured between closed rounds of one long run, so that start-up, decoding of
the images and evaluation have no part in it, while the rounds' pushed and pulled weights do. They
take turns of a few rounds: one is stopped while the other trains. Each pair of turns has its own
ratio, so that a machine whose speed drifts does not favor one of them.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import SEED, Result
from processes import Process, wait_for_round

_STEPS_PER_ROUND = 5
_ROUNDS_PER_TURN = 4
_WARM_UP_ROUNDS = 2
_PLAN = [
    *("--model", "resnet18", "--width", "16", "--image-size", "32", "--batch-size", "64"),
    *("--normalization", "digits", "--strategy", "sequential", "--order", "interleaved"),
    *("--exits", "last", "--exit-head", "linear", "--wire", "fp32"),
    *("--steps-per-round", str(_STEPS_PER_ROUND), "--rounds", "100000", "--seed", str(SEED)),
]
_EVERY_COMMAND = ["--threads", "1", "--log-level", "warning", "--run-dir", "run"]
_DATASET = ["--dataset", "digits"]
_CUT_LAYER = "3"


@dataclass(frozen=True)
class Cost:
    """What a step took: CPU milliseconds of all processes, and milliseconds on the clock."""

    cpu: float
    wall: float


class Training:
    """A run that trains only while it has its turn.

    Args:
        processes: All of it.
        run_dir: Where it records the rounds it has closed.
    """

    def __init__(self, processes: list[Process], run_dir: Path) -> None:
        self._processes = processes
        self._run_dir = run_dir
        self._rounds = 0
        self.turn(_WARM_UP_ROUNDS)

    def turn(self, rounds: int = _ROUNDS_PER_TURN) -> Cost:
        """Train so many rounds; what each step of them took."""
        self._rounds += rounds
        cpu, wall = self._cpu_seconds(), time.perf_counter()
        for process in self._processes:
            process.resume()
        wait_for_round(self._rounds, self._run_dir, self._processes[0])
        wall = time.perf_counter() - wall
        for process in self._processes:
            process.pause()
        milliseconds_per_step = 1e3 / (rounds * _STEPS_PER_ROUND)
        cpu = self._cpu_seconds() - cpu
        return Cost(cpu * milliseconds_per_step, wall * milliseconds_per_step)

    def _cpu_seconds(self) -> float:
        return sum(process.cpu_seconds() for process in self._processes)


def run(repeats: int) -> list[Result]:
    """CPU and wall time, networked over simulated."""
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        simulated = _simulated(Path(folder), stack)
        networked = network(Path(folder), stack, "--http", "off")
        pairs = [_pair(networked, simulated, repeat % 2 == 1) for repeat in range(repeats)]
    return [
        Result("overhead", "CPU, networked / simulated", [n.cpu / s.cpu for n, s in pairs], 1.10),
        Result("overhead", "wall, networked / simulated", [n.wall / s.wall for n, s in pairs], 1.0),
        Result("overhead", "CPU ms per step, networked", [n.cpu for n, _ in pairs]),
        Result("overhead", "CPU ms per step, simulated", [s.cpu for _, s in pairs]),
    ]


def _pair(networked: Training, simulated: Training, networked_first: bool) -> tuple[Cost, Cost]:
    if networked_first:
        return networked.turn(), simulated.turn()
    simulated_cost = simulated.turn()
    return networked.turn(), simulated_cost


def _simulated(folder: Path, stack: contextlib.ExitStack) -> Training:
    flags = [*_PLAN, *_EVERY_COMMAND, *_DATASET, "--clients", "1", "--cut-layers", _CUT_LAYER]
    simulator = stack.enter_context(Process("-m", "hetero_lab", *flags, folder=folder / "sim"))
    return Training([simulator], folder / "sim" / "run")


def network(folder: Path, stack: contextlib.ExitStack, *of_server: str) -> Training:
    """A server with these flags, and its one client."""
    flags = [*_PLAN, *_EVERY_COMMAND, "--listen", "127.0.0.1:0", "--clients", "1", *of_server]
    server = stack.enter_context(Process("-m", "hetero_server", *flags, folder=folder / "server"))
    flags = [*_EVERY_COMMAND, *_DATASET, "--server", server.ready()]
    flags += ["--cut-layer", _CUT_LAYER, "--client-id", "client-1"]
    client = stack.enter_context(Process("-m", "hetero_client", *flags, folder=folder / "client"))
    return Training([server, client], folder / "server" / "run")
