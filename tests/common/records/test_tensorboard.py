from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hetero_common.errors import SettingsError
from hetero_common.records.tensorboard import FOLDER, TensorBoard


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: of each tag, steps and values."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulators.EventAccumulator(str(run / FOLDER))
    read.Reload()
    tags: list[str] = read.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags}


def test_numbers_of_rounds_and_evaluations_are_scalars_of_their_clients(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for round_ in range(2):
        fields: dict[str, Any] = {"round": round_, "client": "board-1", "cut_layer": 3}
        board.event("round", fields | {"applied": "0-7", "exit_loss": None, "loss": 2.0 - round_})
    board.event("evaluation", {"round": 1, "accuracy": 0.5})
    board.close()
    assert scalars(tmp_path) == {
        "loss/board-1": [(0, 2.0), (1, 1.0)],
        "accuracy": [(1, 0.5)],
    }


def test_events_that_are_not_about_a_round_are_left_out(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.event("joined", {"client": "board-1", "shard_size": 50})
    board.event("checkpoint", {"round": 0, "bytes": 100})
    board.close()
    assert scalars(tmp_path) == {}


def test_without_tensorboard_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingsError, match=r"hetero-splitee\[tensorboard\]"):
        TensorBoard(tmp_path)
    assert list(tmp_path.iterdir()) == []
