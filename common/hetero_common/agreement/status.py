"""How a run stands, as one value: what GetStatus answers, and what pages and tables show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemberStatus:
    """How one client stands; field for field the message of the same name.

    Attributes:
        state: Name of its `MemberState`.
        shard_size: Its training images.
        samples: Of them, and again in each pass, what the server has trained on.
        samples_per_second: Over its last rounds; None before there are two.
        bytes_received: Payload that came from it, since it registered.
        bytes_sent: Payload that it was sent, likewise.
        silent_seconds: Since the last sign of life; None if there was none.
        queued: Batches of it that wait for their step.
        exit_accuracy: At its last evaluation, in [0, 1]; None before it. So are the others.
        server_accuracy: Likewise, of the server on its test images.
        threshold_accuracy: Likewise, of both together at its threshold.
        offload_share: Likewise, share of images that the server answers then.
    """

    client_id: str
    cut_layer: int
    state: str
    shard_size: int
    samples: int
    samples_per_second: float | None
    bytes_received: int
    bytes_sent: int
    silent_seconds: float | None
    queued: int
    exit_accuracy: float | None = None
    server_accuracy: float | None = None
    threshold_accuracy: float | None = None
    offload_share: float | None = None


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        phase: Name of its `Phase`.
        round: The current one, counted from 0.
        rounds: How many there will be.
        seconds_left: At the pace of the last rounds; None while nobody knows.
        saved_seconds: Since the last checkpoint was written; None before the first.
        members: The clients, by cut layer and id.
    """

    run_id: str
    phase: str
    strategy: str
    model: str
    round: int
    rounds: int
    seconds_left: float | None
    saved_seconds: float | None
    members: tuple[MemberStatus, ...] = ()
