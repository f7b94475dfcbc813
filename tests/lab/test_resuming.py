"""A simulated run that was killed goes on, and ends as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_common.records import rundir
from hetero_common.records.checkpoints import CHECKPOINTS
from hetero_common.records.events import Event
from hetero_common.records.history import read_records
from hetero_common.records.rundir import RunDir
from hetero_lab.__main__ import main
from hetero_lab.methods import METHODS
from hetero_lab.reading.reader import read_run
from lab.test_simulation import SMALL, weight_files

if TYPE_CHECKING:
    from conftest import Simulate

FLAGS = (
    *(*SMALL, "--clients", "2", "--rounds", "4", "--eval-every", "2"),
    *("--checkpoint-seconds", "0"),
)
KILLED_AFTER = {"fedavg-prefix": (2, 6), "centralized": (2, 3), "fedavg": (2, 3)}
"""Events `round` before each kill; where it is not named, both clients have one of each round."""


class Killed(Exception):
    """No handler of ours takes it."""


class Killer:
    """Ends the process after so many events `round`, unless it is asked for none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.weapon: type[BaseException] = Killed
        record = RunDir.record

        def count(run_dir: RunDir, event: Event) -> None:
            record(run_dir, event)
            if event.kind == "round":
                self.left -= 1
                if self.left == 0:
                    raise self.weapon

        monkeypatch.setattr(RunDir, "record", count)


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


def flags_of(method: str) -> tuple[str, ...]:
    cuts = "2,3" if method in ("split", "isolated", "fedavg-prefix") else "3"
    return (*FLAGS, "--method", method, "--cut-layers", cuts)


@pytest.mark.parametrize("method", METHODS.names())
def test_a_killed_run_ends_as_if_it_had_not_been(
    method: str, simulate: Simulate, killer: Killer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    whole, flags = simulate(*flags_of(method)), ["--run-dir", str(run)]
    for killer.left in KILLED_AFTER.get(method, (3, 4)):
        with pytest.raises(Killed):
            main([*flags_of(method), *flags] if flags else ["--resume", str(run)])
        flags = []
        assert (run / CHECKPOINTS).is_dir()
    assert main(["--resume", str(run)]) == 0
    assert weight_files(run) == weight_files(whole) != {}
    resumed, never = read_run(run), read_run(whole)
    assert resumed.participants == never.participants
    assert resumed.is_finished
    assert not (run / CHECKPOINTS).exists()
    assert [event["event"] for event in read_records(run)].count("started") == 3


@pytest.fixture
def unfinished(killer: Killer, tmp_path: Path) -> Path:
    killer.left = 1
    with pytest.raises(Killed):
        main([*flags_of("split"), "--run-dir", str(tmp_path / "run")])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--clients", "3"), "--clients is 2 in the run of {} and cannot be changed: leave"),
        (("--seed", "1"), "--seed is 0 in the run of {} and cannot be changed: leave --seed out"),
        (("--method", "isolated"), "--method is split in the run of {} and cannot be changed"),
    ],
    ids=["clients", "seed", "method"],
)
def test_what_the_result_depends_on_can_not_be_changed(
    flags: tuple[str, ...], sentence: str, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--resume", str(unfinished), *flags]) == 2
    assert sentence.format(unfinished) in capsys.readouterr().err
    assert main(["--resume", str(unfinished), "--log-level", "error"]) == 0


def test_a_run_that_was_killed_before_its_first_round_begins_anew(
    killer: Killer, unfinished: Path, simulate: Simulate
) -> None:
    assert not list((unfinished / CHECKPOINTS).glob("*/round*"))
    assert main(["--resume", str(unfinished)]) == 0
    assert weight_files(unfinished) == weight_files(simulate(*flags_of("split")))


def test_whoever_stops_a_run_is_told_how_to_go_on(
    killer: Killer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killer.left, killer.weapon = 1, KeyboardInterrupt
    run = tmp_path / "run"
    assert main([*flags_of("split"), "--run-dir", str(run)]) == 130
    assert f"go on later with --resume {run}" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["split", "isolated"])
def test_a_full_disk_stops_no_run_before_its_end(
    method: str, simulate: Simulate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    whole, run = simulate(*flags_of(method)), tmp_path / "run"
    monkeypatch.setattr("hetero_common.records.checkpoints.write_whole", full)
    assert main([*flags_of(method), "--run-dir", str(run)]) == 0
    assert weight_files(run) == weight_files(whole)


def test_weights_that_can_not_be_written_are_in_a_checkpoint(
    simulate: Simulate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    write_whole = rundir.write_whole

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".safetensors":
            raise OSError(28, "No space left on device")
        write_whole(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(rundir, "write_whole", full)
        assert main([*flags_of("split"), "--run-dir", str(run)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be written (No space left on device): make room" in last
    assert main(["--resume", str(run)]) == 0
    assert weight_files(run) == weight_files(simulate(*flags_of("split")))


def test_a_finished_run_is_not_resumed(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(*flags_of("centralized"))
    before = weight_files(run)
    assert main(["--resume", str(run)]) == 2
    assert f"{run} holds no unfinished run: leave --resume out" in capsys.readouterr().err
    assert weight_files(run) == before


def test_a_directory_that_is_used_again_does_not_go_on_with_what_was_there(
    unfinished: Path, killer: Killer, simulate: Simulate
) -> None:
    killer.left = 6
    flags = [*flags_of("split"), "--run-dir", str(unfinished)]
    with pytest.raises(Killed):
        main(flags)
    flags += ["--seed", "3"]
    assert main(flags) == 0
    assert weight_files(unfinished) == weight_files(simulate(*flags_of("split"), "--seed", "3"))
