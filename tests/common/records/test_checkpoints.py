from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from hetero_common.records import checkpoints
from hetero_common.records.checkpoints import (
    BEFORE_FIRST,
    Checkpoint,
    CheckpointStore,
    nested,
    owner_of,
    within,
)


def a_store(folder: Path, run: str = "run", fingerprint: str = "model") -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", run, fingerprint)


def at(round_: int) -> Checkpoint:
    tensors = {"weights/a b": torch.full((3, 2), float(round_)), "count": torch.tensor(round_)}
    return Checkpoint(round_, tensors, {"members": [{"id": "ä", "round": round_}]})


def files(store: CheckpointStore) -> list[Path]:
    return sorted(store.folder.iterdir())


@pytest.mark.parametrize("round_", [BEFORE_FIRST, 0, 12, 123456])
def test_a_checkpoint_comes_back_as_it_was(round_: int, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(at(round_))
    back = store.newest()
    assert back is not None
    assert (back.round, back.record) == (round_, at(round_).record)
    for name, tensor in at(round_).tensors.items():
        assert torch.equal(back.tensors[name], tensor)
        assert back.tensors[name].dtype == tensor.dtype


def test_tensors_that_share_their_memory_are_kept_like_others(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    store = a_store(tmp_path)
    store.write(Checkpoint(0, {"a": shared, "b": shared, "c": shared[:2]}))
    back = store.newest()
    assert back is not None
    assert [back.tensors[name].tolist() for name in "abc"] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1]]


def test_rounds_are_found_and_pruned(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    assert (store.rounds(), store.newest()) == ([], None)
    for round_ in (BEFORE_FIRST, 0, 1, 5, 10):
        store.write(at(round_))
    assert store.rounds() == [BEFORE_FIRST, 0, 1, 5, 10]
    found = store.load(5)
    assert found is not None
    assert found.round == 5
    assert store.load(6) is None
    store.prune(1)
    assert store.rounds() == [1, 5, 10]
    assert store.keep_newest(2) == 5
    assert store.rounds() == [5, 10]


def test_a_round_that_is_repeated_has_one_checkpoint(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(at(3))
    store.write(Checkpoint(3, {"x": torch.ones(1)}))
    assert len(files(store)) == 1
    back = store.newest()
    assert back is not None
    assert list(back.tensors) == ["x"]


@pytest.mark.parametrize("damage", ["cut short", "one bit", "emptied", "other text"])
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = a_store(tmp_path)
    store.write(at(1))
    store.write(at(2))
    newest = files(store)[-1]
    data = bytearray(newest.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 1
    kept = {"cut short": data[:-7], "one bit": data, "emptied": b"", "other text": b"hello"}
    newest.write_bytes(bytes(kept[damage]))
    back = store.newest()
    assert back is not None
    assert back.round == 1
    (record,) = caplog.records
    assert record.getMessage() == f"checkpoint {newest} is not used: it is cut short or damaged"


def count_reads(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on, as they are read."""
    reads: list[str] = []
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    return reads


def test_rounds_are_found_without_reading_a_file_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    reads = count_reads(store, monkeypatch)
    store.write(at(1))
    assert (store.rounds(), reads) == ([1], []), "it has been written just now"
    later = a_store(tmp_path)
    assert (later.rounds(), later.rounds()) == ([1], [1])
    assert len(reads) == 1
    store.write(at(2))
    assert later.rounds() == [1, 2]
    assert len(reads) == 2


def test_a_checkpoint_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(at(1))
    assert store.rounds() == [1]
    (path,) = files(store)
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    assert store.rounds() == []
    path.write_bytes(good)
    assert store.rounds() == [1]


def test_damage_that_leaves_no_trace_is_found_when_it_matters(tmp_path: Path) -> None:
    """A bit that flips on the disk changes neither the size of a file nor its time."""
    store = a_store(tmp_path)
    store.write(at(1))
    store.write(at(2))
    path = files(store)[-1]
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.rounds() == [1, 2]
    assert store.load(2) is None
    assert store.rounds() == [1], "from now on it is known"


def test_a_checkpoint_of_another_run_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a_store(tmp_path, run="yesterday").write(at(7))
    a_store(tmp_path, fingerprint="wider").write(at(8))
    store = a_store(tmp_path)
    store.write(at(1))
    with caplog.at_level(logging.WARNING):
        assert store.rounds() == [1]
    assert caplog.records == [], "that a directory is used again is no news"


def test_a_disk_that_is_full_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    store.write(at(1))
    before = [(path.name, path.read_bytes()) for path in files(store)]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write(at(2))
    assert [(path.name, path.read_bytes()) for path in files(store)] == before


def test_the_owner_is_that_of_the_newest_whole_file(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    assert owner_of(store.folder) is None
    store.write(at(1))
    a_store(tmp_path, run="later").write(at(2))
    assert owner_of(store.folder) == "later"
    files(store)[-1].write_bytes(b"")
    assert owner_of(store.folder) == "run"


def test_what_is_nested_comes_out_again() -> None:
    inner = {"x": torch.ones(1), "y/z": torch.zeros(1)}
    outer = nested("a", inner) | nested("ab", {"x": torch.zeros(2)})
    assert within("a", outer) == inner
    assert list(within("ab", outer)) == ["x"]
    assert within("b", outer) == {}
    assert checkpoints.CHECKPOINTS == "checkpoints"
