"""Many clients and their server in one process: the real engine and participation, no sockets.

With the orders `interleaved` and `relay` (and with Averaging in any order) the weights are, bit for
bit, those of a networked run of the same settings and client ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_client.exits.rule import ExitRule
from hetero_client.progress import Watcher
from hetero_client.training.checkpointing import States
from hetero_client.training.feedback_journal import Journal, NoJournal
from hetero_client.training.participation import Identity, Participation
from hetero_client.training.protocol import Trainer
from hetero_common.agreement.control import Evaluation, RoundDone
from hetero_common.records.checkpoints import Checkpoint
from hetero_lab.memory_link import MemoryLink
from hetero_lab.turns import Turn
from hetero_server.run.engine import Engine


class InNoFile:
    """The `States` of a simulated client: its simulator writes them down, with everybody's.

    Args:
        newest: The state that the simulation is taken up from, if it is.
    """

    def __init__(self, newest: Checkpoint | None = None) -> None:
        self._newest = newest

    def keep(self, round_: int, state: Callable[[], Mapping[str, Tensor]], *, asked: bool) -> None:
        """Copy nothing: nobody goes back within a simulation."""

    def flush(self) -> None:
        """Write nothing."""

    def rounds(self) -> list[int]:
        """The round that the simulation is taken up from, if it is."""
        return [] if self._newest is None else [self._newest.round]

    def load(self, round_: int) -> Checkpoint | None:
        """The state at its end."""
        return self._newest

    def prune(self, keep_from: int) -> None:
        """Delete nothing."""


@dataclass(frozen=True)
class SimulatedClient:
    """A client that lives in the simulator instead of in a process of its own.

    Attributes:
        client_id: Its name.
        trainer: Trains its part of the model.
        train_size: Its training images.
        test: The whole test split.
        rule: When its exit answers.
        eval_samples: Test images of an evaluation before the last one.
        states: Where it can go back to.
        journal: Holds what the server returns, in a run with feedback.
    """

    client_id: str
    trainer: Trainer
    train_size: int
    test: Shard
    rule: ExitRule
    eval_samples: int
    states: States
    journal: Journal = field(default_factory=NoJournal)

    def start(self, engine: Engine, run: str) -> Turn:
        """Its life in a run, which begins with its first turn."""
        turn = Turn(lambda: self._take_part(engine, run, turn), self.client_id)
        return turn

    def _take_part(self, engine: Engine, run: str, turn: Turn) -> None:
        link = MemoryLink(engine, run, turn)
        Participation(
            engine.plan,
            Identity(self.client_id, run, self.train_size),
            link,
            self.trainer,
            self.test,
            rule=self.rule,
            eval_samples=self.eval_samples,
            record=lambda event: None,
            states=self.states,
            journal=None if engine.plan.feedback == "none" else self.journal,
            watchers=[_EachStep(turn)],
        ).run()
        link.leave()


class _EachStep(Watcher):
    """Passes the turn on after each step, so that clients train abreast."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def step(self, round_: int, step: int, steps: int) -> None:
        self._turn.pass_on()

    def round_done(self, report: RoundDone) -> None:
        pass

    def evaluating(self, samples: int) -> None:
        pass

    def evaluated(self, evaluation: Evaluation) -> None:
        pass

    def rejoined(self) -> None:
        pass


def simulate(engine: Engine, run: str, clients: list[SimulatedClient]) -> None:
    """Run all clients, in turns, until the last round is done.

    Args:
        engine: The server's part, which computes between the turns.
        run: Id of the run.
        clients: In the order of their turns.

    Raises:
        HeteroError: The engine sent a client away.
    """
    turns = [client.start(engine, run) for client in clients]
    under_way = turns
    try:
        while under_way:
            under_way = [turn for turn in under_way if _advance(turn, engine)]
    finally:
        for turn in turns:
            turn.abandon()


def _advance(turn: Turn, engine: Engine) -> bool:
    is_alive = turn.advance()
    while (work := engine.work()) is not None:
        engine.settle(work, engine.perform(work))
    return is_alive
