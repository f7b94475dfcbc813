"""What may come in from a client in a round, and what it is told of what may not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hetero_common.agreement.control import Evaluation, Report
from hetero_common.agreement.plan import Plan
from hetero_common.errors import LimitExceeded, RefusedInput, StepGap
from hetero_server.run.member import Ack, Batch, Member, MemberState


def is_late(member: Member, round_: int, current: int) -> bool:
    """Whether something belongs to a round that has closed, or goes on, without the member.

    Raises:
        RefusedInput: The member was never told to train this round, or has reported its end.
    """
    start = member.progress.start
    known = start is not None and 0 <= round_ <= start.round
    if known and (round_ < current or not member.is_awaited):
        return True
    if not known or member.state is not MemberState.TRAINING:
        raise RefusedInput(f"round {round_} is not the one this client is training")
    return False


def require_next(member: Member, round_: int, step: int, credits: int) -> None:
    """Raise unless this step of the current round is the next one.

    Raises:
        StepGap: It skips a step.
        LimitExceeded: The client has no credit left.
        RefusedInput: The round has no such step.
    """
    progress = member.progress
    if not 0 <= step < member.steps:
        raise RefusedInput(f"round {round_} has steps 0..{member.steps - 1}, not {step}")
    if step > progress.received:
        raise StepGap(round_, step, progress.received)
    if progress.received - max(progress.applied, progress.inherited) >= credits:
        raise LimitExceeded(f"more than the agreed {credits} batches are unacknowledged")


def require_end(member: Member, round_: int, plan: Plan) -> None:
    """Raise RefusedInput unless a member has sent all that belongs to a round."""
    progress = member.progress
    if progress.received < member.steps:
        raise RefusedInput(f"step {progress.received} of round {round_} is still missing")
    if plan.pushes_after(round_) and progress.pushed is None:
        raise RefusedInput(f"round {round_} ends with the client's weights: push them")


def require_asked(member: Member, round_: int) -> None:
    """Raise RefusedInput unless a member was asked for an evaluation of this round, just once."""
    asked = member.progress.asked
    if asked is None or round_ != asked.round or member.progress.evaluation:
        raise RefusedInput("no evaluation was asked for")


def require_class_counts(counts: Sequence[int], shard_size: int, plan: Plan) -> tuple[int, ...]:
    """The images of each class that a client registers with; none where they are of no use.

    Raises:
        RefusedInput: The run needs them, and they are not there or do not fit the rest.
    """
    if not plan.logit_adjustment:
        return ()
    if len(counts) != plan.classes or sum(counts) != shard_size:
        raise RefusedInput(
            f"this run adjusts logits, so a client registers with its images of each of the "
            f"{plan.classes} classes, {shard_size} in all: upgrade the client"
        )
    return tuple(counts)


def require_batch(
    labels: Sequence[int], rows: int, classes: int, class_counts: Sequence[int] = ()
) -> None:
    """Raise RefusedInput unless a batch has rows enough and a good label for each.

    Args:
        labels: Of the batch.
        rows: Of its activation.
        classes: Of the plan.
        class_counts: Images of each class that the client has said it has, if it has.
    """
    if not 2 <= rows == len(labels):
        raise RefusedInput(f"a batch has 2 rows at least and a label for each, not {rows}")
    if min(labels) < 0 or max(labels) >= classes:
        raise RefusedInput(f"a label is outside 0..{classes - 1}: check --classes")
    if class_counts and not all(class_counts[label] for label in labels):
        raise RefusedInput("a label is of a class that this client registered no image of")


def require_report(report: Report, classes: int) -> None:
    """Raise RefusedInput unless a report holds numbers that can be.

    They are recorded as JSON, which has no NaN and no infinity.
    """
    numbers = {k: v for k, v in vars(report).items() if not isinstance(v, tuple)}
    curve = report.curve if isinstance(report, Evaluation) else ()
    for record in (numbers, *map(vars, curve)):
        for name, value in record.items():
            if not math.isfinite(value):
                raise RefusedInput(f"the report's {name} is {value}: it holds finite numbers only")
            if name.endswith(("accuracy", "share", "right")) and not 0 <= value <= 1:
                raise RefusedInput(f"the report's {name} is {value:g}: a share lies within 0..1")
    if isinstance(report, Evaluation):
        _require_classes(report, classes)


def _require_classes(report: Evaluation, classes: int) -> None:
    counts = (report.class_samples, report.exit_class_right, report.server_class_right)
    if not any(counts):
        return
    if {len(each) for each in counts} != {classes}:
        raise RefusedInput(f"an evaluation tells of all {classes} classes, or of none")
    if sum(report.class_samples) != report.samples:
        raise RefusedInput(f"the classes' samples must add up to the {report.samples} in all")
    for right in counts[1:]:
        if any(hits > samples for hits, samples in zip(right, report.class_samples, strict=True)):
            raise RefusedInput("more samples of a class are right than there are of it")


def acknowledge_again(member: Member, batch: Batch) -> Ack:
    """Acknowledge a copy of a batch, with the feedback of the first if that was the last step."""
    last = member.progress.last_ack
    if last is not None and (last.round, last.step) == (batch.round, batch.step):
        return dataclasses.replace(last, duplicate=True)
    return Ack(batch.round, batch.step, duplicate=True)
