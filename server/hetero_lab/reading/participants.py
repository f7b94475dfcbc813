"""Who took part in a run, and what was measured of each one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from hetero_common.agreement.control import OperatingPoint
from hetero_common.agreement.steps import steps_from_text
from hetero_lab.reading.history import Event
from hetero_lab.reading.run import Curve, Measurement, Participant, Payload, Source

_Share = Annotated[float, Field(ge=0, le=1)]
_Shares = tuple[_Share | None, ...]

Value = TypeVar("Value")


class _Joined(BaseModel, frozen=True):
    client: str
    cut_layer: PositiveInt
    shard_size: PositiveInt | None = None


class _Measured(BaseModel, frozen=True, allow_inf_nan=False):
    """What `round` and `evaluation` have in common, whoever has recorded them."""

    round: NonNegativeInt
    client: str | None = None
    cut_layer: PositiveInt | None = None
    exit_accuracy: _Share | None = None
    bytes_received: NonNegativeInt | None = None
    bytes_returned: NonNegativeInt | None = None
    bytes_pushed: NonNegativeInt | None = None
    bytes_pulled: NonNegativeInt | None = None
    bytes_sent: NonNegativeInt | None = None

    def payload(self, source: Source) -> Payload | None:
        """What a client counts has other names than what is counted of it."""
        sent = [self.bytes_received, self.bytes_pushed]
        received = [self.bytes_returned, self.bytes_pulled]
        if source is Source.CLIENT:
            sent, received = [self.bytes_sent], [self.bytes_received]
        if all(count is None for count in (*sent, *received)):
            return None
        return Payload(sum(n or 0 for n in sent), sum(n or 0 for n in received))


class _Trained(_Measured, frozen=True):
    applied: str = ""
    exit_train_accuracy: _Share | None = None
    server_train_accuracy: _Share | None = None


class _Point(BaseModel, frozen=True, allow_inf_nan=False):
    threshold: float
    accuracy: _Share
    offload_share: _Share


class _Evaluated(_Measured, frozen=True):
    samples: PositiveInt
    server_accuracy: _Share | None = None
    accuracy: _Share | None = None
    threshold: float | None = None
    threshold_accuracy: _Share | None = None
    offload_share: _Share | None = None
    only_server_right: _Share | None = None
    curve: tuple[_Point, ...] = ()
    exit_class_accuracy: _Shares | None = None
    server_class_accuracy: _Shares | None = None
    class_accuracy: _Shares | None = None


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
    before: Payload = field(default_factory=lambda: Payload(0, 0))

    @property
    def payload(self) -> Payload | None:
        """All that has travelled, by what was measured last; an evaluation follows its round."""
        measured = (*self.training.values(), *self.tests.values())
        last = max(measured, key=lambda m: (m.round, m.samples is not None), default=None)
        return last.payload if last else None

    def join(self, event: _Joined) -> None:
        self.cut_layer, self.images = event.cut_layer, event.shard_size or self.images
        self.before = self.payload or self.before

    def take_back(self, after: int) -> None:
        """Forget what a resumed server does not know."""
        for record in (self.steps, self.training, self.tests):
            for round_ in [round_ for round_ in record if round_ > after]:
                del record[round_]

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

    def __init__(self, source: Source, has_trained_exits: bool) -> None:
        self._source = source
        self._has_trained_exits = has_trained_exits
        self._own = ""
        self._all: dict[str, _History] = {}

    def take(self, event: Event) -> None:
        """Note one event.

        Raises:
            ValueError: It lacks what such an event has.
        """
        match event["event"]:
            case "joined":
                joined = _Joined.model_validate(event)
                self._own = joined.client
                self._of(joined.client).join(joined)
            case "round":
                self._train(_Trained.model_validate(event))
            case "evaluation":
                self._test(_Evaluated.model_validate(event))
            case "resumed":
                for history in self._all.values():
                    history.take_back(int(event["round"]))

    def participants(self) -> tuple[Participant, ...]:
        """By cut layer and name, numbers in names as numbers."""
        found = [history.participant() for history in self._all.values()]
        return tuple(sorted(found, key=lambda p: (p.cut_layer or 0, _natural(p.name))))

    def _of(self, name: str) -> _History:
        return self._all.setdefault(name, _History(name))

    def _named(self, event: _Measured) -> _History:
        """A client does not name itself in its own events; some methods have no clients."""
        if self._source is Source.CLIENT:
            if not self._own:
                raise ValueError("it has never joined")
            return self._of(self._own)
        if event.client is not None:
            history = self._of(event.client)
        elif event.cut_layer is not None:
            history = self._of(f"averaged prefix {event.cut_layer}")
        else:
            history = self._of("whole model")
        history.cut_layer = event.cut_layer or history.cut_layer
        return history

    def _train(self, event: _Trained) -> None:
        history = self._named(event)
        if event.applied:
            history.steps[event.round] = len(steps_from_text(event.applied))
        exit_ = event.exit_train_accuracy
        history.training[event.round] = Measurement(
            event.round,
            self._exit(event.exit_accuracy if exit_ is None else exit_),
            event.server_train_accuracy,
            self._payload(history, event),
        )

    def _test(self, event: _Evaluated) -> None:
        history = self._named(event)
        # An averaged prefix answers from its exit; without a cut layer there is none.
        is_exit = event.cut_layer is not None and event.accuracy is not None
        exit_, exit_classes = event.exit_accuracy, event.exit_class_accuracy
        server, server_classes = event.server_accuracy, event.server_class_accuracy
        if is_exit:
            exit_, exit_classes = event.accuracy, event.class_accuracy
        elif event.accuracy is not None:
            server, server_classes = event.accuracy, event.class_accuracy
        history.tests[event.round] = Measurement(
            event.round,
            self._exit(exit_),
            server,
            self._payload(history, event),
            event.samples,
            self._exit(event.threshold),
            self._exit(event.threshold_accuracy),
            self._exit(event.offload_share),
            self._exit(_curve(event)),
            self._exit(exit_classes) or (),
            server_classes or (),
        )

    def _exit(self, value: Value | None) -> Value | None:
        """What an exit has a part in, unless it knows nothing."""
        return value if self._has_trained_exits else None

    def _payload(self, history: _History, event: _Measured) -> Payload | None:
        counted = event.payload(self._source)
        return counted and history.before + counted


def read_participants(
    events: Iterable[Event], source: Source, *, has_trained_exits: bool
) -> tuple[Participant, ...]:
    """What the events of one run say of whoever took part in it.

    Args:
        events: In the order they were written.
        source: Who wrote them.
        has_trained_exits: Whether what the exits answer means anything.

    Raises:
        ValueError: An event lacks what such an event has.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    histories = _Histories(source, has_trained_exits)
    for event in events:
        histories.take(event)
    return histories.participants()


def _curve(event: _Evaluated) -> Curve | None:
    if len(event.curve) < 2 or event.only_server_right is None:
        return None
    points = [OperatingPoint(p.threshold, p.accuracy, p.offload_share) for p in event.curve]
    return Curve(tuple(sorted(points, key=lambda p: p.threshold)), event.only_server_right)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts client-10 behind client-9."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in parts]
