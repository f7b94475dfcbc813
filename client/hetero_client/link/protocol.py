"""What a client asks of its server, whatever lies between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from hetero_client.link.inbox import Inbox, Outgoing
from hetero_common.agreement.control import Report
from hetero_common.tensors.weights import Weights


@dataclass(frozen=True)
class Registration:
    """What the server grants a client that has registered.

    Attributes:
        credits: Batches that may be unacknowledged.
        base_round: The round whose end the client goes on from; None if it starts anew.
    """

    credits: int
    base_round: int | None


class Link(Protocol):
    """A client's way to one server.

    `hetero_client.link.transport.ServerLink` is one over gRPC. The simulator has one in memory.

    Attributes:
        inbox: What has arrived on the open stream, and what is on its way there; `open` makes a
            new one.
    """

    inbox: Inbox

    @property
    def address(self) -> str:
        """The server's address, for messages to people."""

    @property
    def connect_timeout(self) -> float:
        """Seconds to keep trying to reach a server that is lost."""

    def run_id(self) -> str:
        """Ask which run the server trains.

        Raises:
            ServerUnreachable: Nobody answers.
        """

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
        """Open a session.

        Args:
            client_id: Stable name of this client.
            cut_layer: Its last layer.
            shard_size: Its training images.
            fingerprint: Tells its model from others.
            run_id: The run it was in before, if it was.
            held_rounds: Rounds of that run whose end it can go back to.
            class_counts: Its training images of each class, with logit adjustment.

        Raises:
            HeteroError: The server refuses this client, and says why.
        """

    def open(self) -> None:
        """Open the training stream; directives arrive in a new inbox from now on."""

    def redial(self) -> None:
        """Connect anew, after a connection that has failed; what is on its way is kept."""

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each new try to reach a server that is lost."""

    def wait(self, seconds: float) -> None:
        """Wait before a new try."""

    def send(self, batch: Outgoing) -> None:
        """Put a batch on its way that has taken a credit of the inbox."""

    def report(self, report: Report) -> None:
        """Tell the server that a round or an evaluation is done."""

    def push_state(self, round_: int, packed: Mapping[str, Tensor]) -> None:
        """Send prefix and exits at the end of a round, as the trainer has packed them."""

    def pull_state(self) -> Weights:
        """Get the weights that this client continues with."""

    def predict(
        self,
        activations: Iterator[Tensor],
        *,
        cut_layer: int,
        fingerprint: str,
        deadline: float | None = None,
    ) -> Iterator[Tensor]:
        """Class probabilities (B, classes) of each activation (B, ...), in order.

        Args:
            activations: Consumed lazily.
            cut_layer: Where they were cut.
            fingerprint: Tells the model that they come from.
            deadline: Seconds for the whole call; None for no limit.

        Raises:
            ServerUnreachable: The connection failed or the deadline has passed.
        """

    def traffic(self) -> dict[str, Any]:
        """Count what has been sent and received so far, by the names of docs/runs.md."""

    def leave(self) -> None:
        """End the session for good."""
