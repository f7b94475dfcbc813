"""The run at the end of a round, as a checkpoint: what is kept, when, and how it is taken up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointStore,
    nested,
    owner_of,
    within,
)
from hetero_common.records.rundir import read_plan
from hetero_common.settings import first_difference
from hetero_common.tensors.weights import Weights
from hetero_server.learning.strategies import Strategy
from hetero_server.run.member import Member
from hetero_server.run.work import Saved, SaveWork

log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints that are left: should the newest turn out damaged, there is another."""


class Saving:
    """When and where a run is saved.

    Args:
        store: Takes the checkpoints.
        every: Rounds between checkpoints, at least; the last round always has one.
        cadence: Seconds between checkpoints, at least; by default there is no such limit.
    """

    def __init__(
        self,
        store: CheckpointStore,
        every: int = 1,
        cadence: Cadence | None = None,
    ) -> None:
        self._store = store
        self._every = every
        self._cadence = cadence
        self.is_due = False
        """Whether the end of the round under way is saved."""
        self.keep_from = store.keep_newest(KEPT)
        """Round of the oldest checkpoint that the run can be resumed from."""

    def begin(self, round_: int, plan: Plan) -> tuple[int, bool]:
        """A round starts: what its clients have to keep.

        Returns:
            The oldest round that the run can be resumed from, and whether it can from this one.
        """
        long_ago = self._cadence is None or self._cadence.is_due
        self.is_due = plan.is_last(round_) or (long_ago and (round_ + 1) % self._every == 0)
        return self.keep_from, self.is_due

    def save(self, work: SaveWork, strategy: Strategy) -> Saved:
        """Write a checkpoint; one that cannot be written is no reason to stop training."""
        if self._cadence is not None:
            self._cadence.begin()
        tensors = dict(work.tensors) | nested("strategy", strategy.checkpoint())
        failed = write_if_possible(self._store, Checkpoint(work.round, tensors, work.record))
        if failed is None:
            self.keep_from = self._store.keep_newest(KEPT)
        return Saved(failed)


def write_if_possible(store: CheckpointStore, checkpoint: Checkpoint) -> str | None:
    """Add a checkpoint; why it could not be written, if it could not."""
    try:
        store.write(checkpoint)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        log.error(
            "the checkpoint of round %d could not be written to %s (%s): the run goes on, and "
            "can be resumed from the one before",
            checkpoint.round,
            store.folder,
            reason,
        )
        return reason
    return None


def save_work(
    round_: int,
    participants: Sequence[Member],
    shared: Weights,
    model: Weights | None,
    quarantined: Mapping[str, str],
) -> SaveWork:
    """Make the work of writing down a run whose round has just closed."""
    members = [each.kept() for each in participants if each.attached or each.is_awaited]
    tensors = nested("shared", shared.flat())
    if model is not None:
        tensors |= nested("model", model.flat())
    record = {"members": members, "quarantined": dict(quarantined)}
    return SaveWork(round_, record, tensors)


def require_resumable(run: Path, plan: Plan) -> str:
    """The id of the run in a directory.

    Raises:
        SettingsError: It has no good checkpoint, or another agreement.
    """
    require_unchanged(run, Plan, read_plan(run).model_dump(), plan.model_dump())
    owner = owner_of(run / CHECKPOINTS)
    if owner is None:
        raise SettingsError(f"{run} has no good checkpoint to go on from: start a new run")
    return owner


def require_unchanged(
    run: Path, model: type[BaseModel], held: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Check what the result of a run depends on.

    Args:
        run: Directory of the run.
        model: Says which settings there are; one that is absent has its default.
        held: The settings of the run.
        given: Those that it is to go on with.

    Raises:
        SettingsError: They differ.
    """
    name = first_difference(model, held, given)
    if name is not None:
        flag = f"--{name.replace('_', '-')}"
        had = held.get(name, model.model_fields[name].get_default())
        raise SettingsError(
            f"{flag} is {had} in the run of {run} and cannot be changed: leave {flag} out"
        )


@dataclass(frozen=True)
class Restored:
    """A run as a checkpoint holds it, without the strategy's part."""

    shared: Weights
    model: Weights | None
    members: list[Member]
    quarantined: Mapping[str, str]


def restore(checkpoint: Checkpoint, strategy: Strategy) -> Restored:
    """Take up a run; its members are counted on, and have to come back."""
    members = [
        Member.restored(kept, membership)
        for membership, kept in enumerate(checkpoint.record["members"])
    ]
    for member in members:
        strategy.add(member.client_id, member.cut_layer)
    strategy.restore(within("strategy", checkpoint.tensors))
    model = within("model", checkpoint.tensors)
    return Restored(
        Weights.from_flat(within("shared", checkpoint.tensors)),
        Weights.from_flat(model) if model else None,
        members,
        checkpoint.record.get("quarantined", {}),  # checkpoints of old versions have none
    )
