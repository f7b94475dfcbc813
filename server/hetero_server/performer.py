"""The arithmetic behind the engine's work; all of it runs in the one compute thread."""

from __future__ import annotations

import dataclasses

import torch

from hetero_common import codec
from hetero_common.compute import seed_step
from hetero_common.errors import RefusedInput
from hetero_common.logit_adjustment import logit_offsets
from hetero_common.plan import Plan, StepAt
from hetero_server.boundary import BoundaryResult, cross_boundary
from hetero_server.members import Batch, Member
from hetero_server.strategies import Strategy
from hetero_server.tally import StepOutcome
from hetero_server.updates import sift
from hetero_server.work import (
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

    def perform(self, work: Work) -> Outcome:
        """Compute; touches weights and nothing else, so it may run in another thread."""
        match work:
            case JoinWork(member):
                self._strategy.add(member.client_id, member.cut_layer)
            case LeaveWork(member):
                self._strategy.remove(member.client_id)
            case StepWork(member, batch):
                try:
                    return self._step(member, batch)
                except RefusedInput as error:
                    return error
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

    def _step(self, member: Member, batch: Batch) -> StepOutcome:
        activation = codec.decode(batch.payload)
        seed_step(self._plan.seed, "server", member.client_id, batch.round, batch.step)
        at = StepAt(batch.round, batch.step, member.steps)
        labels = torch.tensor(batch.labels, dtype=torch.int64)
        offsets = logit_offsets(self._plan, member.class_counts)
        result = self._strategy.step(member.client_id, activation, labels, at, offsets)
        feedback = result.feedback
        payload = None if feedback is None else codec.encode(feedback, self._plan.wire)
        return StepOutcome(
            result.loss,
            result.correct,
            payload,
            result.gradient_norm,
            result.activation_peak,
        )
