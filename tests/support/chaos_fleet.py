"""A server and its clients as real processes that can be killed and started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load_file

from hetero_common.records.history import read_history, read_records
from hetero_common.records.rundir import METRICS_FILE, MODEL_FILE, read_plan
from hetero_lab.report.audit import audit
from support.processes import Process

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

CUTS = (2, 3, 4)
ROUNDS = 24
STEPS = 6
MODEL = (
    *("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits"),
    *("--batch-size", "16", "--steps-per-round", str(STEPS)),
)
AGREED = (*MODEL, "--rounds", str(ROUNDS), "--order", "interleaved", "--eval-every", "9")
DATA = ("--dataset", "digits", "--eval-samples", "50")
AT_ONCE = ("--checkpoint-seconds", "0")
"""What is kept does not depend on how fast the machine is."""

Reach = Callable[[str, int], str]
"""(address of the server, number of a client) -> the address at which it looks for the server."""


def bits(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(path).items()}


def events(run: Path, kind: str, **fields: object) -> list[dict[str, Any]]:
    """What is recorded of this kind by now."""
    recorded = read_records(run) if (run / METRICS_FILE).exists() else []
    return [e for e in recorded if e["event"] == kind and fields.items() <= e.items()]


def wait_for(run: Path, kind: str, **fields: object) -> None:
    """Wait until such an event is recorded; pytest's timeout is the limit."""
    while not events(run, kind, **fields):
        time.sleep(0.005)


def wait_for_rounds(run: Path, count: int) -> None:
    """Wait until so many rounds have closed."""
    while max((e["round"] + 1 for e in events(run, "round")), default=0) < count:
        time.sleep(0.005)


class Fleet:
    """A server and three clients in directories of their own.

    Args:
        launch: Starts processes.
        folder: Where their run directories are.
        stack: Ends them.
        agreed: Flags of the plan and the strategy.
        server_flags: Further ones of the server.
        client_flags: Further ones of the clients.
        reach: Where a client looks for the server; by default, where that is.
    """

    def __init__(
        self,
        launch: Launch,
        folder: Path,
        stack: ExitStack,
        agreed: tuple[str, ...] = AGREED,
        *,
        server_flags: tuple[str, ...] = (),
        client_flags: tuple[str, ...] = (),
        reach: Reach = lambda address, number: address,
    ) -> None:
        self.folder = folder
        self._launch = launch
        self._stack = stack
        self._client_flags = client_flags
        self.server = self._start(
            *("hetero-server", "--clients", "3", "--run-dir", str(self.run)),
            *("--listen", "127.0.0.1:0", "--checkpoint-every", "3", *AT_ONCE),
            *(*agreed, *server_flags),
        )
        self.address = self.server.address
        self._reached = {n: reach(self.address, n) for n in (1, 2, 3)}
        self.clients = {f"client-{n}": self.start_client(n) for n in (1, 2, 3)}

    @property
    def run(self) -> Path:
        """The server's run directory."""
        return self.folder / "server"

    def kill_server(self) -> None:
        """End it with -9 and go on with its last checkpoint."""
        self.server.kill()
        self.resume_server()

    def resume_server(self) -> None:
        """Start it again, at the same address."""
        self.server = self._start("hetero-server", "--resume", str(self.run))

    def kill_client(self, number: int) -> None:
        """End it with -9 and start it again."""
        self.clients[f"client-{number}"].kill()
        self.clients[f"client-{number}"] = self.start_client(number)

    def start_client(self, number: int) -> Process:
        """Start one in its directory."""
        return self._start(
            *("hetero-client", "--server", self._reached[number]),
            *("--cut-layer", str(CUTS[number - 1]), "--shard", f"{number}/3"),
            *("--client-id", f"client-{number}"),
            *("--run-dir", str(self.folder / f"client-{number}"), *AT_ONCE, *DATA),
            *self._client_flags,
        )

    def _start(self, script: str, *flags: str) -> Process:
        return self._stack.enter_context(self._launch(script, *flags))

    def finish(self) -> None:
        """All processes end well."""
        for process in (*self.clients.values(), self.server):
            assert process.finish().code == 0


def require_same(fleet: Fleet, undisturbed: Path) -> None:
    """All processes end well, with the weights of the run that nobody has disturbed."""
    fleet.finish()
    assert bits(fleet.run / MODEL_FILE) == bits(undisturbed / MODEL_FILE)
    for name in fleet.clients:
        assert bits(fleet.folder / name / MODEL_FILE) == bits(undisturbed / f"{name}.safetensors")
    require_exactly_once(fleet.run)


def require_exactly_once(run: Path) -> None:
    """Each step of each client and round was applied once, in order; nobody was released."""
    plan = read_plan(run)
    found = audit(read_history(run).whole(), plan)
    assert (found.findings, found.is_finished) == ([], True)
    steps = plan.rounds * plan.steps_per_round
    assert [(c.client, c.rounds, c.steps, c.released) for c in found.clients] == [
        (f"client-{n}", plan.rounds, steps, ()) for n in (1, 2, 3)
    ]


def simulated(simulate: Simulate, agreed: tuple[str, ...]) -> Path:
    """The run directory of the same run, in one process that nobody disturbs."""
    cuts = ",".join(map(str, CUTS))
    return simulate("--clients", "3", "--cut-layers", cuts, *agreed, *DATA)
