"""A link to an engine in the same process: the same steps, credits and sessions, no network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor

from hetero_client.link.inbox import Condition, Inbox, Outgoing
from hetero_client.link.protocol import Registration
from hetero_common.agreement.control import Evaluation, Report
from hetero_common.errors import HeteroError, ServerUnreachable, UnknownSession
from hetero_common.tensors import codec
from hetero_common.tensors.weights import Weights
from hetero_server.run.engine import Engine
from hetero_server.run.member import Ack, Batch, Member, MemberState

_TRIES = 10


class MemoryLink:
    """A `hetero_client.link.protocol.Link`.

    Args:
        engine: The run.
        run: Its id.
        turn: Waits for what the engine says.
    """

    address = "this process"
    connect_timeout = 0.0

    def __init__(self, engine: Engine, run: str, turn: Condition) -> None:
        self.inbox = Inbox(0, turn)
        self._engine = engine
        self._run = run
        self._turn = turn
        self._credits = 0
        self._member: Member | None = None
        self._is_open = False
        self._sent = self._received = 0

    def run_id(self) -> str:
        """The id of the run."""
        return self._run

    def register(
        self,
        client_id: str,
        cut_layer: int,
        shard_size: int,
        fingerprint: str,
        *,
        run_id: str = "",
        held_rounds: Collection[int] = (),
        class_counts: Collection[int] = (),
    ) -> Registration:
        """Open a session; see `Link.register`."""
        held = held_rounds if run_id == self._run else ()
        counts = tuple(class_counts)
        self._member = self._engine.register(client_id, cut_layer, shard_size, held, counts)
        self._credits = self._engine.credits
        return Registration(self._credits, self._member.base)

    def open(self) -> None:
        """Take part: directives arrive in a new inbox from now on."""
        unacknowledged = self.inbox.unacknowledged()
        self._received += self.inbox.bytes_returned
        self.inbox = Inbox(self._credits, self._turn)
        self.inbox.carry_over(unacknowledged)
        self._is_open = True
        self._own.outbox.wake = self._deliver
        self._engine.attach(self._own.client_id)

    def redial(self) -> None:
        """There is nothing to connect."""

    def pauses(self) -> Iterator[float]:
        """Turns to wait before each new try."""
        yield from range(1, _TRIES + 1)

    def wait(self, seconds: float) -> None:
        """Wait for as many turns."""
        left = int(seconds)

        def is_over() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        with self._turn:
            self._turn.wait_for(is_over)

    def send(self, batch: Outgoing) -> None:
        """Hand a batch to the engine; on a broken link it is lost."""
        self._sent += batch.payload.data.nbytes
        if not self._is_open:
            return
        client_id, labels = self._own.client_id, batch.labels.tolist()
        self._engine.admit(client_id, batch.round, batch.step, labels, batch.payload.shape[0])
        self._engine.submit(client_id, Batch(batch.round, batch.step, batch.payload, labels))

    def report(self, report: Report) -> None:
        """Tell the engine that a round or an evaluation is done; on a broken link it is lost."""
        if not self._is_open:
            return
        if isinstance(report, Evaluation):
            self._engine.evaluated(self._own.client_id, report)
        else:
            self._engine.round_done(self._own.client_id, report)

    def push_state(self, round_: int, packed: Mapping[str, Tensor]) -> None:
        """Hand over prefix and exits."""
        self._require_open()
        weights = self._engine.shared.unpack(self._own.cut_layer, packed)
        self._engine.push(self._own.client_id, round_, weights)
        self._sent += self._engine.shared.pushed_bytes(self._own.cut_layer)

    def pull_state(self) -> Weights:
        """The weights to continue with."""
        self._require_open()
        self._received += self._engine.shared.pulled_bytes(self._own.cut_layer)
        return self._engine.pull(self._own)

    def predict(
        self,
        activations: Iterator[Tensor],
        *,
        cut_layer: int,
        fingerprint: str,
        deadline: float | None = None,
    ) -> Iterator[Tensor]:
        """Class probabilities (B, classes) of each activation (B, ...), as it would arrive."""
        self._require_open()
        member, wire = self._own, self._engine.plan.wire
        for activation in activations:
            arrived = codec.round_trip(activation, wire)
            answer = self._engine.predict(arrived, cut_layer, member.client_id)
            asked = codec.payload_bytes(tuple(activation.shape), wire)
            member.traffic.predicted(asked, answer.nbytes)
            self._sent += asked
            self._received += answer.nbytes
            yield answer

    def traffic(self) -> dict[str, int]:
        """Return what would have travelled so far, by the names of docs/runs.md."""
        received = self._received + self.inbox.bytes_returned
        return {"bytes_sent": self._sent, "bytes_received": received}

    def leave(self) -> None:
        """End the session for good."""
        self._engine.detach(self._own.client_id, MemberState.LEFT)

    def lose(self) -> None:
        """Break, as a connection does, until it is opened again."""
        self._is_open = False
        self._own.outbox.wake = lambda: None
        if self._engine.members.get(self._own.client_id) is self._own:
            self._engine.detach(self._own.client_id, MemberState.STALE)
        self.inbox.fail(ServerUnreachable("the link in memory broke"))

    def _require_open(self) -> None:
        if not self._is_open:
            raise UnknownSession("this session has ended: register again")

    @property
    def _own(self) -> Member:
        assert self._member is not None, "a client registers first"
        return self._member

    def _deliver(self) -> None:
        outbox = self._own.outbox
        while outbox:
            match outbox.popleft():
                case Ack() as ack:
                    self.inbox.acknowledge(ack.round, ack.step, ack.feedback)
                case HeteroError() as error:
                    self._is_open = False
                    self.inbox.fail(error)
                case directive:
                    self.inbox.direct(directive)
