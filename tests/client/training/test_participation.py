"""What a client does when it comes back, with a link and a trainer that only remember."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from unittest.mock import Mock, create_autospec

import pytest
import torch

from hetero_client.data.shard import Shard
from hetero_client.exits.rule import DEFAULT_RULE
from hetero_client.link.inbox import Inbox
from hetero_client.link.protocol import Registration
from hetero_client.link.transport import ServerLink
from hetero_client.progress import Progress
from hetero_client.training.checkpointing import Keeping
from hetero_client.training.participation import Identity, Participation
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.control import (
    Directive,
    Evaluate,
    Evaluation,
    Finish,
    RoundDone,
    StartRound,
)
from hetero_common.agreement.plan import Plan
from hetero_common.errors import Mismatch, ServerUnreachable, Superseded, UnknownSession
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import Checkpoint, CheckpointStore
from hetero_common.records.rundir import RunDir

PLAN = Plan(model="tinycnn", width=4, image_size=8, rounds=9)


class Scene:
    """A client whose server would have it go on from the newest round that it holds.

    Attributes:
        seconds: Between states on the disk.
        held: The rounds that were named at each registration.
        directives: What the server says on its streams, one after the other.
    """

    def __init__(self, folder: Path) -> None:
        self.seconds = 0.0
        self.held: list[list[int]] = []
        self.directives: list[Directive] = [Finish("done")]
        self.link: Mock = create_autospec(ServerLink, instance=True)
        self.link.inbox = create_autospec(Inbox, instance=True)
        self.link.connect_timeout, self.link.address = 60.0, "server:1"
        self.link.register.side_effect = self._register
        self.link.inbox.next_directive.side_effect = lambda: self.directives.pop(0)
        self.link.run_id.return_value = "run"
        self.link.pauses.side_effect = lambda: iter([0.0] * 3)
        self.trainer: Mock = create_autospec(PrefixTrainer, instance=True)
        self.trainer.model = Mock(cut_layer=2, fingerprint="model")
        self.trainer.class_counts = ()
        self.trainer.round_done.return_value = RoundDone(3, 0.0, 0.0)
        self.link.traffic.return_value = {}
        self.trainer.checkpoint.return_value = {"x": torch.zeros(1)}
        self.store = CheckpointStore(folder / "checkpoints", "run", "model")
        for round_ in (1, 2):
            self.store.write(Checkpoint(round_, {"x": torch.full((1,), float(round_))}))

    def _register(self, *_: object, held_rounds: Collection[int], **__: object) -> Registration:
        self.held.append(list(held_rounds))
        return Registration(4, max(held_rounds, default=None))

    def damage(self, round_: int) -> None:
        """A bit flips in a file that the store has looked at; its size and time stay."""
        assert round_ in self.store.rounds()
        path = sorted(self.store.folder.iterdir())[round_ - 1]
        status, good = path.stat(), path.read_bytes()
        path.write_bytes(good[:-1] + bytes((good[-1] ^ 1,)))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def play(self, run_dir: RunDir) -> None:
        Participation(
            PLAN,
            Identity("a", "run", 64),
            self.link,
            self.trainer,
            Shard(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64)),
            rule=DEFAULT_RULE,
            eval_samples=10,
            record=run_dir.record,
            states=Keeping(self.store, Cadence(self.seconds)),
            journal=None,
            watchers=[create_autospec(Progress, instance=True)],
        ).run()

    def restored(self) -> list[float]:
        return [float(call.args[0]["x"]) for call in self.trainer.restore.call_args_list]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir(tmp_path / "run") as run_dir:
        yield run_dir


def test_a_client_goes_on_from_where_the_server_says(scene: Scene, run_dir: RunDir) -> None:
    scene.play(run_dir)
    assert (scene.held, scene.restored()) == ([[1, 2]], [2.0])


def test_a_damaged_state_is_not_named_again(
    scene: Scene, run_dir: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    scene.damage(2)
    scene.play(run_dir)
    assert (scene.held, scene.restored()) == ([[1, 2], [1]], [1.0])
    assert "registering again without the state at the end of round 3" in caplog.text


def test_a_client_with_damaged_states_only_starts_anew(scene: Scene, run_dir: RunDir) -> None:
    scene.damage(1)
    scene.damage(2)
    scene.play(run_dir)
    assert (scene.held, scene.restored()) == ([[1, 2], [1], []], [])
    scene.trainer.start_anew.assert_called_once()


def test_a_state_that_turns_out_to_be_damaged_in_a_round_is_done_without(
    scene: Scene, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lacks a batch that is gone here, and the round cannot be begun again either."""
    monkeypatch.setattr("random.uniform", lambda low, high: low)  # waits for nothing
    start = StartRound(3, 0, pull_state=False, push_state=False)
    scene.directives = [start, start, Finish("done")]
    scene.link.inbox.drain.side_effect = UnknownSession("the stream has broken")

    def lacks_one(*_: int) -> None:
        scene.damage(2)

    scene.link.inbox.lacking.side_effect = lacks_one
    scene.play(run_dir)
    assert scene.held == [[1, 2], [1, 2], [1]]
    assert scene.restored() == [2.0, 1.0]


def test_a_connection_that_breaks_costs_no_state_that_is_only_in_memory(
    scene: Scene, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.seconds = 1000.0
    scene.directives = [StartRound(3, 0, pull_state=False, push_state=False), Finish("done")]
    breaks = iter((True, False))

    def next_directive() -> Directive:
        if len(scene.directives) == 1 and next(breaks):
            assert scene.store.rounds() == [1, 2]
            raise ServerUnreachable("gone")
        return scene.directives.pop(0)

    monkeypatch.setattr("random.uniform", lambda low, high: low)  # waits for nothing
    scene.link.inbox.next_directive.side_effect = next_directive
    scene.link.inbox.has_directive = False
    scene.play(run_dir)
    assert scene.held == [[1, 2], [1, 2, 3]]
    assert scene.restored() == [2.0], "it stayed where it was"


def test_who_is_stopped_leaves_its_newest_state(scene: Scene, run_dir: RunDir) -> None:
    scene.seconds = 1000.0
    start = StartRound(3, 0, pull_state=False, push_state=False)
    scene.link.inbox.next_directive.side_effect = [start, KeyboardInterrupt]
    scene.link.inbox.has_directive = False
    with pytest.raises(KeyboardInterrupt):
        scene.play(run_dir)
    assert scene.store.rounds() == [1, 2, 3]


def test_who_is_superseded_leaves_the_states_to_the_newer_process(
    scene: Scene, run_dir: RunDir
) -> None:
    scene.seconds = 1000.0
    start = StartRound(3, 0, pull_state=False, push_state=False)
    scene.link.inbox.next_directive.side_effect = [start, Superseded("a")]
    scene.link.inbox.has_directive = False
    with pytest.raises(Superseded):
        scene.play(run_dir)
    assert scene.store.rounds() == [1, 2]


def test_a_round_that_was_not_named_is_refused(scene: Scene, run_dir: RunDir) -> None:
    scene.link.register.side_effect = lambda *_, **__: Registration(4, 7)
    with pytest.raises(Mismatch, match="a round that this client does not hold"):
        scene.play(run_dir)


def test_a_round_under_way_is_left_for_an_evaluation_that_comes_before_it(
    scene: Scene, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was resumed at the end of the last round, and has all pull its averages again."""
    monkeypatch.setattr("random.uniform", lambda low, high: low)  # waits for nothing
    start = StartRound(3, 1, pull_state=False, push_state=False)
    scene.directives = [start, Evaluate(2, pull_state=True, last=False), Finish("done")]
    scene.link.inbox.has_directive = False
    scene.link.inbox.drain.side_effect = ServerUnreachable("gone")
    order: list[str] = []
    scene.trainer.backward.side_effect = lambda *_: order.append("step")
    scene.trainer.restore.side_effect = lambda _: order.append("restore")
    scene.trainer.pull.side_effect = lambda _: order.append("pull")
    evaluation = Evaluation(2, 10, 0.5, 0.5, 0.5, 0.5, 0.5)
    monkeypatch.setattr(
        "hetero_client.training.participation.evaluate", lambda *_, **__: evaluation
    )
    scene.play(run_dir)
    assert order == ["restore", "step", "restore", "pull"]
