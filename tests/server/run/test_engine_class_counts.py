"""What clients say of classes: of their own, where a run adjusts logits, and in evaluations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from hetero_common.agreement.control import Evaluation
from hetero_common.agreement.logit_adjustment import logit_offsets
from hetero_common.errors import RefusedInput
from hetero_common.records.checkpoints import CheckpointStore
from hetero_server.run.checkpointing import Saving
from hetero_server.run.member import Batch
from support.engine_run import Run, a_batch, hand_in

COUNTS = (50, 14, 0)


def adjusting(clients: int = 1, saving: Saving | None = None) -> Run:
    return Run(clients, saving=saving, logit_adjustment=1.0)


@pytest.mark.parametrize("counts", [(), (50, 14), (50, 14, 0, 0), (50, 13, 0), (0, 0, 0)])
def test_a_client_tells_its_images_of_each_class_all_of_them(counts: tuple[int, ...]) -> None:
    with pytest.raises(RefusedInput) as caught:
        adjusting().engine.register("a", 1, 64, class_counts=counts)
    assert str(caught.value) == (
        "this run adjusts logits, so a client registers with its images of each of the 3 classes, "
        "64 in all: upgrade the client"
    )


def test_without_adjustment_nobody_wants_to_know() -> None:
    assert Run().engine.register("a", 1, 64, class_counts=(1, 2)).identity.class_counts == ()


def test_a_step_is_made_with_the_prior_of_whoever_sent_it() -> None:
    run = adjusting(clients=2)
    for client_id, counts in (("a", COUNTS), ("b", (1, 2, 61))):
        run.engine.register(client_id, 1, 64, class_counts=counts)
        run.engine.attach(client_id)
    for client_id in ("a", "b"):
        run.send(client_id, 0)
    run.work()
    for client_id, counts in (("a", COUNTS), ("b", (1, 2, 61))):
        expected, given = logit_offsets(run.plan, counts), run.strategy.offsets[client_id]
        assert expected is not None and given is not None
        assert torch.equal(given, expected)


def test_a_label_of_a_class_that_a_client_said_it_has_not_is_refused() -> None:
    run = adjusting()
    run.engine.register("a", 1, 64, class_counts=COUNTS)
    run.engine.attach("a")
    good = a_batch(0, 0)
    assert run.engine.admit("a", 0, 0, [0, 1], 2)
    with pytest.raises(RefusedInput, match="of a class that this client registered no image of"):
        hand_in(run.engine, "a", Batch(0, 0, good.payload, [0, 2]))


def test_with_other_images_a_client_is_a_new_member() -> None:
    run = adjusting(clients=2)
    for client_id in ("a", "b"):
        run.engine.register(client_id, 1, 64, class_counts=COUNTS)
        run.engine.attach(client_id)
    run.round("a", "b")
    same = run.engine.register("a", 1, 64, [0], class_counts=COUNTS)
    assert same.base == 0
    other = run.engine.register("b", 1, 64, [0], class_counts=(0, 14, 50))
    assert (other.base, other.samples) == (None, 0)


def test_a_resumed_run_knows_them(tmp_path: Path) -> None:
    def saved(store: CheckpointStore) -> Run:
        return adjusting(saving=Saving(store, 1))

    run = saved(CheckpointStore(tmp_path, "run", "f"))
    run.engine.begin()
    run.engine.register("a", 1, 64, class_counts=COUNTS)
    run.engine.attach("a")
    run.round("a")
    store = CheckpointStore(tmp_path, "run", "f")
    other = saved(store)
    other.engine.begin(store.newest())
    assert other.member("a").identity.class_counts == COUNTS
    back = other.engine.register("a", 1, 64, [0], class_counts=COUNTS)
    assert back.base == 0, "it is the same client"


@pytest.mark.parametrize(
    ("samples", "exit_right", "server_right", "sentence"),
    [
        ((5, 5), (0, 0), (0, 0), "an evaluation tells of all 3 classes, or of none"),
        ((5, 5, 0, 0), (0,) * 4, (0,) * 4, "tells of all 3 classes"),
        ((5, 5, 0), (), (0, 0, 0), "tells of all 3 classes"),
        ((5, 4, 0), (0, 0, 0), (0, 0, 0), "must add up to the 10 in all"),
        ((5, 5, 0), (5, 6, 0), (0, 0, 0), "more samples of a class are right than there are"),
        ((5, 5, 0), (5, 5, 0), (0, 0, 1), "more samples of a class are right than there are"),
    ],
)
def test_an_evaluation_of_classes_that_can_not_be_is_refused_and_not_recorded(
    samples: tuple[int, ...],
    exit_right: tuple[int, ...],
    server_right: tuple[int, ...],
    sentence: str,
) -> None:
    run = Run(rounds=1)
    run.join("a")
    run.train("a")
    run.work()
    wrong = dataclasses.replace(
        Evaluation(0, 10, 0.5, 0.6, 0.4, 0.7, 0.3),
        class_samples=samples,
        exit_class_right=exit_right,
        server_class_right=server_right,
    )
    with pytest.raises(RefusedInput, match=sentence):
        run.engine.evaluated("a", wrong)
    assert "evaluation" not in [name for name, _ in run.events]


def test_what_each_class_is_worth_is_recorded_and_null_where_there_is_none_of_it() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.train("a")
    run.work()
    told = dataclasses.replace(
        Evaluation(0, 10, 0.5, 0.6, 0.4, 0.7, 0.3),
        class_samples=(8, 2, 0),
        exit_class_right=(4, 1, 0),
        server_class_right=(6, 0, 0),
    )
    run.engine.evaluated("a", told)
    recorded = dict(run.events)["evaluation"]
    assert recorded["class_samples"] == [8, 2, 0]
    assert recorded["exit_class_accuracy"] == [0.5, 0.5, None]
    assert recorded["server_class_accuracy"] == [0.75, 0.0, None]
    assert not [name for name in recorded if name.endswith("class_right")]


def test_a_client_that_tells_nothing_of_classes_is_as_welcome() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.round("a")
    recorded = dict(run.events)["evaluation"]
    for name in ("class_samples", "exit_class_accuracy", "server_class_accuracy"):
        assert recorded[name] is None
