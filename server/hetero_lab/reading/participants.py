"""Who took part in a run, and what was measured of each one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hetero_common.agreement.steps import steps_from_text
from hetero_common.records.events import (
    DeviceEvaluated,
    DeviceJoined,
    DeviceRound,
    Evaluated,
    Event,
    Joined,
    LocalEvaluated,
    LocalRound,
    RoundClosed,
    WholeEvaluated,
    WholeRound,
)
from hetero_common.records.history import Recorded, surviving
from hetero_lab.reading.run import ByClass, Curve, Measurement, Participant, TransferredBytes

Value = TypeVar("Value")
Trained = RoundClosed | DeviceRound | LocalRound | WholeRound
Tested = Evaluated | DeviceEvaluated | LocalEvaluated | WholeEvaluated


@dataclass
class _History:
    """What survives of one participant.

    Attributes:
        before: What had travelled when it joined anew, or as another process: both count from 0.
    """

    name: str
    cut_layer: int | None = None
    images: int | None = None
    steps: dict[int, int] = field(default_factory=dict)
    training: dict[int, Measurement] = field(default_factory=dict)
    tests: dict[int, Measurement] = field(default_factory=dict)
    before: TransferredBytes = field(default_factory=lambda: TransferredBytes(0, 0))

    @property
    def payload(self) -> TransferredBytes | None:
        """All that has travelled, by what was measured last; an evaluation follows its round."""
        measured = (*self.training.values(), *self.tests.values())
        last = max(measured, key=lambda m: (m.round, m.samples is not None), default=None)
        return last.payload if last else None

    def join(self, event: Joined | DeviceJoined) -> None:
        self.cut_layer, self.images = event.cut_layer, event.shard_size or self.images
        self.before = self.payload or self.before

    def participant(self) -> Participant:
        return Participant(
            self.name,
            self.cut_layer,
            self.images,
            sum(self.steps.values()) if self.steps else None,
            tuple(measurement for _, measurement in sorted(self.training.items())),
            tuple(measurement for _, measurement in sorted(self.tests.items())),
            self.payload,
        )


class _Histories:
    """All participants of a run, by name."""

    def __init__(self, has_trained_exits: bool) -> None:
        self._has_trained_exits = has_trained_exits
        self._own = ""
        self._all: dict[str, _History] = {}

    def take(self, event: Event) -> None:
        """Note one event.

        Raises:
            ValueError: A client has recorded it that has never joined.
        """
        match event:
            case Joined() | DeviceJoined():
                self._own = event.client
                self._of(event.client).join(event)
            case RoundClosed() | DeviceRound() | LocalRound() | WholeRound():
                self._train(event)
            case Evaluated() | DeviceEvaluated() | LocalEvaluated() | WholeEvaluated():
                self._test(event)

    def participants(self) -> tuple[Participant, ...]:
        """All participants, sorted by cut layer and name; numbers in names count as numbers."""
        found = [history.participant() for history in self._all.values()]
        return tuple(sorted(found, key=lambda p: (p.cut_layer or 0, _natural(p.name))))

    def _of(self, name: str) -> _History:
        return self._all.setdefault(name, _History(name))

    def _named(self, event: Trained | Tested) -> _History:
        """A client does not name itself in its own events; some methods have no clients."""
        cut_layer = getattr(event, "cut_layer", None)
        match event:
            case DeviceRound() | DeviceEvaluated():
                if not self._own:
                    raise ValueError("it has never joined")
                return self._of(self._own)
            case WholeRound() | WholeEvaluated():
                name = "whole model" if cut_layer is None else f"averaged prefix {cut_layer}"
            case _:
                name = event.client
        history = self._of(name)
        history.cut_layer = cut_layer or history.cut_layer
        return history

    def _train(self, event: Trained) -> None:
        history, exit_, server = self._named(event), None, None
        match event:
            case RoundClosed():
                exit_, server = event.exit_train_accuracy, event.server_train_accuracy
                if event.applied:
                    history.steps[event.round] = len(steps_from_text(event.applied))
            case DeviceRound() | LocalRound():
                exit_ = event.exit_accuracy
        payload = _with_earlier(history, event)
        history.training[event.round] = Measurement(event.round, self._exit(exit_), server, payload)

    def _test(self, event: Tested) -> None:
        history = self._named(event)
        history.tests[event.round] = Measurement(
            round=event.round,
            payload=_with_earlier(history, event),
            samples=event.samples,
            **{"exit": None, "server": None, **self._answers(event)},
        )

    def _answers(self, event: Tested) -> dict[str, Any]:
        """Accuracies of an evaluation, as far as there are any."""
        match event:
            case WholeEvaluated(cut_layer=None):
                return _of_server(event.accuracy, event.class_accuracy)
            case WholeEvaluated():  # an averaged prefix answers from its exit
                return self._of_exit(event.accuracy, event.class_accuracy)
            case LocalEvaluated():
                return self._of_exit(event.exit_accuracy, event.exit_class_accuracy)
        return {
            **_of_server(event.server_accuracy, event.server_class_accuracy),
            **self._of_exit(event.exit_accuracy, event.exit_class_accuracy),
            "threshold": self._exit(event.threshold),
            "combined": self._exit(event.threshold_accuracy),
            "offload_share": self._exit(event.offload_share),
            "curve": self._exit(_curve(event)),
        }

    def _of_exit(self, accuracy: float | None, by_class: ByClass | None) -> dict[str, Any]:
        return {"exit": self._exit(accuracy), "exit_classes": self._exit(by_class) or ()}

    def _exit(self, value: Value | None) -> Value | None:
        """Return what an exit has a part in, or None where the exit was not trained."""
        return value if self._has_trained_exits else None


def _of_server(accuracy: float | None, by_class: ByClass | None) -> dict[str, Any]:
    return {"server": accuracy, "server_classes": by_class or ()}


def _with_earlier(history: _History, event: Trained | Tested) -> TransferredBytes | None:
    """Return what had travelled by an event, with what processes before this one had sent."""
    counted = _payload(event)
    return counted and history.before + counted


def _payload(event: Trained | Tested) -> TransferredBytes | None:
    """Return what has travelled by an event; clients and servers count it by other names."""
    if isinstance(event, DeviceRound | DeviceEvaluated):
        sent, received = [event.bytes_sent], [event.bytes_received]
    else:
        sent = [getattr(event, name, None) for name in ("bytes_received", "bytes_pushed")]
        received = [getattr(event, name, None) for name in ("bytes_returned", "bytes_pulled")]
    if all(count is None for count in (*sent, *received)):
        return None
    return TransferredBytes(sum(n or 0 for n in sent), sum(n or 0 for n in received))


def read_participants(
    recorded: Iterable[Recorded], *, has_trained_exits: bool
) -> tuple[Participant, ...]:
    """Return what the events of one run say of whoever took part in it.

    Args:
        recorded: What was recorded, in its order; what was taken back does not count.
        has_trained_exits: Whether what the exits answer means anything.

    Raises:
        ValueError: An event contradicts what such an event says.
    """
    histories = _Histories(has_trained_exits)
    for each in surviving(recorded):
        histories.take(each.event)
    return histories.participants()


def _curve(event: Evaluated | DeviceEvaluated) -> Curve | None:
    if len(event.curve) < 2 or event.only_server_right is None:
        return None
    return Curve(tuple(sorted(event.curve, key=lambda p: p.threshold)), event.only_server_right)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts client-10 behind client-9."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in parts]
