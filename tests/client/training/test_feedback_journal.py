from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetero_client.training.feedback_journal import FeedbackJournal

STEPS = 5


def returned(step: int) -> Tensor | None:
    """Step 3 got nothing."""
    return None if step == 3 else torch.randn(4, 2, generator=torch.Generator().manual_seed(step))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of the first steps of round 7."""
    journal = FeedbackJournal(tmp_path / "journal", "run")
    journal.begin(7, 0)
    for step in range(STEPS):
        journal.keep(step, returned(step))
    return tmp_path / "journal"


def taken_up(path: Path, first_step: int, run: str = "run", round_: int = 7) -> FeedbackJournal:
    journal = FeedbackJournal(path, run)
    journal.begin(round_, first_step)
    return journal


def require_first(journal: FeedbackJournal, count: int) -> None:
    """It holds the first steps, bit for bit, and takes the next one."""
    assert journal.held == count
    journal.keep(count, returned(count))
    for step in range(count + 1):
        back, before = journal.feedback(step), returned(step)
        assert (back is None) == (before is None)
        assert back is None or before is None or torch.equal(back, before)


@pytest.mark.parametrize("first_step", range(STEPS + 1))
def test_what_was_returned_comes_back_up_to_the_first_step_that_the_server_lacks(
    path: Path, first_step: int
) -> None:
    require_first(taken_up(path, first_step), first_step)
    require_first(taken_up(path, first_step), first_step)  # the rest was forgotten for good


def test_records_beyond_what_is_there_can_not_be_held(path: Path) -> None:
    require_first(taken_up(path, STEPS + 2), STEPS)


def test_values_that_are_no_numbers_come_back_too(tmp_path: Path) -> None:
    journal = taken_up(tmp_path / "journal", 0)
    journal.keep(0, torch.tensor([-0.0, float("inf"), 1e-45]))
    back = taken_up(tmp_path / "journal", 1).feedback(0)
    assert back is not None
    assert back.numpy().tobytes() == torch.tensor([-0.0, float("inf"), 1e-45]).numpy().tobytes()


@pytest.mark.parametrize(("run", "round_"), [("another", 7), ("run", 8), ("run", 6)])
def test_records_of_something_else_are_ignored(path: Path, run: str, round_: int) -> None:
    assert taken_up(path, STEPS, run, round_).held == 0
    assert path.read_bytes() == b""


def test_a_new_round_drops_the_last_one(path: Path) -> None:
    journal = taken_up(path, 0, round_=8)
    assert journal.held == 0
    assert not path.exists()


def test_a_record_that_is_cut_short_ends_what_is_held(path: Path) -> None:
    whole = path.read_bytes()
    size = len(whole) // STEPS
    counts = set()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        counts.add(taken_up(path, STEPS).held)
        assert abs(taken_up(path, STEPS).held - length // size) <= 1
    assert counts == set(range(STEPS)), "the last one is never whole"
    path.write_bytes(whole[: len(whole) // 2])
    require_first(taken_up(path, STEPS), 2)


def test_a_flipped_bit_ends_what_is_held(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        assert taken_up(path, STEPS).held < STEPS


def test_a_disk_that_is_full_is_one_warning_and_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = FeedbackJournal(tmp_path / "missing" / "journal", "run")
    for round_ in range(2):
        journal.begin(round_, 0)
        for step in range(3):
            journal.keep(step, returned(step))
        assert journal.held == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "No such file or directory" in record.getMessage()
    (tmp_path / "missing").mkdir()
    journal.begin(2, 0)
    journal.keep(0, returned(0))
    assert journal.held == 1, "it is tried again in the next round"


def test_at_the_end_of_the_run_nothing_is_left(path: Path) -> None:
    taken_up(path, STEPS).drop()
    assert not path.exists()
