"""The end of a round, evaluation, and the end of a run."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch

from hetero_common.agreement.control import Evaluate, Finish, OperatingPoint, RoundDone, StartRound
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import (
    NotTraining,
    RefusedInput,
)
from hetero_common.tensors.weight_delta import pack
from hetero_common.tensors.weights import Weights, tensors_to_bytes
from hetero_server.run.member import MemberState
from hetero_server.run.phase import Phase
from hetero_server.run.work import BoundaryWork, JoinWork, StepWork
from support.engine_run import PLAN, Run, a_batch, an_evaluation, hand_in, initial_model

# The end of a round.


def test_a_round_is_not_done_before_its_last_step_has_arrived_and_is_applied() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0)
    run.push("a")
    with pytest.raises(RefusedInput, match="step 1 of round 0 is still missing"):
        run.engine.round_done("a", RoundDone(0, 0.0, 0.0))
    run.send("a", 1)
    run.engine.round_done("a", RoundDone(0, 0.0, 0.0))
    assert run.phase() is Phase.TRAINING
    assert [type(work) for work in run.work()] == [JoinWork, StepWork, StepWork, BoundaryWork]
    assert run.engine.round == 1


def test_a_round_is_not_done_without_the_weights_that_were_asked_for() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0, 1)
    run.work()
    with pytest.raises(RefusedInput, match="ends with the client's weights: push them"):
        run.engine.round_done("a", RoundDone(0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("loss", "accuracy", "reason"),
    [
        (math.nan, 0.5, "exit_loss is nan"),
        (math.inf, 0.5, "exit_loss is inf"),
        (1.0, math.nan, "exit_accuracy is nan"),
        (1.0, 1.5, "exit_accuracy is 1.5: a share lies within 0..1"),
        (1.0, -0.1, "exit_accuracy is -0.1"),
    ],
)
def test_a_report_of_numbers_that_can_not_be_is_refused_and_not_recorded(
    loss: float, accuracy: float, reason: str
) -> None:
    run = Run()
    run.join("a")
    run.send("a", 0, 1)
    run.work()
    run.push("a")
    with pytest.raises(RefusedInput, match=re.escape(reason)):
        run.engine.round_done("a", RoundDone(0, loss, accuracy))
    assert run.member("a").progress.report is None


def test_an_evaluation_of_numbers_that_can_not_be_is_refused_and_not_recorded() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.train("a")
    run.work()
    good, fine = an_evaluation(0), OperatingPoint(-1.0, 0.5, 1.0)
    for wrong in (
        dataclasses.replace(good, server_accuracy=2.0),
        dataclasses.replace(good, offload_share=-1.0),
        dataclasses.replace(good, threshold=math.nan),
        dataclasses.replace(good, only_server_right=1.1),
        dataclasses.replace(good, curve=(fine, OperatingPoint(math.inf, 0.5, 1.0))),
        dataclasses.replace(good, curve=(fine, OperatingPoint(0.0, -0.1, 1.0))),
        dataclasses.replace(good, curve=(fine, OperatingPoint(0.0, 0.5, 1.1))),
    ):
        with pytest.raises(RefusedInput, match="the report's"):
            run.engine.evaluated("a", wrong)
    assert "evaluation" not in [name for name, _ in run.events]
    run.engine.evaluated("a", dataclasses.replace(good, curve=(fine,)))
    point = {"threshold": -1.0, "accuracy": 0.5, "offload_share": 1.0}
    assert dict(run.events)["evaluation"]["curve"] == (point,)


def test_weights_of_the_last_round_do_not_count_again() -> None:
    run = Run()
    run.join("a")
    run.round("a")
    run.send("a", 0, 1)
    run.work()
    with pytest.raises(RefusedInput, match="push them"):
        run.engine.round_done("a", RoundDone(1, 0.0, 0.0))


def test_the_next_round_starts_when_everybody_is_done() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.train("a")
    assert run.work() == []
    assert run.member("a").state is MemberState.SYNCING
    run.train("b")
    assert run.phase() is Phase.CLOSING
    assert [type(work) for work in run.work()] == [BoundaryWork]
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    assert run.heard("a")[-1] == StartRound(1, 2, pull_state=True, push_state=True)
    run.send("a", 0)  # step 0 again, of the new round
    run.work()
    assert run.strategy.applied[-1][1] == StepAt(1, 0, 2)


def test_pulled_weights_are_the_average_of_what_was_pushed() -> None:
    run = Run(clients=2)
    run.join("a", cut_layer=1)
    run.join("b", cut_layer=2)
    for client_id, shift, rows in (("a", 1.0, 2), ("b", 4.0, 6)):
        for step in range(2):
            hand_in(run.engine, client_id, a_batch(0, step, rows=rows))
        run.work()
        pushed = run.engine.shared.for_cut(run.member(client_id).cut_layer)
        moved = {
            number: {name: value + shift for name, value in state.items()}
            for number, state in pushed.layers.items()
        }
        run.engine.push(client_id, 0, Weights(moved, pushed.exits))
        run.engine.round_done(client_id, RoundDone(0, 0.0, 0.0))
    run.work()
    start = initial_model().weights.layers
    pulled = run.engine.shared.for_cut(3).layers
    for number, shift in ((1, (4 * 1.0 + 12 * 4.0) / 16), (2, 4.0), (3, 0.0)):
        weight = start[number]["conv.weight"]
        torch.testing.assert_close(pulled[number]["conv.weight"], weight + shift)


def test_a_client_pulls_and_pushes_its_own_layers_and_exit_only() -> None:
    engine = Run().engine
    weights = engine.shared.for_cut(3)
    assert (list(weights.layers), list(weights.exits)) == ([1, 2, 3], [3])
    assert engine.shared.for_cut(3).nbytes == weights.nbytes
    pushed = tensors_to_bytes(pack(weights, weights, PLAN.push_dtype))
    assert engine.shared.pulled_bytes(3) == len(weights.to_bytes())
    assert engine.shared.pushed_bytes(3) == len(pushed) < len(weights.to_bytes())
    read = engine.shared.read_pushed(3, pushed)
    assert (list(read.layers), list(read.exits)) == ([1, 2, 3], [3])
    with pytest.raises(RefusedInput):
        engine.shared.read_pushed(2, pushed)


@pytest.mark.parametrize(("uniform", "weights"), [(False, [4.0, 12.0]), (True, [1.0, 1.0])])
def test_a_client_counts_by_its_samples_or_like_any_other(
    uniform: bool, weights: list[float]
) -> None:
    run = Run(clients=2, uniform_weights=uniform)
    run.join("b", cut_layer=2)
    run.join("a")
    for client_id, rows in (("a", 2), ("b", 6)):
        for step in range(2):
            hand_in(run.engine, client_id, a_batch(0, step, rows=rows))
    run.work()
    run.done("a", "b")
    (boundary,) = [work for work in run.work() if isinstance(work, BoundaryWork)]
    found = [(c.client_id, c.cut_layer, c.weight) for c in boundary.contributions]
    assert found == [("a", 1, weights[0]), ("b", 2, weights[1])]
    assert all(c.pushed is not None for c in boundary.contributions)


def test_samples_count_since_the_last_aggregation() -> None:
    run = Run(client_aggregation="none", rounds=6)
    run.strategy.aggregate_every = 2
    weights = []
    run.join("a")
    for clients in ("a", ("a", "late"), ("a", "late"), ("a", "late")):
        run.train(*clients)
        if clients == "a":
            run.join("late")
        (boundary,) = [work for work in run.work() if isinstance(work, BoundaryWork)]
        weights.append({c.client_id: c.weight for c in boundary.contributions})
    samples = 2.0 * 2  # rows times steps of a round
    assert weights[1] == {"a": 2 * samples, "late": samples}
    assert weights[3] == {"a": 2 * samples, "late": 2 * samples}


# Evaluation and the end.


def test_the_next_round_waits_for_every_evaluation() -> None:
    run = Run(clients=2, eval_every=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    assert run.phase() is Phase.EVALUATING
    asked = Evaluate(round=0, pull_state=True, last=False)
    assert run.heard("a")[-1] == run.heard("b")[-1] == asked
    run.engine.evaluated("a", an_evaluation(0))
    assert run.phase() is Phase.EVALUATING
    assert run.heard("a") == []
    run.engine.evaluated("b", an_evaluation(0))
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    # The averages were pulled for the evaluation and need not be pulled again.
    assert run.heard("a") == [StartRound(1, 2, pull_state=False, push_state=True)]
    run.train("a", "b")
    run.work()
    assert run.phase() is Phase.EVALUATING  # the answers of round 0 do not count


def test_who_leaves_during_an_evaluation_is_not_waited_for() -> None:
    run = Run(clients=2, eval_every=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    run.engine.evaluated("a", an_evaluation(0))
    run.engine.detach("b", MemberState.LEFT)
    assert run.engine.round == 1


def test_a_run_goes_on_when_everybody_leaves_during_an_evaluation() -> None:
    run = Run(eval_every=1)
    run.join("a")
    run.train("a")
    run.work()
    run.engine.detach("a", MemberState.LEFT)
    assert (run.phase(), run.engine.round) == (Phase.WAITING, 1)
    run.join("a")
    assert run.heard("a") == [StartRound(1, 2, pull_state=True, push_state=True)]


def test_an_evaluation_that_was_not_asked_for_is_refused() -> None:
    run = Run(clients=2, eval_every=2)
    run.join("a")
    run.join("b")
    for _ in range(2):
        with pytest.raises(RefusedInput, match="no evaluation was asked for"):
            run.engine.evaluated("a", an_evaluation(run.engine.round))
        run.train("a", "b")
        run.work()
    assert run.phase() is Phase.EVALUATING
    with pytest.raises(RefusedInput):
        run.engine.evaluated("a", an_evaluation(0))
    run.join("late")
    with pytest.raises(RefusedInput):
        run.engine.evaluated("late", an_evaluation(1))


def test_after_the_last_round_everybody_evaluates_and_is_dismissed() -> None:
    run = Run(clients=2, rounds=2)
    run.join("a")
    run.join("b", cut_layer=2)
    run.round("a", "b")
    run.train("a", "b")
    assert run.engine.model is None
    run.work()
    assert run.phase() is Phase.EVALUATING
    run.join("late")
    assert run.heard("a")[-1] == Evaluate(round=1, pull_state=True, last=True)
    for client_id in "ab":
        run.engine.evaluated(client_id, an_evaluation(1))
    assert run.phase() is Phase.FINISHED
    for client_id in ("a", "b", "late"):
        assert run.heard(client_id)[-1] == Finish("all rounds are done")
    assert run.work() == []
    assert not run.engine.is_over
    for client_id in ("a", "b", "late"):
        run.engine.detach(client_id, MemberState.LEFT)
    assert run.engine.is_over
    assert run.engine.model is not None
    assert list(run.engine.model.layers) == [1, 2, 3, 4, 5, 6]
    assert sorted(run.engine.model.exits) == [1, 2]


def test_nobody_joins_a_run_that_is_over() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.round("a")
    assert run.phase() is Phase.FINISHED
    with pytest.raises(NotTraining, match="the run is over"):
        run.engine.register("b", 1, 64)


def test_who_registered_in_time_and_comes_too_late_is_dismissed() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.engine.register("late", 1, 64)
    run.round("a")
    run.engine.attach("late")
    assert run.heard("late") == [Finish("all rounds are done")]


def test_a_run_records_what_happened() -> None:
    run = Run(rounds=2, steps_per_round=2)
    run.join("a", cut_layer=2, shard_size=50)
    run.round("a")
    run.round("a")
    run.engine.detach("a", MemberState.LEFT)
    names = [event for event, _ in run.events]
    assert names == ["joined", "round", "round", "evaluation", "finished", "left"]
    fields, file = dict(run.events), run.engine.shared.pushed_bytes(2)
    assert fields["joined"] == {"client": "a", "cut_layer": 2, "shard_size": 50, "round": 0}
    assert fields["round"] == {
        "round": 1,
        "client": "a",
        "cut_layer": 2,
        "samples": 4,
        "steps": 2,
        "applied": "0-1",
        "server_loss": 0.5,
        "server_train_accuracy": 0.5,
        "gradient_norm": 2.0,
        "gradient_norm_max": 2.0,
        "activation_peak": 0.0,
        "activation_peak_max": 0.0,
        "outliers": 0,
        "exit_loss": 0.25,
        "exit_train_accuracy": 0.75,
        "bytes_received": 4 * 16,
        "bytes_returned": 0,
        "bytes_pushed": 2 * file,
        "bytes_pulled": 0,
        "bytes_asked": 0,
        "bytes_answered": 0,
        "update_norm": 0.0,
        "buffers_norm": 0.0,
    }
    assert fields["evaluation"]["server_accuracy"] == 0.6
    assert fields["left"] == {"client": "a", "state": "LEFT", "round": 1, "reason": None}
