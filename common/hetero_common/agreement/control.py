"""What the sides tell each other at round boundaries. Field for field the messages of the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hetero_common.agreement.classwise import class_accuracies


@dataclass(frozen=True)
class StartRound:
    """Server to client: train steps 0..steps-1 of `round`.

    Attributes:
        first_step: Steps below have arrived: they are trained, but not sent again.
        keep_from: The end of a round before this one will never be asked for, that of one in
            between only if it was saved.
        save: The end of this round has to be found again after a restart.
    """

    round: int
    steps: int
    pull_state: bool
    push_state: bool
    first_step: int = 0
    keep_from: int = 0
    save: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Server to client: evaluate after `round`; `last` means on the whole test split."""

    round: int
    pull_state: bool
    last: bool


@dataclass(frozen=True)
class Finish:
    """Server to client: the run is over; save and leave."""

    reason: str


@dataclass(frozen=True)
class RoundDone:
    """Client to server: all steps are acknowledged; exit loss and accuracy in [0, 1], means."""

    round: int
    exit_loss: float
    exit_accuracy: float


LONGEST_CURVE = 101
"""Points that a reported curve may have."""


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold gives: accuracy and share of offloaded images, both in [0, 1]."""

    threshold: float
    accuracy: float
    offload_share: float


@dataclass(frozen=True)
class Evaluation:
    """Client to server: accuracies in [0, 1] over `samples` test images.

    Attributes:
        threshold: Largest uncertainty that the exit may answer at.
        threshold_accuracy: Accuracy when the server answers above the threshold.
        offload_share: Share of images that the server answers then.
        only_server_right: Share of images that the server answers right and the exit does not.
        curve: What other thresholds give, from everything offloaded to nothing; empty if the client
            does not tell, and then `only_server_right` says nothing.
        class_samples: Test images of each class; empty where nothing is told of classes.
        exit_class_right: How many of them the exit answers right; likewise.
        server_class_right: How many of them the server answers right; likewise.
    """

    round: int
    samples: int
    exit_accuracy: float
    server_accuracy: float
    threshold: float
    threshold_accuracy: float
    offload_share: float
    only_server_right: float = 0.0
    curve: tuple[OperatingPoint, ...] = ()
    class_samples: tuple[int, ...] = ()
    exit_class_right: tuple[int, ...] = ()
    server_class_right: tuple[int, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return what is recorded: accuracies per class in place of counts; None if untold."""
        record = asdict(self) | {"curve": self.curve}
        record["class_samples"] = list(self.class_samples) or None
        for side in ("exit", "server"):
            accuracies = class_accuracies(record.pop(f"{side}_class_right"), self.class_samples)
            record[f"{side}_class_accuracy"] = accuracies or None
        return record


Directive = StartRound | Evaluate | Finish
Report = RoundDone | Evaluation
