"""The arithmetic behind the engine's work; all of it runs in the one compute thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from hetero_common.agreement.logit_adjustment import logit_offsets
from hetero_common.agreement.plan import Plan
from hetero_common.compute.seeding import seed_step
from hetero_common.errors import HeteroError, RefusedInput
from hetero_common.tensors import codec
from hetero_server.learning.aggregation import BoundaryResult, cross_boundary
from hetero_server.learning.pushed_weights import sift
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch, Strategy, all_at_once, one_by_one
from hetero_server.run.checkpointing import Saving
from hetero_server.run.work import (
    BoundaryWork,
    ForgetWork,
    JoinWork,
    LeaveWork,
    Outcome,
    Part,
    SaveWork,
    StepWork,
    Work,
)


class Performer:
    """Turns work into outcomes.

    Args:
        plan: The agreement of the run.
        strategy: Trains the server's layers.
        saving: Writes checkpoints; without it there are none.
    """

    def __init__(self, plan: Plan, strategy: Strategy, saving: Saving | None = None) -> None:
        self._plan = plan
        self._strategy = strategy
        self._saving = saving
        self.held_bytes = 0
        """What the strategy holds, as of the last time that it may have changed."""

    def perform(self, work: Work) -> Outcome:
        """Compute; touches weights and nothing else, so it may run in another thread."""
        match work:
            case StepWork(parts):
                return self._step(parts)
            case ForgetWork(client_id):
                self._strategy.forget_statistics(client_id)
            case SaveWork():
                assert self._saving is not None, "who is not saved has nothing to write down"
                return self._saving.save(work, self._strategy)
            case JoinWork(client_id, cut_layer):
                self._strategy.add(client_id, cut_layer)
                self.held_bytes = self._strategy.nbytes()
            case LeaveWork(client_id):
                self._strategy.remove(client_id)
                self.held_bytes = self._strategy.nbytes()
            case BoundaryWork():
                result = self._cross(work)
                self.held_bytes = self._strategy.nbytes()
                return result
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

    def _step(self, parts: Sequence[Part]) -> list[StepOutcome | HeteroError]:
        decoded = one_by_one(self._decoded, parts)
        return list(all_at_once(self._train, decoded))

    def _decoded(self, part: Part) -> ClientBatch:
        return ClientBatch(
            part.client_id,
            codec.decode(part.batch.payload),
            torch.tensor(part.batch.labels, dtype=torch.int64),
            part.at,
            logit_offsets(self._plan, part.class_counts),
        )

    def _train(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        draws = [draw for b in batches for draw in (b.client_id, b.at.round, b.at.step)]
        seed_step(self._plan.seed, "server", *draws)
        return self._strategy.step(batches)
