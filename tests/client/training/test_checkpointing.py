"""Which ends of rounds a client can go back to, in memory and on its disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero_client.training.checkpointing import Keeping
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import Checkpoint, CheckpointStore


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def state(round_: int) -> Checkpoint:
    return Checkpoint(round_, {"x": torch.full((2,), float(round_))})


def store_in(folder: Path) -> CheckpointStore:
    return CheckpointStore(folder, "run", "model")


def keep(keeping: Keeping, round_: int, *, asked: bool) -> None:
    """Keep the state of a round."""
    keeping.keep(round_, lambda: state(round_).tensors, asked=asked)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return store_in(tmp_path)


def test_between_writes_the_newest_state_is_in_memory_only(
    store: CheckpointStore, clock: Clock
) -> None:
    keeping = Keeping(store, Cadence(10.0, clock))
    keep(keeping, 3, asked=False)
    assert (keeping.rounds(), store.rounds()) == ([3], [])
    loaded = keeping.load(3)
    assert loaded is not None
    assert loaded.tensors["x"].tolist() == [3.0, 3.0]


def test_what_is_loaded_can_be_trained_on(store: CheckpointStore, clock: Clock) -> None:
    keeping = Keeping(store, Cadence(10.0, clock))
    keep(keeping, 3, asked=False)
    for _ in range(2):
        loaded = keeping.load(3)
        assert loaded is not None
        assert loaded.tensors["x"].add_(1).tolist() == [4.0, 4.0]


def test_what_the_server_asks_for_is_written_at_once(store: CheckpointStore, clock: Clock) -> None:
    keeping = Keeping(store, Cadence(10.0, clock))
    keep(keeping, 3, asked=True)
    keep(keeping, 4, asked=False)
    assert (keeping.rounds(), store.rounds()) == ([3, 4], [3])


def test_a_state_is_written_when_the_last_is_old(store: CheckpointStore, clock: Clock) -> None:
    keeping = Keeping(store, Cadence(10.0, clock))
    for round_ in range(25):
        clock.now += 1
        keep(keeping, round_, asked=False)
    assert store.rounds() == [9, 19]
    assert keeping.rounds() == [9, 19, 24]


def test_without_a_pause_every_round_is_written_and_two_are_left(store: CheckpointStore) -> None:
    keeping = Keeping(store, Cadence(0.0))
    for round_ in range(5):
        keep(keeping, round_, asked=round_ == 1)
    assert store.rounds() == [1, 3, 4]


def test_rounds_that_are_trained_again_are_kept_like_new_ones(store: CheckpointStore) -> None:
    keeping = Keeping(store, Cadence(0.0))
    for round_, asked in ((7, False), (8, False), (7, True), (8, False)):
        keep(keeping, round_, asked=asked)
    assert store.rounds() == [7, 8], "7 is the server's now, and 8 is newer than what it replaced"


def test_the_newest_state_is_written_at_the_end(store: CheckpointStore, clock: Clock) -> None:
    keeping = Keeping(store, Cadence(10.0, clock))
    keeping.flush()
    assert store.rounds() == []
    keep(keeping, 3, asked=False)
    keeping.flush()
    assert store.rounds() == [3]


def test_a_disk_that_is_full_leaves_the_state_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    keeping = Keeping(store_in(tmp_path / "file"), Cadence(0.0))
    with pytest.raises(OSError, match="file"):
        keep(keeping, 0, asked=True)
    assert keeping.rounds() == [0]


@settings(max_examples=100, deadline=None)
@given(
    rounds=st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=12),
    seconds=st.sampled_from([0.0, 10.0]),
)
def test_after_a_kill_there_is_what_the_server_asked_for_and_a_state_that_is_not_old(
    rounds: list[tuple[bool, float]], seconds: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, clock = tmp_path_factory.mktemp("kept"), Clock()
    keeping = Keeping(store_in(folder), Cadence(seconds, clock))
    ended: dict[int, float] = {}
    for round_, (asked, took) in enumerate(rounds):
        clock.now += took
        ended[round_] = clock.now
        keep(keeping, round_, asked=asked)
        assert round_ in keeping.rounds()
    left = store_in(folder).rounds()
    assert {round_ for round_, (asked, _) in enumerate(rounds) if asked} <= set(left)
    if rounds:
        newest = max((ended[round_] for round_ in left), default=100.0)
        assert clock.now - newest < seconds or left[-1] == len(rounds) - 1
