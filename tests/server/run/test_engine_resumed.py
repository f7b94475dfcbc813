"""Runs that are saved at the end of a round, and taken up from there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero_common.agreement.control import Evaluate, StartRound
from hetero_common.records.checkpoints import BEFORE_FIRST, CheckpointStore
from hetero_server.run.checkpointing import Saving
from hetero_server.run.engine import Engine
from hetero_server.run.member import Member
from hetero_server.run.phase import Phase
from support.engine_run import Run, an_evaluation, drain


def come_back(run: Run, client_id: str, *held: int, cut_layer: int = 1) -> Member:
    """Another process of this client, which can go back to the end of these rounds."""
    member = run.engine.register(client_id, cut_layer, 64, held)
    run.engine.attach(client_id)
    return member


def saved_run(folder: Path, rounds: int = 3) -> Run:
    run = Run(clients=2, saving=Saving(CheckpointStore(folder, "run", "f"), 1), rounds=rounds)
    run.engine.begin()
    return run


def resumed(folder: Path, rounds: int = 3) -> tuple[Run, Engine]:
    store = CheckpointStore(folder, "run", "f")
    other = Run(clients=2, saving=Saving(store, 1), rounds=rounds)
    other.engine.begin(store.newest())
    return other, other.engine


def test_a_resumed_run_goes_on_with_the_round_after_its_checkpoint(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    run.join("a")
    run.join("b", cut_layer=2)
    run.round("a", "b")
    run.send("a", 0)
    run.work()  # of this, nothing is left
    other, engine = resumed(tmp_path)
    assert (engine.phase, engine.round) == (Phase.TRAINING, 1)
    assert other.strategy.clients == {"a": 1, "b": 2}
    assert other.engine.members["a"].samples == 4
    back = come_back(other, "a", -1, 0)
    assert back.base == 0
    assert drain(back)[0] == StartRound(
        1, 2, pull_state=True, push_state=True, keep_from=BEFORE_FIRST, save=True
    )
    come_back(other, "b", 0, cut_layer=2)
    other.round("a", "b")
    assert engine.round == 2
    for number, state in run.engine.shared.layers.items():
        for name, tensor in state.items():
            assert torch.equal(tensor, engine.shared.layers[number][name])


def test_a_run_that_is_resumed_before_its_first_round_waits_for_all_clients(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    run.work()
    other, engine = resumed(tmp_path)
    other.join("a")
    assert other.phase() is Phase.WAITING
    other.join("b")
    assert (engine.phase, engine.round) == (Phase.TRAINING, 0)


def test_an_evaluation_that_was_due_is_made_up_for(tmp_path: Path) -> None:
    run = saved_run(tmp_path, rounds=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    other, engine = resumed(tmp_path, rounds=1)
    assert other.phase() is Phase.EVALUATING
    assert engine.model is not None
    for client_id in "ab":
        back = come_back(other, client_id, 0)
        assert drain(back) == [Evaluate(0, pull_state=True, last=True)]
        engine.evaluated(client_id, an_evaluation(0))
    assert other.phase() is Phase.FINISHED


def test_a_run_goes_on_when_a_checkpoint_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved_run(tmp_path)
    run.join("a")
    run.join("b")
    run.round("a", "b")
    kept = sorted(path.name for path in tmp_path.iterdir())

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hetero_common.records.checkpoints.write_whole", full)
    run.round("a", "b")
    assert run.engine.round == 2
    assert [f for name, f in run.events if name == "checkpoint"][-1] == {
        "round": 1,
        "failed": "No space left on device",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
