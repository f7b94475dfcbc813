"""Clients whose steps and weights are far beyond those of the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from hetero_common.agreement.control import RoundDone, StartRound
from hetero_common.errors import HeteroError, Quarantined
from hetero_common.records.checkpoints import Checkpoint, CheckpointStore
from hetero_common.tensors.weights import Weights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.run.checkpointing import Saving
from hetero_server.run.member import Ack, MemberState
from hetero_server.run.phase import Phase
from hetero_server.run.work import BoundaryWork, ForgetWork, LeaveWork, StepWork
from support.engine_run import Run, drain

ABSURD = 6e4
SENTENCE = (
    "this run takes nothing more from bad: its activations were too often far beyond those of the "
    "other clients: check its data and its learning rate"
)


def a_run(quarantine: int = 3, clients: str = "ab", **more: Any) -> Run:
    """Steps enough in each round for the others to compare with, of these clients and a bad one."""
    run = Run(len(clients) + 1, quarantine=quarantine, steps_per_round=8, **more)
    for client_id in (*clients, "bad"):
        run.join(client_id)
    return run


def recorded(run: Run, kind: str) -> list[dict[str, Any]]:
    return [fields for event, fields in run.events if event == kind]


def send_one_by_one(run: Run, client_id: str, *steps: int, value: float) -> None:
    for step in steps:
        run.send(client_id, step, value=value)
        run.work()


def test_one_outlier_too_many_sends_a_client_away() -> None:
    run = a_run()
    run.train("a", "b")
    bad = run.member("bad")
    send_one_by_one(run, "bad", 0, 1, value=ABSURD)
    assert bad.state is MemberState.TRAINING
    send_one_by_one(run, "bad", 2, value=1.0)  # does not make up for it
    drain(bad)
    run.send("bad", 3, 4, 5, value=ABSURD)
    run.work()
    acknowledged, error = drain(bad)
    assert isinstance(acknowledged, Ack)  # it was applied
    assert (type(error), str(error)) == (Quarantined, SENTENCE)
    assert (bad.state, len(bad.progress.queue)) == (MemberState.EVICTED, 0)
    steps = [at.step for who, at, _ in run.strategy.applied if who == "bad"]
    assert steps == [0, 1, 2, 3]
    assert run.strategy.clients == {"a": 1, "b": 1}


def test_the_round_closes_without_it_and_averages_nothing_of_it() -> None:
    run = a_run()
    run.train("a", "b")
    run.push("bad")
    run.send("bad", 0, 1, 2, value=ABSURD)
    performed = run.work()
    assert [type(work) for work in performed[-2:]] == [LeaveWork, BoundaryWork]
    boundary = performed[-1]
    assert isinstance(boundary, BoundaryWork)
    assert [given.client_id for given in boundary.contributions] == ["a", "b"]
    assert [fields["client"] for fields in recorded(run, "round")] == ["a", "b"]
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    run.round("a", "b")
    assert run.engine.round == 2


def test_it_is_recorded_which_value_was_too_large(caplog: pytest.LogCaptureFixture) -> None:
    run = a_run()
    run.train_from("a", 0)
    for step in range(8):
        run.send("b", step, value=7.0)
        run.work()
    run.send("bad", 0, 1, 2, value=ABSURD)
    run.work()
    assert recorded(run, "quarantined") == [
        {
            "client": "bad",
            "round": 0,
            "step": 2,
            "statistic": "activation_peak",
            "value": ABSURD,
            "usual": 3.5,
        }
    ]
    (warning,) = [record.message for record in caplog.records if "sent away" in record.message]
    assert warning == (
        "client bad is sent away: 3 of its last 3 steps were outliers; activation_peak is 6e+04, "
        "usually 3.5"
    )


@pytest.mark.parametrize("cut_layer", [1, 2])
def test_it_is_not_let_in_again(cut_layer: int) -> None:
    run = a_run()
    run.train("a", "b")
    run.send("bad", 0, 1, 2, value=ABSURD)
    run.work()
    for held in ((), (0,)):
        with pytest.raises(Quarantined) as caught:
            run.engine.register("bad", cut_layer, 64, held)
        assert str(caught.value) == SENTENCE
    run.join("another")  # is


def test_a_new_registration_does_not_clear_what_came_before() -> None:
    run = a_run()
    run.train("a", "b")
    send_one_by_one(run, "bad", 0, 1, value=ABSURD)
    run.join("bad", cut_layer=2)  # a new member by its cut layer
    run.work()
    run.train("a", "b")
    run.send("bad", 0, value=ABSURD)
    run.work()
    assert run.member("bad").state is MemberState.EVICTED


def test_statistics_forget_each_outlier_before_the_next_step() -> None:
    run = a_run()
    run.train("a", "b")
    run.send("bad", 0, value=1.0)
    run.send("bad", 1, value=ABSURD)
    run.send("bad", 2, value=1.0)
    run.send("bad", 3, value=ABSURD)
    kinds = [type(work) for work in run.work()]
    assert kinds == [StepWork, StepWork, ForgetWork, StepWork, StepWork, ForgetWork]
    assert run.strategy.forgotten == [("bad", 1), ("bad", 3)]
    run.send("bad", 4, value=ABSURD)
    assert [type(work) for work in run.work()][:3] == [StepWork, ForgetWork, LeaveWork]


def test_with_0_nobody_is_sent_away_but_outliers_are_recorded() -> None:
    run = a_run(quarantine=0)
    run.train("a", "b")
    for step in range(8):
        run.send("bad", step, value=ABSURD if step < 6 else 1.0)
        run.work()
    run.done("bad")
    run.work()
    (bad,) = [fields for fields in recorded(run, "round") if fields["client"] == "bad"]
    assert (bad["outliers"], bad["activation_peak_max"]) == (6, ABSURD)
    assert bad["activation_peak"] == pytest.approx((6 * ABSURD + 2) / 8)
    assert [fields["outliers"] for fields in recorded(run, "round")] == [0, 0, 6]


def test_only_the_last_32_steps_count() -> None:
    run = a_run(quarantine=3, rounds=9)
    for round_ in range(8):
        run.train("a", "b")
        for step in range(8):
            run.send("bad", step, value=ABSURD if (round_ % 4, step) in ((0, 0), (1, 0)) else 1.0)
            run.work()
        run.done("bad")
        run.work()
    assert (run.engine.round, recorded(run, "quarantined")) == (8, [])


def test_a_client_alone_is_compared_with_nobody() -> None:
    run = a_run(clients="")
    for step in range(8):
        run.send("bad", step, value=ABSURD)
        run.work()
    assert run.member("bad").state is MemberState.TRAINING


def test_whoever_is_left_when_all_others_are_sent_away_goes_on() -> None:
    run = a_run(clients="a")
    run.train("a")
    run.send("bad", 0, 1, 2, value=ABSURD)
    run.work()
    for _ in range(2):
        run.round("a")
    assert run.phase() is Phase.FINISHED


def test_a_step_that_ends_after_its_round_was_closed_takes_its_client_out_of_it() -> None:
    """It was left behind while the step was being computed, and the averages are due."""
    run = a_run()
    run.train("a", "b")
    run.push("bad")
    send_one_by_one(run, "bad", 0, 1, value=ABSURD)
    run.send("bad", 2, value=ABSURD)
    step = run.engine.work()
    assert step is not None
    run.engine.release("bad", "it is slow")
    assert run.phase() is Phase.CLOSING
    run.engine.settle(step, run.engine.perform(step))
    assert isinstance(run.engine.work(), ForgetWork)  # before it is averaged with anything
    boundary = run.engine.work()
    assert isinstance(boundary, BoundaryWork)
    assert [given.client_id for given in boundary.contributions] == ["a", "b"]
    run.engine.settle(boundary, run.engine.perform(boundary))
    assert run.engine.round == 1


# Saved and resumed.


def resumed(run: Run, folder: Path) -> Run:
    store = CheckpointStore(folder, "run", "f")
    other = Run(3, quarantine=3, steps_per_round=8, saving=Saving(store, 1))
    checkpoint = store.newest()
    assert checkpoint is not None
    other.engine.begin(checkpoint)
    return other


def test_a_resumed_run_keeps_out_whom_the_saved_one_kept_out(tmp_path: Path) -> None:
    run = a_run(saving=Saving(CheckpointStore(tmp_path, "run", "f"), 1))
    run.train("a", "b")
    run.send("bad", 0, 1, 2, value=ABSURD)
    run.work()
    other = resumed(run, tmp_path)
    with pytest.raises(Quarantined) as caught:
        other.engine.register("bad", 1, 64)
    assert str(caught.value) == SENTENCE
    for client_id in "ab":
        other.engine.register(client_id, 1, 64, (0,))
        other.engine.attach(client_id)
    other.round("a", "b")
    assert other.engine.round == 2


def test_a_checkpoint_of_before_there_was_a_quarantine_is_taken_up(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "run", "f")
    run = a_run(saving=Saving(store, 1))
    run.round("a", "b", "bad")
    checkpoint = store.newest()
    assert checkpoint is not None
    record = {"members": checkpoint.record["members"]}
    store.write(Checkpoint(checkpoint.round + 1, checkpoint.tensors, record))
    other = resumed(run, tmp_path)
    assert sorted(other.engine.members) == ["a", "b", "bad"]


# What clients push.


def push_moved(run: Run, client_id: str, shift: float) -> None:
    """Weights that have moved by this much each."""
    weights = run.engine.shared.for_cut(1)
    layers = {
        number: {
            name: value + shift if value.is_floating_point() else value
            for name, value in state.items()
        }
        for number, state in weights.layers.items()
    }
    run.engine.push(client_id, run.engine.round, Weights(layers, weights.exits))


def round_with_pushes(run: Run, **shifts: float) -> None:
    for client_id, shift in shifts.items():
        for step in range(8):
            run.send(client_id, step)
            run.work()
        push_moved(run, client_id, shift)
        run.engine.round_done(client_id, RoundDone(run.engine.round, 0.0, 0.0))
    run.work()


def test_weights_far_beyond_the_others_are_left_out_and_it_is_said() -> None:
    run = a_run()
    before = run.engine.shared.layers[1]["conv.weight"].clone()
    round_with_pushes(run, a=0.01, b=0.03, bad=50.0)
    torch.testing.assert_close(run.engine.shared.layers[1]["conv.weight"], before + 0.02)
    left_out = {fields["statistic"]: fields for fields in recorded(run, "left_out")}
    assert len(left_out) == 1
    (fields,) = left_out.values()
    assert (fields["client"], fields["round"]) == ("bad", 0)
    assert fields["value"] > 10 * fields["usual"] > 0
    norms = {event["client"]: event["update_norm"] for event in recorded(run, "round")}
    assert norms["a"] < norms["b"] < norms["bad"]
    assert any(isinstance(told, StartRound) for told in drain(run.member("bad")))  # it goes on


def test_weights_that_were_left_out_too_often_send_a_client_away() -> None:
    run = a_run(quarantine=2)
    round_with_pushes(run, a=0.01, b=0.03, bad=50.0)
    assert recorded(run, "quarantined") == []
    round_with_pushes(run, a=0.01, b=0.03, bad=50.0)
    (fields,) = recorded(run, "quarantined")
    assert (fields["client"], fields["round"], fields["step"]) == ("bad", 1, None)
    (error,) = [told for told in drain(run.member("bad")) if isinstance(told, HeteroError)]
    assert isinstance(error, Quarantined)
    assert run.engine.round == 2
    run.round("a", "b")
    assert run.phase() is Phase.FINISHED


def test_a_client_that_pushed_nothing_is_not_judged_by_it() -> None:
    run = a_run(client_aggregation="none")
    run.train("a", "b", "bad")
    for event in recorded(run, "round"):
        assert event["update_norm"] is None
    assert recorded(run, "left_out") == []


def test_verdicts_go_with_the_heir_of_a_session() -> None:
    run = a_run()
    run.round("a", "b", "bad")
    run.train("a", "b")
    send_one_by_one(run, "bad", 0, 1, value=ABSURD)
    run.engine.detach("bad", MemberState.STALE)
    heir = run.engine.register("bad", 1, 64, (0,))
    run.engine.attach("bad")
    assert heir.progress.tally.outliers == 2
    run.send("bad", 2, value=ABSURD)
    run.work()
    assert heir.state is MemberState.EVICTED


def test_of_a_joint_step_only_what_is_the_clients_own_is_held_against_it() -> None:
    alone = StepOutcome(9.0, 1, gradient_norm=1e6, activation_peak=2.0)
    assert set(alone.statistics()) == {"server_loss", "gradient_norm", "activation_peak"}
    joint = dataclasses.replace(alone, is_joint=True)
    assert joint.statistics() == {"activation_peak": 2.0}
