"""A run as reports see it: plain values, whoever has recorded them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hetero_common.agreement.control import OperatingPoint
from hetero_common.agreement.plan import Plan
from hetero_lab.method import METHODS, Method

ByClass = tuple[float | None, ...]
"""A share of the images of each class, in the order of the labels; empty if it was not recorded."""


class Source(enum.Enum):
    """Who has recorded a run."""

    SERVER = "server"
    CLIENT = "client"
    SIMULATOR = "simulator"


@dataclass(frozen=True)
class TransferredBytes:
    """Payload bytes between one client and its server since the run began.

    Attributes:
        sent: By the client: activations of training batches, and weights.
        received: By the client: feedback, and weights.
    """

    sent: int
    received: int

    @property
    def total(self) -> int:
        """Both ways."""
        return self.sent + self.received

    def __add__(self, other: TransferredBytes) -> TransferredBytes:
        return TransferredBytes(self.sent + other.sent, self.received + other.received)


@dataclass(frozen=True)
class Curve:
    """What offloading gives, on the images of one evaluation.

    Attributes:
        points: What thresholds on the uncertainty give, two at least, by rising thresholds.
        only_server_right: Share of images that the server answers right and the exit does not.
    """

    points: tuple[OperatingPoint, ...]
    only_server_right: float


@dataclass(frozen=True)
class Measurement:
    """Accuracies at the end of a round, in [0, 1]; None where nothing of the kind was measured.

    Attributes:
        round: Counted from 0.
        exit: Of the exit alone.
        server: Of the server alone, or of an undivided model.
        payload: What had travelled by then.
        samples: Images that it was measured on.
        threshold: Uncertainty up to which the exit answers.
        combined: Of both together at this threshold.
        offload_share: Share of images that the server answers then.
        curve: What other thresholds give.
        exit_classes: As `exit`, of each class; None for a class without images.
        server_classes: Likewise as `server`.
    """

    round: int
    exit: float | None
    server: float | None
    payload: TransferredBytes | None
    samples: int | None = None
    threshold: float | None = None
    combined: float | None = None
    offload_share: float | None = None
    curve: Curve | None = None
    exit_classes: ByClass = ()
    server_classes: ByClass = ()


@dataclass(frozen=True)
class Participant:
    """A client; or, where there are no clients to tell apart, what they train together.

    Attributes:
        cut_layer: None for an undivided model.
        images: Its training images.
        steps: How many were applied to the server model.
        training: Of each round, on the training images.
        tests: Of each evaluation, on test images.
        payload: All that has travelled.
    """

    name: str
    cut_layer: int | None
    images: int | None
    steps: int | None
    training: tuple[Measurement, ...]
    tests: tuple[Measurement, ...]
    payload: TransferredBytes | None

    @property
    def last(self) -> Measurement | None:
        """Its last evaluation."""
        return self.tests[-1] if self.tests else None


@dataclass(frozen=True)
class Incident:
    """Something out of the ordinary.

    Attributes:
        seconds: Since the run began.
        round: Counted from 0, if it is of one.
        client: Whom it is about, if it is about one.
        what: In words.
    """

    seconds: float
    round: int | None
    client: str | None
    what: str


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        name: Of the directory, with the one it is in.
        method: What was trained, such as `sequential`, `centralized` or `fedavg`.
        settings: As its command has written them down.
        participants: By cut layer and name.
        versions: Of hetero-splitee and torch, as far as they were recorded.
        started: Seconds since 1970, UTC.
        seconds: From the first event to the last.
        notes: What the reader of its numbers must know, in sentences.
    """

    name: str
    source: Source
    method: str
    plan: Plan
    settings: Mapping[str, Any]
    participants: tuple[Participant, ...]
    incidents: tuple[Incident, ...]
    versions: Mapping[str, str]
    started: float
    seconds: float
    is_finished: bool
    notes: tuple[str, ...]

    @property
    def rounds(self) -> int:
        """The number of rounds that have closed."""
        done = [m.round for p in self.participants for m in (*p.training, *p.tests)]
        return max(done, default=-1) + 1

    @property
    def has_clients(self) -> bool:
        """Whether its participants are clients."""
        return self.about.has_clients

    @property
    def about(self) -> Method:
        """The method of the run; `method` names a strategy where that is split training."""
        name = self.method if self.method in METHODS.names() else "split"
        return METHODS[name]
