"""What the network costs a real training: the networked run against the simulated one.

Networked: one hetero-server and one hetero-client over loopback. Simulated: hetero-sim, which runs
the same trainer, codec, engine and strategy in one process, with the same batches and the same
weights at the end. One torch thread per process.

Fair because start-up, decoding of the images and the final evaluation cancel: CPU seconds are those
of a long training less those of a short one. Of the long one the server's records tell when each
round closed, so wall time is taken between the same two rounds within it. The rounds in between
count, with their pushed and pulled weights. The four kinds of run take turns, and each repeat has
its own ratios, so that a machine whose speed drifts does not favor one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import SEED, Result
from processes import Process

from hetero_common.rundir import read_events

_STEPS_PER_ROUND = 5
_SHORT, _LONG = 1, 9  # rounds: their difference is 40 steps
_CUT_LAYER = "3"
_PLAN = [
    *("--model", "resnet18", "--width", "16", "--image-size", "32", "--batch-size", "64"),
    *("--normalization", "digits", "--strategy", "sequential", "--order", "interleaved"),
    *("--steps-per-round", str(_STEPS_PER_ROUND), "--seed", str(SEED)),
]
_EVERY_COMMAND = ["--threads", "1", "--log-level", "warning", "--run-dir", "run"]


@dataclass(frozen=True)
class Cost:
    """What one training took.

    Attributes:
        cpu: CPU seconds of all its processes, start to end.
        wall: Seconds on the clock from the close of round `_SHORT` to that of round `_LONG`.
    """

    cpu: float
    wall: float


def run(repeats: int) -> list[Result]:
    """CPU and wall time, networked over simulated."""
    networked, simulated = [], []
    for repeat in range(repeats):
        with TemporaryDirectory() as folder:
            costs = _measure_all(Path(folder), backwards=repeat % 2 == 1)
        networked.append(_between(costs, _networked))
        simulated.append(_between(costs, _simulated))
    pairs = list(zip(networked, simulated, strict=True))
    steps = (_LONG - _SHORT) * _STEPS_PER_ROUND
    return [
        Result("overhead", "CPU, networked / simulated", [n.cpu / s.cpu for n, s in pairs], 1.10),
        Result("overhead", "wall, networked / simulated", [n.wall / s.wall for n, s in pairs], 1.0),
        Result("overhead", "CPU ms per step, networked", [1e3 * n.cpu / steps for n in networked]),
        Result("overhead", "CPU ms per step, simulated", [1e3 * s.cpu / steps for s in simulated]),
    ]


Training = Callable[[Path, int], Cost]


def _measure_all(folder: Path, *, backwards: bool) -> dict[tuple[Training, int], Cost]:
    kinds = [(train, rounds) for rounds in (_SHORT, _LONG) for train in (_simulated, _networked)]
    if backwards:
        kinds.reverse()
    return {
        (train, rounds): train(folder / f"{train.__name__}-{rounds}", rounds)
        for train, rounds in kinds
    }


def _between(costs: dict[tuple[Training, int], Cost], train: Training) -> Cost:
    """What the rounds between short and long took."""
    long, short = costs[train, _LONG], costs[train, _SHORT]
    return Cost(long.cpu - short.cpu, long.wall)


def _simulated(folder: Path, rounds: int) -> Cost:
    with Process(
        *("-m", "hetero_lab", *_PLAN, *_EVERY_COMMAND, "--rounds", str(rounds)),
        *("--dataset", "digits", "--clients", "1", "--cut-layers", _CUT_LAYER),
        folder=folder,
    ) as simulator:
        cpu = simulator.finish()
    return Cost(cpu, _seconds(folder / "run"))


def _networked(folder: Path, rounds: int) -> Cost:
    with Process(
        *("-m", "hetero_server", *_PLAN, *_EVERY_COMMAND, "--rounds", str(rounds)),
        *("--listen", "127.0.0.1:0", "--clients", "1"),
        folder=folder / "server",
    ) as server:
        address = server.ready()
        with Process(
            *("-m", "hetero_client", *_EVERY_COMMAND, "--server", address),
            *("--dataset", "digits", "--cut-layer", _CUT_LAYER, "--client-id", "client-1"),
            folder=folder / "client",
        ) as client:
            cpu = client.finish() + server.finish()
    return Cost(cpu, _seconds(folder / "server" / "run"))


def _seconds(run_dir: Path) -> float:
    closed = [event["seconds"] for event in read_events(run_dir) if event["event"] == "round"]
    return float(closed[-1] - closed[_SHORT - 1])
