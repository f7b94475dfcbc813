"""What clients say of their classes, where a run adjusts logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero_common.checkpoints import CheckpointStore
from hetero_common.errors import RefusedInput
from hetero_common.logit_adjustment import logit_offsets
from hetero_server.members import Batch
from hetero_server.saving import Saving
from server.engine_run import Run, a_batch

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
    assert Run().engine.register("a", 1, 64, class_counts=(1, 2)).class_counts == ()


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
        run.engine.submit("a", Batch(0, 0, good.payload, [0, 2]))


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
    assert other.member("a").class_counts == COUNTS
    back = other.engine.register("a", 1, 64, [0], class_counts=COUNTS)
    assert back.base == 0, "it is the same client"
