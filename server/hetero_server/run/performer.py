"""The arithmetic behind the engine's work; all of it runs in the one compute thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from hetero_common.agreement.logit_adjustment import logit_offsets
from hetero_common.agreement.plan import Plan
from hetero_common.compute.schedules import StepAt
from hetero_common.compute.seeding import seed_step
from hetero_common.errors import HeteroError, RefusedInput
from hetero_common.tensors import codec
from hetero_server.learning.aggregation import BoundaryResult, cross_boundary
from hetero_server.learning.pushed_weights import sift
from hetero_server.learning.strategies import ClientBatch, Strategy, all_at_once, one_by_one
from hetero_server.learning.suffix import StepResult
from hetero_server.run.member import Batch, Member
from hetero_server.run.step_outcome import StepOutcome
from hetero_server.run.work import (
    BoundaryWork,
    ForgetWork,
    JoinWork,
    LeaveWork,
    Outcome,
    StepWork,
    Work,
)


class Performer:
    """Turns work into outcomes.

    Args:
        plan: The agreement of the run.
        strategy: Trains the server's layers.
    """

    def __init__(self, plan: Plan, strategy: Strategy) -> None:
        self._plan = plan
        self._strategy = strategy
        self.held_bytes = 0
        """What the strategy holds, as of the last time that it may have changed."""

    def perform(self, work: Work) -> Outcome:
        """Compute; touches weights and nothing else, so it may run in another thread."""
        outcome = self._perform(work)
        if isinstance(work, JoinWork | LeaveWork | BoundaryWork):
            self.held_bytes = self._strategy.nbytes()
        return outcome

    def _perform(self, work: Work) -> Outcome:
        match work:
            case JoinWork(member):
                self._strategy.add(member.client_id, member.cut_layer)
            case LeaveWork(member):
                self._strategy.remove(member.client_id)
            case StepWork(parts):
                return self._step(parts)
            case ForgetWork(member):
                self._strategy.forget_statistics(member.client_id)
            case BoundaryWork():
                return self._cross(work)
        return None

    def _cross(self, work: BoundaryWork) -> BoundaryResult:
        sifted = sift(work.contributions, work.shared)
        result = cross_boundary(
            self._strategy,
            sifted.contributions,
            work.round,
            average_clients=self._plan.averages_clients,
            last=self._plan.is_last(work.round),
        )
        return dataclasses.replace(result, norms=sifted.norms, left_out=sifted.left_out)

    def _step(self, parts: Sequence[tuple[Member, Batch]]) -> list[StepOutcome | HeteroError]:
        decoded = one_by_one(self._decoded, parts)
        return [self._outcome(result) for result in all_at_once(self._train, decoded)]

    def _decoded(self, part: tuple[Member, Batch]) -> ClientBatch:
        member, batch = part
        return ClientBatch(
            member.client_id,
            codec.decode(batch.payload),
            torch.tensor(batch.labels, dtype=torch.int64),
            StepAt(batch.round, batch.step, member.steps),
            logit_offsets(self._plan, member.class_counts),
        )

    def _train(self, batches: Sequence[ClientBatch]) -> list[StepResult | RefusedInput]:
        draws = [draw for b in batches for draw in (b.client_id, b.at.round, b.at.step)]
        seed_step(self._plan.seed, "server", *draws)
        return self._strategy.step(batches)

    def _outcome(self, result: StepResult | RefusedInput) -> StepOutcome | HeteroError:
        if isinstance(result, RefusedInput):
            return result
        feedback = result.feedback
        payload = None if feedback is None else codec.encode(feedback, self._plan.wire)
        return StepOutcome(
            result.loss,
            result.correct,
            payload,
            result.gradient_norm,
            result.activation_peak,
            result.is_joint,
        )
