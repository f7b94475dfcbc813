"""Many clients and their server in one process: the same engine, the same trainer, no sockets.

With the orders `interleaved` and `relay` (and with Averaging in any order) the weights are, bit for
bit, those of a networked run of the same settings and client ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

from torch import Tensor

from hetero_client.evaluation import evaluate
from hetero_client.trainer import Shard, Trainer
from hetero_common import codec
from hetero_common.control import Evaluate, Finish, StartRound
from hetero_common.errors import HeteroError
from hetero_common.rundir import RunDir
from hetero_server.engine import Engine
from hetero_server.members import Ack, Batch, Member, MemberState


@dataclass
class SimulatedClient:
    """A client that is called instead of calling.

    Attributes:
        step: Next step to train; None between rounds.
        waiting: Whether the step before waits for its feedback.
    """

    member: Member
    trainer: Trainer
    test: Shard
    threshold: float
    eval_samples: int
    run_dir: RunDir
    round: StartRound | None = None
    step: int = 0
    waiting: bool = False
    unacknowledged: int = 0
    bytes_sent: int = 0


class Simulation:
    """Drives an engine and its clients to the end of the run.

    Args:
        engine: Waits for as many clients as are added.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clients: list[SimulatedClient] = []

    def add(self, client: SimulatedClient) -> None:
        """Let a registered client take part."""
        self._clients.append(client)

    def run(self) -> None:
        """Train until the last round is done.

        Raises:
            HeteroError: The engine sent a client away.
        """
        for client in self._clients:
            self._engine.attach(client.member.client_id)
        while not self._engine.is_over:
            for client in self._clients:
                self._train_step(client)
                self._compute()
                for each in self._clients:
                    self._hear(each)

    def _compute(self) -> None:
        while (work := self._engine.work()) is not None:
            self._engine.settle(work, self._engine.perform(work))
