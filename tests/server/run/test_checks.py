from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hetero_common.agreement.control import Evaluation, OperatingPoint, RoundDone, StartRound
from hetero_common.agreement.plan import Plan
from hetero_common.errors import LimitExceeded, RefusedInput, StepGap
from hetero_common.tensors.codec import Payload
from hetero_server.run.checks import (
    acknowledge_again,
    is_late,
    require_batch,
    require_class_counts,
    require_next,
    require_report,
)
from hetero_server.run.member import Ack, Identity, Member, MemberState
from support.engine_run import a_batch


def training(round_: int = 3) -> Member:
    """A member that trains this round, of four steps."""
    member = Member(Identity("a", 1, 64, 4), membership=0)
    member.state = MemberState.TRAINING
    member.begin_round(StartRound(round_, 4, pull_state=False, push_state=False))
    return member


# Rounds and steps.


def test_what_belongs_to_the_current_round_is_in_time() -> None:
    assert not is_late(training(3), 3, current=3)


@pytest.mark.parametrize("round_", [0, 2])
def test_what_belongs_to_a_round_that_has_closed_is_late(round_: int) -> None:
    assert is_late(training(3), round_, current=3)


def test_what_comes_from_a_member_that_was_released_is_late() -> None:
    member = training(3)
    member.released = True
    assert is_late(member, 3, current=3)


@pytest.mark.parametrize("round_", [-1, 4, 2**31])
def test_a_round_that_a_member_was_never_told_is_refused(round_: int) -> None:
    with pytest.raises(RefusedInput, match=f"round {round_} is not the one this client is train"):
        is_late(training(3), round_, current=3)


def test_who_has_reported_the_end_of_a_round_sends_nothing_more_of_it() -> None:
    member = training(3)
    member.state = MemberState.SYNCING
    with pytest.raises(RefusedInput, match="round 3 is not the one"):
        is_late(member, 3, current=3)


def test_steps_come_in_order() -> None:
    member = training()
    require_next(member, 3, 0, credits=4)
    member.progress.received = 2
    require_next(member, 3, 2, credits=4)
    with pytest.raises(StepGap, match="step 3 of round 3 leaves a gap: step 2 is expected next"):
        require_next(member, 3, 3, credits=4)


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_that_a_round_has_not_is_refused(step: int) -> None:
    with pytest.raises(RefusedInput, match=rf"has steps 0\.\.3, not {step}"):
        require_next(training(), 3, step, credits=4)


@pytest.mark.parametrize(("applied", "inherited"), [(0, 0), (1, 0), (0, 1)])
def test_credits_bound_what_waits_here(applied: int, inherited: int) -> None:
    """Steps that were applied, or came from the process before, take none."""
    member = training()
    member.progress.applied_steps, member.progress.inherited = list(range(applied)), inherited
    member.progress.received = max(applied, inherited) + 1
    require_next(member, 3, member.progress.received, credits=2)
    with pytest.raises(LimitExceeded, match="more than the agreed 1 batches"):
        require_next(member, 3, member.progress.received, credits=1)


# Batches.


def test_a_good_batch_is_taken() -> None:
    require_batch([0, 2, 1], 3, classes=3)
    require_batch([0, 2], 2, classes=3, class_counts=(5, 0, 1))


@pytest.mark.parametrize(("labels", "rows"), [([], 0), ([0], 1), ([0, 1], 3), ([0, 1, 2], 2)])
def test_a_batch_has_rows_enough_and_a_label_for_each(labels: list[int], rows: int) -> None:
    with pytest.raises(RefusedInput, match="2 rows at least and a label for each"):
        require_batch(labels, rows, classes=3)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_is_a_class_of_the_plan(label: int) -> None:
    with pytest.raises(RefusedInput, match=r"outside 0\.\.2"):
        require_batch([0, label], 2, classes=3)


def test_a_label_is_a_class_that_the_client_has_images_of() -> None:
    with pytest.raises(RefusedInput, match="registered no image of"):
        require_batch([0, 1], 2, classes=3, class_counts=(5, 0, 1))


def test_class_counts_are_kept_where_they_are_needed() -> None:
    plan = Plan(classes=3)
    assert require_class_counts([3, 4, 5], 12, plan) == ()
    adjusted = plan.model_copy(update={"logit_adjustment": 1.0})
    assert require_class_counts([3, 4, 5], 12, adjusted) == (3, 4, 5)
    for counts in ([], [12], [3, 4, 6]):
        with pytest.raises(RefusedInput, match="each of the 3 classes, 12 in all"):
            require_class_counts(counts, 12, adjusted)


# Reports.

EVALUATION = Evaluation(
    *(3, 10, 0.5, 0.6, 0.4, 0.7, 0.3),
    curve=(OperatingPoint(0.4, 0.7, 0.3),),
    class_samples=(4, 6, 0),
    exit_class_right=(1, 3, 0),
    server_class_right=(2, 6, 0),
)


def test_good_reports_are_taken() -> None:
    require_report(RoundDone(3, 2.5, 0.5), classes=3)
    require_report(EVALUATION, classes=3)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_report_holds_finite_numbers_only(loss: float) -> None:
    with pytest.raises(RefusedInput, match="exit_loss is"):
        require_report(RoundDone(3, loss, 0.5), classes=3)


@pytest.mark.parametrize(
    "name", ["exit_accuracy", "threshold_accuracy", "offload_share", "only_server_right"]
)
def test_a_share_lies_between_nothing_and_all(name: str) -> None:
    for value in (-0.01, 1.01):
        with pytest.raises(RefusedInput, match=rf"{name} is {value:g}: a share lies within 0\.\.1"):
            require_report(replace(EVALUATION, **{name: value}), classes=3)  # type: ignore[arg-type]  # of floats


def test_a_curve_is_looked_at_too() -> None:
    bad = replace(EVALUATION, curve=(OperatingPoint(0.4, 0.7, 1.5),))
    with pytest.raises(RefusedInput, match=r"offload_share is 1\.5"):
        require_report(bad, classes=3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exit_class_right": ()}, "an evaluation tells of all 3 classes, or of none"),
        ({"class_samples": (4, 5, 0)}, "the classes' samples must add up to the 10 in all"),
        ({"server_class_right": (2, 6, 1)}, "more samples of a class are right than there are"),
    ],
)
def test_accuracies_of_classes_fit_their_samples(
    changes: dict[str, tuple[int, ...]], sentence: str
) -> None:
    with pytest.raises(RefusedInput, match=sentence):
        require_report(replace(EVALUATION, **changes), classes=3)  # type: ignore[arg-type]  # of tuples


# Copies.


def test_a_copy_of_the_last_step_gets_its_feedback_again() -> None:
    member = training()
    feedback = Payload("fp32", (1,), memoryview(bytes(4)))
    member.progress.last_ack = Ack(3, 1, 0.5, 0.25, feedback=feedback)
    assert acknowledge_again(member, a_batch(3, 1)) == Ack(3, 1, 0.5, 0.25, True, feedback)
    assert acknowledge_again(member, a_batch(3, 0)) == Ack(3, 0, duplicate=True)
