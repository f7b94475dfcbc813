"""A server that trains, and attackers that say anything at all to it meanwhile.

What an attacker can change depends on how far it comes:

- whoever has no session, or one without a training stream, changes nothing: with the order
  `interleaved`, all weights are those of the run without it, bit for bit;
- whoever joins a round and breaks the protocol is sent away, and with `averaging` that round and
  all others end as if it had never been there. (With `sequential` its good batches have reached
  the shared model by then; and an order looks at who takes part.)

In both, every refused call ends with a documented status and one harmless sentence, no process
fails, and the server's memory stays what it was.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hetero_common.records.rundir import MODEL_FILE
from support.attacks import call_of
from support.chaos_fleet import bits
from support.commands import LOG_LINE, SMALL
from support.hostile_load import Attacker
from support.intruder import BATCH, DATA, STEPS

if TYPE_CHECKING:
    from chaos.conftest import Launch, Process
    from conftest import Simulate

CUTS = (2, 3)
AGREED = (
    *(*SMALL, "--batch-size", str(BATCH), "--steps-per-round", str(STEPS)),
    *("--wire", "fp32"),  # attackers write their batches by hand
)
INTERLEAVED = ("--order", "interleaved")
AVERAGING = ("--strategy", "averaging", "--client-aggregation", "round", "--eval-every", "7")
UNLIMITED = (
    *("--max-registrations", "1000000", "--max-registrations-per-client", "1000000"),
    *("--max-calls-per-client", "1000"),
)
"""Limits have tests of their own; here they would keep the attacks out."""
GROWTH = 0.05
"""Of the server's memory, at most."""
_LOOK_EVERY = 10  # attacks


@dataclass(frozen=True)
class Scale:
    """How much: rounds of the run, generated calls before it, attacks (at least) beside it."""

    rounds: int
    generated: int
    attacks: int


SCALES = [
    pytest.param(Scale(16, 60, 300), id="few"),
    pytest.param(
        Scale(400, 2000, 20_000),
        id="many",
        marks=(pytest.mark.slow, pytest.mark.timeout(600)),
    ),
]


class AttackedRun:
    """A server, two honest clients, and an attacker."""

    def __init__(
        self, launch: Launch, folder: Path, stack: ExitStack, scale: Scale, agreed: tuple[str, ...]
    ) -> None:
        self.scale = scale
        self.folder = folder
        self._launch, self._stack = launch, stack
        self._clients: list[Process] = []
        self._held = False
        flags = (*agreed, "--rounds", str(scale.rounds), "--patience", "600")
        run = ("--clients", str(len(CUTS)), "--run-dir", str(folder / "server"))
        listen = ("--listen", "127.0.0.1:0", *UNLIMITED)
        self.server = stack.enter_context(launch("hetero-server", *listen, *run, *flags))
        self.channel = stack.enter_context(grpc.insecure_channel(self.server.address))
        self.attacker = Attacker.of(self.channel, self.server.address, "stranger")

    def begin(self) -> None:
        """Let the honest clients come, and train for a while."""
        for number, cut in enumerate(CUTS, start=1):
            flags = (
                *("--server", self.server.address, "--cut-layer", str(cut), *DATA),
                *("--client-id", f"client-{number}", "--shard", f"{number}/{len(CUTS)}"),
                *("--run-dir", str(self.folder / f"client-{number}")),
            )
            self._clients.append(self._stack.enter_context(self._launch("hetero-client", *flags)))
        self.wait_for_round(2)

    def wait_for_round(self, number: int) -> None:
        while self.attacker.round() < number:
            time.sleep(0.02)

    def draws(self) -> Iterator[random.Random]:
        """One draw for each attack, while the run goes on beside them.

        The run gets on with the attacks, since a client is stopped whenever it is ahead of them:
        it trains from the first to the last, and is over after them.
        """
        first = self.attacker.round()
        for number in range(self.scale.attacks):
            yield random.Random(f"attack {number}")
            if number % _LOOK_EVERY == 0:
                span = 0.8 * self.scale.rounds - first
                self._hold(self.attacker.round() > first + span * number / self.scale.attacks)
        self._hold(False)

    def _hold(self, is_ahead: bool) -> None:
        if is_ahead != self._held:
            self._clients[-1].signal(signal.SIGSTOP if is_ahead else signal.SIGCONT)
            self._held = is_ahead

    @property
    def memory(self) -> int:
        """Bytes of the server's memory."""
        return int(psutil.Process(self.server.pid).memory_info().rss)

    def require_same(self, undisturbed: Path) -> None:
        """All end well, with these weights, and the server's log has refusals and no failure."""
        for process in self._clients:
            assert process.finish().code == 0
        done = self.server.finish()
        assert done.code == 0
        log = done.stderr.splitlines()
        assert all(LOG_LINE.match(line) for line in log)
        assert not [line for line in log if " ERROR " in line or "fault" in line]
        assert bits(self.folder / "server" / MODEL_FILE) == bits(undisturbed / MODEL_FILE)
        for number in range(1, len(CUTS) + 1):
            name = f"client-{number}"
            ours = bits(self.folder / name / MODEL_FILE)
            assert ours == bits(undisturbed / f"{name}.safetensors")


@contextmanager
def attacked_run(launch: Launch, folder: Path, scale: Scale, *flags: str) -> Iterator[AttackedRun]:
    with ExitStack() as stack:
        yield AttackedRun(launch, folder, stack, scale, (*AGREED, *flags))


def undisturbed_run(simulate: Simulate, scale: Scale, *flags: str) -> Path:
    cuts = ("--clients", str(len(CUTS)), "--cut-layers", ",".join(map(str, CUTS)))
    return simulate(*cuts, *AGREED, *flags, "--rounds", str(scale.rounds), *DATA)


def say_anything(attacker: Attacker, examples: int) -> None:
    """Messages generated from their descriptors, by nobody or in a session of their own."""

    @settings(
        max_examples=examples,
        phases=(Phase.generate,),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(call_of(), st.booleans())
    def say(call: tuple[str, list[bytes]], in_session: bool) -> None:
        method, messages = call
        session = attacker.registers("inner") if in_session else None
        attacker.leaves_again(method, attacker.call(method, messages, session))

    say()


def attack_from_outside(attacker: Attacker, draw: random.Random, session: str, dead: str) -> None:
    match draw.randrange(6):
        case 0 | 1:
            attacker.attacks_without_a_session(draw)
        case 2:
            attacker.attacks_beside_training(draw, session)
        case 3:
            attacker.replays(draw, dead)
        case 4:
            attacker.abandons(draw, draw.choice((None, session)))
        case _:
            attacker.sends_noise(draw)


@pytest.mark.parametrize("scale", SCALES)
def test_who_has_no_place_in_a_round_changes_nothing(
    scale: Scale, launch: Launch, simulate: Simulate, tmp_path: Path
) -> None:
    with attacked_run(launch, tmp_path, scale, *INTERLEAVED) as run:
        attacker = run.attacker
        # Before the first round streams are attacked too: one is too few for a round to begin.
        say_anything(attacker, scale.generated)
        for number in range(scale.generated // 2):
            attacker.attacks_in_training(random.Random(number), attacker.registers("inner"))
        session, dead = attacker.registers("stranger"), attacker.registers("gone")
        attacker.call("Leave", [b""], dead)
        run.begin()
        alone = run.memory
        run.wait_for_round(scale.rounds // 8)
        before = run.memory
        for draw in run.draws():
            attack_from_outside(attacker, draw, session, dead)
        after = run.memory
        figures = f"memory {alone >> 20} {before >> 20} {after >> 20} MiB, {dict(attacker.ended)}"
        print(figures)
        assert after <= (1 + GROWTH) * before, figures
        run.require_same(undisturbed_run(simulate, scale, *INTERLEAVED))


@pytest.mark.slow
def test_who_joins_a_round_and_is_sent_away_leaves_no_trace(
    launch: Launch, simulate: Simulate, tmp_path: Path
) -> None:
    scale = Scale(rounds=500, generated=0, attacks=200)
    with attacked_run(launch, tmp_path, scale, *AVERAGING) as run:
        attacker = run.attacker
        run.begin()
        before = run.memory
        attacks = applied = 0
        while attacker.round() < 0.8 * scale.rounds:
            draw = random.Random(f"round {attacks}")
            applied += attacker.attacks_within_a_round(draw, draw.choice(("a", "b", "c")))
            attacks += 1
        after = run.memory
        figures = f"memory {before >> 20} {after >> 20} MiB, {attacks} attacks, {applied} steps"
        print(figures)
        assert attacks >= scale.attacks, "each takes a round or two"
        assert applied >= scale.attacks // 2, "many have trained before they were sent away"
        assert after <= (1 + GROWTH) * before, figures
        run.require_same(undisturbed_run(simulate, scale, *AVERAGING))
