"""A client's life in a run: do what the server directs, through broken connections and restarts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_client.exits.evaluation import evaluate
from hetero_client.exits.rule import ExitRule
from hetero_client.link.inbox import Outgoing
from hetero_client.link.protocol import Link, Registration
from hetero_client.progress import Watcher
from hetero_client.training.checkpointing import States
from hetero_client.training.feedback_journal import Journal
from hetero_client.training.protocol import Sent, Trainer
from hetero_common.agreement.control import Evaluate, Finish, StartRound
from hetero_common.agreement.plan import Plan
from hetero_common.errors import (
    HeteroError,
    Mismatch,
    ServerUnreachable,
    Superseded,
    UnknownSession,
)
from hetero_common.records.events import DeviceEvaluated, DeviceRound, Observer, Rejoined
from hetero_common.records.logs import enter_round
from hetero_common.tensors import codec

log = logging.getLogger(__name__)

_LOST = (ServerUnreachable, UnknownSession)
"""Errors that a new session mends."""


@dataclass
class _Underway:
    """A round in the middle of it.

    Attributes:
        first_step: The first step that is to be sent.
        step: The step that is being trained, or comes next.
        sent: What has been computed of it, until its optimizer step is made.
    """

    round: int
    first_step: int
    step: int = 0
    sent: Sent | None = None


@dataclass(frozen=True)
class Identity:
    """Who the client says it is."""

    client_id: str
    run_id: str
    shard_size: int


class Participation:
    """Trainer, link and what is kept, wired together.

    Args:
        plan: The agreement of the run.
        identity: Of this client, and of the run.
        link: The way to the server.
        trainer: Trains the device's part.
        test: The whole test split.
        rule: When the exit answers.
        eval_samples: Test images of an evaluation before the last one.
        record: Called with what is worth recording, as docs/runs.md describes it.
        states: Holds the states at the ends of rounds.
        journal: Holds what the server returns, in a run with feedback; None in others.
        watchers: Told how it goes.
    """

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        link: Link,
        trainer: Trainer,
        test: Shard,
        *,
        rule: ExitRule,
        eval_samples: int,
        record: Observer,
        states: States,
        journal: Journal | None,
        watchers: Sequence[Watcher],
    ) -> None:
        self._plan = plan
        self._identity = identity
        self._link = link
        self._trainer = trainer
        self._test = test
        self._rule = rule
        self._eval_samples = eval_samples
        self._record = record
        self._states = states
        self._journal = journal
        self._watchers = watchers
        self._base: int | None = None  # the round whose end the trainer goes on from
        self._underway: _Underway | None = None

    def run(self) -> None:
        """Take part until the run is over.

        Raises:
            HeteroError: The server sent this client away, or stayed away for too long.
        """
        try:
            self._take_part()
        except Superseded:
            raise  # the newer process keeps its own states, in the same place
        except BaseException:
            self._write_down(self._states.flush)
            raise

    def _take_part(self) -> None:
        self._join()
        while True:
            try:
                match self._link.inbox.next_directive():
                    case StartRound() as start:
                        self._train(start)
                    case Evaluate() as request:
                        self._evaluate(request)
                    case Finish():
                        if self._journal is not None:
                            self._journal.drop()
                        return
            except _LOST as error:
                self._rejoin(error)

    # Coming, and coming back.

    def _join(self) -> None:
        """Register, and stand where the server says.

        It may name the end of a round whose checkpoint turns out to be damaged. The store does not
        hold that any more, so the next registration does without.
        """
        while True:
            held = self._states.rounds()
            base = self._register(held).base_round
            if base is None:
                self._start_anew()
                break
            if base not in held:
                raise Mismatch("the server goes on from a round that this client does not hold")
            if base == self._base or self._restore(base):
                break
            log.warning("registering again without the state at the end of round %d", base + 1)
        self._link.open()

    def _register(self, held: Collection[int]) -> Registration:
        identity, model = self._identity, self._trainer.model
        return self._link.register(
            identity.client_id,
            model.cut_layer,
            identity.shard_size,
            model.fingerprint,
            run_id=identity.run_id,
            held_rounds=held,
            class_counts=self._trainer.class_counts,
        )

    def _start_anew(self) -> None:
        if self._base is not None:
            log.warning("the server does not know this client's state: it starts anew")
        self._base = self._underway = None
        self._link.inbox.carry_over(())
        self._trainer.start_anew()

    def _restore(self, base: int) -> bool:
        """Go back to the end of a round; False if there is no good checkpoint of it any more."""
        checkpoint = self._states.load(base)
        if checkpoint is None:
            return False
        log.info("going on from the end of round %d", base + 1)
        self._trainer.restore(checkpoint.tensors)
        self._base, self._underway = base, None
        self._link.inbox.carry_over(())
        return True

    def _rejoin(self, why: HeteroError) -> None:
        """Register again, and again, ever more slowly."""
        for pause in self._link.pauses():
            log.warning("lost the server (%s): trying again in %.1f s", why, pause)
            self._link.wait(pause)
            try:
                self._link.redial()
                if self._link.run_id() != self._identity.run_id:
                    raise Mismatch("the server is in another run by now: start this client anew")
                self._join()
                self._record(Rejoined(self._base))
                for watcher in self._watchers:
                    watcher.rejoined()
                return
            except _LOST as error:
                why = error
        raise ServerUnreachable(
            f"the server at {self._link.address} did not come back within "
            f"{self._link.connect_timeout:g} s ({why}): what is trained so far is kept"
        )

    # What the server directs.

    def _train(self, start: StartRound) -> None:
        enter_round(start.round)
        underway = self._begin(start)
        for step in range(underway.step, start.steps):
            if self._link.inbox.has_directive:
                break
            self._step(underway, step)
            for watcher in self._watchers:
                watcher.step(start.round, step, start.steps)
        else:
            self._link.inbox.drain()
        if not self._link.inbox.has_directive:
            self._finish_round(start)
        elif self._underway is underway:
            self._underway = None  # the round has closed without this client

    def _begin(self, start: StartRound) -> _Underway:
        """Go on with the round if it is under way, else begin it."""
        underway = self._underway
        if underway is not None and underway.round == start.round:
            first, following = start.first_step, underway.step
            if self._journal is not None:
                first = min(first, following)  # its feedback is still to come
            lacking = self._link.inbox.lacking(start.round, first, following)
            if lacking is not None:
                for batch in lacking:
                    self._link.send(batch)
                underway.first_step = first
                return underway
            self._go_back()
        self._link.inbox.carry_over(())  # nothing of a round that has closed without them
        if start.pull_state:
            self._trainer.pull(self._link.pull_state())
        if self._base is None:
            self._save(start.round - 1, asked=True)
        self._trainer.begin_round()
        self._underway = _Underway(start.round, self._first_to_send(start))
        return self._underway

    def _go_back(self) -> None:
        """Go back to where the round under way has begun."""
        assert self._base is not None, "a round under way has begun somewhere"
        if not self._restore(self._base):
            raise UnknownSession(f"the state at the end of round {self._base + 1} is gone")

    def _first_to_send(self, start: StartRound) -> int:
        """Return the first step to be sent: the server lacks it, or we lack its feedback."""
        if self._journal is None:
            return start.first_step
        self._journal.begin(start.round, start.first_step)
        lacking = start.first_step - self._journal.held
        if lacking > 1:  # of the last one that has arrived, the server still has it
            log.warning(
                "what the server returned for %d steps of round %d is gone: they are trained with "
                "the exit's own loss",
                lacking - 1,
                start.round + 1,
            )
        return self._journal.held

    def _step(self, underway: _Underway, step: int) -> None:
        """One step; after a break it goes on where it was."""
        round_, inbox = underway.round, self._link.inbox
        if underway.sent is None:
            underway.sent = self._trainer.forward(round_, step)
        if step >= underway.first_step and not inbox.is_under_way(round_, step):
            sent = underway.sent
            # `Trainer.forward` gives no activation that is not finite.
            payload = codec.encode(sent.activation, self._plan.wire, known_finite=True)
            batch = Outgoing(round_, step, payload, sent.labels)
            inbox.take_credit(batch)
            self._link.send(batch)
        self._trainer.backward(round_, step, self._feedback(underway, step))
        underway.sent = None
        underway.step = step + 1

    def _feedback(self, underway: _Underway, step: int) -> Tensor | None:
        """Return the feedback that the server sends, or has sent to a process before this one."""
        if self._journal is None:
            return None
        if step < underway.first_step:
            return self._journal.feedback(step)
        returned = self._link.inbox.feedback(underway.round, step)
        feedback = None if returned is None else codec.decode(returned)
        self._journal.keep(step, feedback)
        return feedback

    def _finish_round(self, start: StartRound) -> None:
        if start.push_state:
            self._link.push_state(start.round, self._trainer.push())
        # Before the report: after it, the server may count on it.
        self._save(start.round, asked=start.save)
        report = self._trainer.round_done(start.round)
        self._link.report(report)
        self._underway = None
        self._states.prune(start.keep_from)
        self._record(DeviceRound(**self._link.traffic(), **asdict(report)))
        for watcher in self._watchers:
            watcher.round_done(report)

    def _save(self, round_: int, *, asked: bool) -> None:
        self._base = round_
        self._write_down(lambda: self._states.keep(round_, self._trainer.checkpoint, asked=asked))

    def _write_down(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            log.warning(
                "the state at the end of round %d could not be kept (%s): training goes on, but "
                "could not go on from there after a restart",
                (self._base or 0) + 1,
                error.strerror,
            )

    def _evaluate(self, request: Evaluate) -> None:
        enter_round(request.round)
        if self._underway is not None:
            # The server was resumed, and asks again: what it has the client pull would be lost with
            # the weights of the round under way, or mixed with them.
            self._go_back()
        model = self._trainer.model
        if request.pull_state:
            self._trainer.pull(self._link.pull_state())
        test = self._test if request.last else self._test.first(self._eval_samples)
        for watcher in self._watchers:
            watcher.evaluating(len(test.labels))
        evaluation = evaluate(
            model,
            test,
            lambda activations: self._link.predict(
                activations, cut_layer=model.cut_layer, fingerprint=model.fingerprint
            ),
            rows=self._plan.predict_rows,
            rule=self._rule,
            round_=request.round,
        )
        self._link.report(evaluation)
        answers = evaluation.record()
        self._record(DeviceEvaluated(**self._link.traffic(), last=request.last, **answers))
        for watcher in self._watchers:
            watcher.evaluated(evaluation)
