"""A live server under attack: every kind of call with any bytes, and what comes back of it."""

from __future__ import annotations

import queue
import random
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from hetero_common.wire import rpc
from hetero_splitee.v1 import service_pb2 as pb
from support.attacks import GARBAGE, METHODS, Recording, bare_noise, changed, steps_of
from support.commands import ERROR_NAMES
from support.intruder import STEPS, registration

SECONDS = 120
"""Guard against a call that is never answered; DEADLINE_EXCEEDED is no expected status."""
DOCUMENTED = {*rpc.STATUS.values()}
"""What docs/protocol.md has; UNIMPLEMENTED belongs to calls that the service does not have."""
FORBIDDEN = (*ERROR_NAMES, "Traceback", "Exception", ".py", "/", "\n", "hetero_", "torch", "0x")
"""What no sentence of a server of ours holds."""
LONGEST_SENTENCE = 400


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and what was answered before."""

    code: grpc.StatusCode
    sentence: str
    trailing: dict[str, Any]
    answers: list[bytes]


@dataclass
class Attacker:
    """Somebody who says anything at all to a server.

    Attributes:
        channel: To the server.
        recording: What a good client would say.
        ended: How many calls ended with which status.
    """

    channel: grpc.Channel
    address: str
    recording: Recording
    ended: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, channel: grpc.Channel, address: str, name: str) -> Attacker:
        """Look at the server from within a session first, to know what a good client would say."""
        attacker = cls(channel, address, Recording("", b"", name))
        status = pb.GetStatusResponse.FromString(attacker.call("GetStatus", [b""]).answers[0])
        attacker.recording = Recording(status.fingerprint, b"", name)
        session = attacker.registers(name)
        blob = b"".join(
            pb.PullStateResponse.FromString(answer).chunk
            for answer in attacker.call("PullState", [b""], session).answers
        )
        attacker.call("Leave", [b""], session)
        attacker.recording = Recording(status.fingerprint, blob, name)
        return attacker

    def call(self, name: str, messages: Iterable[bytes], session: str | None = None) -> Outcome:
        """One call, with these bytes as its messages; it is checked to end as documented."""
        metadata = None if session is None else ((rpc.SESSION_KEY, session),)
        return self._ending(self._method(name)(iter(messages), metadata=metadata, timeout=SECONDS))

    def _method(self, name: str) -> Any:
        """Takes and gives bytes, as many as one likes, whatever kind of call it is."""
        return self.channel.stream_stream(f"/{rpc.SERVICE.full_name}/{name}")

    def _ending(self, stream: Any) -> Outcome:
        answers = []
        with suppress(grpc.RpcError):
            answers.extend(stream)
        outcome = Outcome(
            stream.code(), stream.details() or "", dict(stream.trailing_metadata() or ()), answers
        )
        self.ended[outcome.code.name] += 1
        require_documented(outcome)
        return outcome

    def registers(self, name: str) -> str:
        """The session of a good registration."""
        request = registration(client_id=name, fingerprint=self.recording.fingerprint)
        outcome = self.call("Register", [request.SerializeToString()])
        return pb.RegisterResponse.FromString(outcome.answers[0]).session

    def leaves_again(self, method: str, outcome: Outcome) -> None:
        """A changed registration can be a good one, of which nothing shall remain."""
        if method == "Register" and outcome.code is grpc.StatusCode.OK:
            session = pb.RegisterResponse.FromString(outcome.answers[0]).session
            self.call("Leave", [b""], session)

    def round(self) -> int:
        """The round that the run is in; -1 before the first."""
        status = pb.GetStatusResponse.FromString(self.call("GetStatus", [b""]).answers[0])
        return -1 if status.phase == "WAITING" else status.round

    # One attack each.

    def attacks_without_a_session(self, draw: random.Random) -> None:
        """A changed recording, or anything at all, with no session or a made-up one."""
        method = draw.choice(METHODS)
        said = draw.choice(METHODS) if draw.random() < 0.2 else method
        session = draw.choice((None, "", "x" * 32, "A" * 4000))
        messages = changed(draw, self.recording.of(said))
        self.leaves_again(method, self.call(method, messages, session))

    def attacks_beside_training(self, draw: random.Random, session: str) -> None:
        """A changed recording of any call but `Train`, within a session that has no stream."""
        method = draw.choice([name for name in METHODS if name not in ("Train", "Leave")])
        messages = changed(draw, self.recording.of(method))
        self.leaves_again(method, self.call(method, messages, session))

    def attacks_in_training(self, draw: random.Random, session: str) -> None:
        """A changed recording of a round that has not begun; whatever happens, garbage ends it."""
        self.call("Train", [*changed(draw, steps_of(0)), GARBAGE], session)

    def attacks_within_a_round(self, draw: random.Random, name: str) -> int:
        """Register, train some steps of the next round well, and go on with a changed recording.

        Garbage is the last of it. Returns how many steps the server has applied.
        """
        outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        session = ((rpc.SESSION_KEY, self.registers(name)),)
        stream = self._method("Train")(iter(outgoing.get, None), metadata=session, timeout=SECONDS)
        answers = map(pb.TrainResponse.FromString, stream)
        start = next(answers).start_round
        beat, *steps = steps_of(start.round)
        good = draw.randrange(STEPS)
        for message in (beat, *steps[:good]):
            outgoing.put(message)
        applied = [next(answers).ack.step for _ in range(good)]
        assert applied == list(range(good))
        for message in (*changed(draw, steps[good:]), GARBAGE):
            outgoing.put(message)
        outcome = self._ending(stream)
        outgoing.put(None)
        assert outcome.code is not grpc.StatusCode.OK, "nobody gets away with garbage"
        return good

    def replays(self, draw: random.Random, dead: str) -> None:
        """A recording word for word, or changed, in a session that has ended."""
        method = draw.choice([name for name in METHODS if name not in ("GetStatus", "Register")])
        messages = self.recording.of(method)
        outcome = self.call(method, draw.choice((messages, changed(draw, messages))), dead)
        assert outcome.code is not grpc.StatusCode.OK, outcome

    def abandons(self, draw: random.Random, session: str | None) -> None:
        """A stream is opened and left without a word, in the middle of what it says."""
        name = draw.choice(("Train", "PushState", "Predict") if session is None else ("PushState",))
        messages = self.recording.of(name)
        metadata = None if session is None else ((rpc.SESSION_KEY, session),)
        said = messages[: draw.randint(0, len(messages))]
        self._method(name)(iter(said), metadata=metadata).cancel()
        self.ended["abandoned"] += 1

    def sends_noise(self, draw: random.Random) -> None:
        """Noise on a connection of its own."""
        host, _, port = self.address.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), SECONDS) as bare:
            bare.sendall(bare_noise(draw))
            if draw.random() < 0.5:  # else it hangs up without listening
                bare.shutdown(socket.SHUT_WR)
                while bare.recv(1 << 16):
                    pass
        self.ended["bare"] += 1


def require_documented(outcome: Outcome) -> None:
    """It ended well, or with a documented status and a sentence that tells of no insides."""
    if outcome.code is grpc.StatusCode.OK:
        return
    assert outcome.code in DOCUMENTED, outcome
    assert set(outcome.trailing) <= {rpc.ERROR_KEY}, outcome
    assert not [word for word in FORBIDDEN if word in outcome.sentence], outcome
    assert len(outcome.sentence) <= LONGEST_SENTENCE, outcome
    assert "its log has the details" not in outcome.sentence, outcome
