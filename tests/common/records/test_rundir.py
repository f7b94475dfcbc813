from __future__ import annotations

import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.events import (
    Finished,
    Joined,
    LocalRound,
    Started,
    WholeEvaluated,
    WholeRound,
)
from hetero_common.records.history import read_records
from hetero_common.records.rundir import METRICS_FILE, RunDir

if TYPE_CHECKING:
    from typing_extensions import Buffer


def test_events_are_kept_in_order_with_their_fields(tmp_path: Path) -> None:
    with RunDir(tmp_path / "runs" / "one") as run_dir:
        run_dir.record(Joined("phöne\n1", 3))
        run_dir.record(LocalRound("a", 0, 0.25, None))
        events = read_records(run_dir.path)  # readable while the run goes on
    assert [event["event"] for event in events] == ["joined", "round"]
    assert events[0]["client"] == "phöne\n1"
    told = [events[1][name] for name in ("round", "exit_loss", "exit_accuracy")]
    assert told == [0, 0.25, None]
    assert all(event["seconds"] >= 0 and event["time"] > 1.7e9 for event in events)


def test_each_event_is_a_line_of_json(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run_dir:
        run_dir.record(Joined("a\nb\u2028c", 1))
        run_dir.record(Finished(1))
    lines = (tmp_path / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["joined", "finished"]


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for number in range(2):
        with RunDir(tmp_path) as run_dir:
            run_dir.record(WholeRound(number, 0.5))
    assert [event["round"] for event in read_records(tmp_path)] == [0, 1]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run_dir:
        run_dir.record(WholeRound(0, 0.5))
        run_dir.record(WholeRound(1, 0.5))
    whole = (tmp_path / METRICS_FILE).read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 1):
        (tmp_path / METRICS_FILE).write_bytes(whole[:length])
        assert [event["round"] for event in read_records(tmp_path)] == [0], length


def test_a_line_cut_short_costs_no_event_of_the_resumed_run(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"event": "round", "round": 0}\n{"event": "rou')
    with RunDir(tmp_path) as run_dir:
        run_dir.record(WholeRound(1, 0.5))
        run_dir.record(WholeRound(2, 0.5))
    assert [event["round"] for event in read_records(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("data", ["größe: 1\n", b"\x00\xff"])
def test_a_file_is_written_whole_and_nothing_else_is_left(
    tmp_path: Path, data: str | bytes
) -> None:
    with RunDir(tmp_path) as run_dir:
        run_dir.write("file", "a much longer first version")
        run_dir.write("file", data)
    expected = data.encode("utf-8") if isinstance(data, str) else data
    assert (tmp_path / "file").read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", METRICS_FILE]


def test_new_bytes_are_on_disk_before_they_take_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int, bytes]] = []

    def fsync(descriptor: int) -> None:
        synced = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(synced.st_mode)
        size = 0 if is_folder else synced.st_size
        seen.append((is_folder, size, (tmp_path / "file").read_bytes()))

    with RunDir(tmp_path) as run_dir:
        run_dir.write("file", b"old")
        monkeypatch.setattr(os, "fsync", fsync)
        run_dir.write("file", b"longer and new")
    # The bytes, then the name: only after both has a power cut nothing to take.
    new = b"longer and new"
    assert seen == [(False, len(new), b"old"), (True, 0, new)]
    assert (tmp_path / "file").read_bytes() == b"longer and new"


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with RunDir(tmp_path) as run_dir:
        run_dir.write("file", b"old")
        with monkeypatch.context() as patch, pytest.raises(HeteroError, match="No space left"):
            patch.setattr(os, "fsync", full)
            run_dir.write("file", b"new")
        assert (tmp_path / "file").read_bytes() == b"old"
        run_dir.write("file", b"newer")  # the failure does not stand in the way
    assert (tmp_path / "file").read_bytes() == b"newer"


class Disk(io.FileIO):
    """A file on a disk that takes so many bytes, and no more."""

    room = 0

    def write(self, data: Buffer) -> int:
        if self.room == 0:
            raise OSError(28, "No space left on device")
        fits = super().write(bytes(data)[: self.room])
        self.room -= fits
        return fits


def on_a_disk(run_dir: RunDir) -> Disk:
    """Go on writing events there; it is full at first."""
    lines = run_dir._metrics
    lines._file.close()
    disk = Disk(run_dir.path / METRICS_FILE, "ab")
    lines._file = disk
    return disk


def test_a_full_disk_costs_no_event_once_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunDir(tmp_path) as run_dir:
        run_dir.record(WholeRound(0, 0.5))
        size = (tmp_path / METRICS_FILE).stat().st_size
        disk = on_a_disk(run_dir)
        disk.room = size // 2
        for number in range(1, 4):
            run_dir.record(WholeRound(number, 0.5))
        assert (tmp_path / METRICS_FILE).stat().st_size == size + size // 2
        assert [event["round"] for event in read_records(tmp_path)] == [0]
        disk.room = 10 * size
        run_dir.record(WholeRound(4, 0.5))
    assert [event["round"] for event in read_records(tmp_path)] == [0, 1, 2, 3, 4]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_events_that_are_never_written_are_said_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunDir(tmp_path) as run_dir:
        on_a_disk(run_dir)
        run_dir.record(WholeRound(0, 0.5))
    assert read_records(tmp_path) == []
    assert "No space left on device" in caplog.messages[0]
    assert "they are lost" in caplog.messages[1]


def test_a_run_directory_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError) as caught:
        RunDir(tmp_path / "file")
    assert str(caught.value) == f"--run-dir {tmp_path / 'file'} cannot be written: File exists"


def test_with_tensorboard_the_numbers_of_rounds_are_scalars(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunDir(tmp_path, tensorboard=True) as run_dir:
        run_dir.record(Started("run-1"))
        for round_ in range(3):
            run_dir.record(LocalRound("board-1", round_, 2.0 - round_, None))
        run_dir.record(WholeEvaluated(2, 10, accuracy=0.5))
    read = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert sorted(read.Tags()["scalars"]) == ["accuracy", "exit_loss/board-1", "samples"]
    losses = [(event.step, event.value) for event in read.Scalars("exit_loss/board-1")]
    assert losses == [(0, 2.0), (1, 1.0), (2, 0.0)]


def test_without_tensorboard_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingsError, match=r"hetero-splitee\[tensorboard\]"):
        RunDir(tmp_path, tensorboard=True)
