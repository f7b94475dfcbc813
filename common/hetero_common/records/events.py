"""What a run records, as types: one for each kind of line in metrics.jsonl (docs/runs.md).

Who writes a kind tells what it knows: a `round` of a server is another type than a `round` of a
client. All are read back leniently: a field that an older version has not written has its default,
and one that it does not know is left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, TypeAdapter

from hetero_common.agreement.control import OperatingPoint

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = tuple[Share | None, ...]
Round = NonNegativeInt


def _shares(point: OperatingPoint) -> OperatingPoint:
    if not (0 <= point.accuracy <= 1 and 0 <= point.offload_share <= 1):  # NaN neither
        raise ValueError("a curve consists of shares")
    if not math.isfinite(point.threshold):
        raise ValueError("a curve has finite thresholds")
    return point


Curve = tuple[Annotated[OperatingPoint, AfterValidator(_shares)], ...]
EVENTS: list[type[Event]] = []
"""All types of events."""


@dataclass(frozen=True)
class Event:
    """One thing that a run records.

    Attributes:
        kind: Its name in metrics.jsonl.
        omitted: Fields that are not written where they are None.
    """

    kind: ClassVar[str]
    omitted: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        EVENTS.append(cls)

    def record(self) -> dict[str, Any]:
        """Its fields, as JSON has them."""
        values = dataclasses.asdict(self)
        for name in self.omitted:
            if values[name] is None:
                del values[name]
        return values


Observer = Callable[[Event], None]
"""Called with everything that a run records."""


# Of a server, and of the simulator in its place.


@dataclass(frozen=True)
class Started(Event, kind="started"):
    """A process has begun, or goes on with, a run."""

    run: str
    version: str = ""
    torch: str = ""


@dataclass(frozen=True)
class Joined(Event, kind="joined"):
    """A client takes part."""

    client: str
    cut_layer: PositiveInt
    shard_size: PositiveInt | None = None
    round: int | None = None


@dataclass(frozen=True)
class Returned(Event, kind="returned"):
    """A client is back, and goes on from the end of round `base`, or anew."""

    client: str
    round: Round
    base: int | None = None
    first_step: int | None = None


@dataclass(frozen=True)
class Left(Event, kind="left"):
    """A client is gone; `state` is the name of its `MemberState`, `reason` that of an error."""

    client: str
    state: str
    round: Round
    reason: str | None = None


@dataclass(frozen=True)
class Released(Event, kind="released"):
    """A round goes on without a client."""

    client: str
    round: Round
    why: str = ""


@dataclass(frozen=True)
class LeftOut(Event, kind="left_out"):
    """What a client has pushed is in no average."""

    client: str
    round: Round
    statistic: str = ""
    value: Number = 0.0
    usual: Number = 0.0


@dataclass(frozen=True)
class QuarantineEntered(Event, kind="quarantined"):
    """A client is sent away for its outliers."""

    client: str
    round: Round
    step: int | None = None
    statistic: str = ""
    value: Number = 0.0
    usual: Number = 0.0


@dataclass(frozen=True)
class RoundClosed(Event, kind="round"):
    """A client's part of a round, as the server has counted it."""

    round: Round
    client: str
    cut_layer: PositiveInt | None = None
    steps: PositiveInt | None = None
    applied: str | None = None
    samples: int = 0
    server_loss: float | None = None
    server_train_accuracy: Share | None = None
    gradient_norm: float | None = None
    gradient_norm_max: float | None = None
    activation_peak: float | None = None
    activation_peak_max: float | None = None
    outliers: int = 0
    exit_loss: float | None = None
    exit_train_accuracy: Share | None = None
    bytes_received: NonNegativeInt | None = None
    bytes_returned: NonNegativeInt | None = None
    bytes_pushed: NonNegativeInt | None = None
    bytes_pulled: NonNegativeInt | None = None
    bytes_asked: NonNegativeInt | None = None
    bytes_answered: NonNegativeInt | None = None
    update_norm: float | None = None
    buffers_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event, kind="evaluation"):
    """A client's evaluation, as the server was told."""

    client: str
    cut_layer: PositiveInt | None = None
    bytes_received: NonNegativeInt | None = None
    bytes_returned: NonNegativeInt | None = None
    bytes_pushed: NonNegativeInt | None = None
    bytes_pulled: NonNegativeInt | None = None
    bytes_asked: NonNegativeInt | None = None
    bytes_answered: NonNegativeInt | None = None
    round: Round
    samples: PositiveInt
    exit_accuracy: Share | None = None
    server_accuracy: Share | None = None
    threshold: Number | None = None
    threshold_accuracy: Share | None = None
    offload_share: Share | None = None
    only_server_right: Share | None = None
    curve: Curve = ()
    class_samples: tuple[int, ...] | None = None
    exit_class_accuracy: Shares | None = None
    server_class_accuracy: Shares | None = None


@dataclass(frozen=True)
class CheckpointWritten(Event, kind="checkpoint"):
    """The run was saved at the end of a round, or why it could not be."""

    round: Annotated[int, Field(ge=-1)]
    failed: str | None = None


@dataclass(frozen=True)
class Resumed(Event, kind="resumed"):
    """What was recorded of later rounds than this one does not count any more."""

    round: Annotated[int, Field(ge=-1)]


@dataclass(frozen=True)
class Finished(Event, kind="finished"):
    """The last round is over."""

    rounds: int = 0


# Of a client.


@dataclass(frozen=True)
class DeviceJoined(Event, kind="joined"):
    """This client takes part in a run."""

    run: str
    client: str
    cut_layer: PositiveInt
    shard_size: PositiveInt | None = None
    version: str = ""
    torch: str = ""


@dataclass(frozen=True)
class Rejoined(Event, kind="rejoined"):
    """This client has lost the server, and is connected again at the end of round `base`."""

    base: int | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceRound(Event, kind="round"):
    """What this client has trained in a round."""

    bytes_sent: NonNegativeInt | None = None
    bytes_received: NonNegativeInt | None = None
    round: Round
    exit_loss: float | None = None
    exit_accuracy: Share | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceEvaluated(Event, kind="evaluation"):
    """What this client has found on test images; `last`: on all of them."""

    bytes_sent: NonNegativeInt | None = None
    bytes_received: NonNegativeInt | None = None
    last: bool = False
    round: Round
    samples: PositiveInt
    exit_accuracy: Share | None = None
    server_accuracy: Share | None = None
    threshold: Number | None = None
    threshold_accuracy: Share | None = None
    offload_share: Share | None = None
    only_server_right: Share | None = None
    curve: Curve = ()
    class_samples: tuple[int, ...] | None = None
    exit_class_accuracy: Shares | None = None
    server_class_accuracy: Shares | None = None


@dataclass(frozen=True)
class DeviceFinished(Event, kind="finished"):
    """This client has done its part."""

    bytes_sent: NonNegativeInt
    bytes_received: NonNegativeInt | None = None


# Of the simulator's baselines.


@dataclass(frozen=True)
class LocalRound(Event, kind="round"):
    """What a client has trained by itself."""

    client: str
    round: Round
    exit_loss: float | None = None
    exit_accuracy: Share | None = None


@dataclass(frozen=True, kw_only=True)
class LocalEvaluated(Event, kind="evaluation"):
    """What a client that trains by itself answers."""

    round: Round
    client: str
    cut_layer: PositiveInt | None = None
    samples: PositiveInt
    class_samples: tuple[int, ...] | None = None
    exit_accuracy: Share | None = None
    exit_class_accuracy: Shares | None = None


@dataclass(frozen=True)
class WholeRound(Event, kind="round"):
    """A round of an undivided model, or of prefixes of one cut layer."""

    omitted = frozenset({"samples", "bytes_pushed", "bytes_pulled", "cut_layer"})

    round: Round
    loss: float
    samples: int | None = None
    bytes_pushed: NonNegativeInt | None = None
    bytes_pulled: NonNegativeInt | None = None
    cut_layer: PositiveInt | None = None


@dataclass(frozen=True)
class WholeEvaluated(Event, kind="evaluation"):
    """What such a model answers; of prefixes, their exit."""

    omitted = frozenset({"bytes_pushed", "bytes_pulled", "cut_layer"})

    round: Round
    samples: PositiveInt
    class_samples: tuple[int, ...] | None = None
    accuracy: Share | None = None
    class_accuracy: Shares | None = None
    bytes_pushed: NonNegativeInt | None = None
    bytes_pulled: NonNegativeInt | None = None
    cut_layer: PositiveInt | None = None


def type_of(record: Mapping[str, Any]) -> type[Event] | None:
    """The type of a line of metrics.jsonl; None if this version knows no such kind."""
    kind = record.get("event")
    has_client = "client" in record
    match kind:
        case "joined":
            return DeviceJoined if "run" in record else Joined
        case "finished":
            return DeviceFinished if "bytes_sent" in record else Finished
        case "round" if not has_client:
            return WholeRound if "loss" in record else DeviceRound
        case "round":
            return LocalRound if "exit_accuracy" in record else RoundClosed
        case "evaluation" if not has_client:
            return WholeEvaluated if "accuracy" in record else DeviceEvaluated
        case "evaluation":
            return Evaluated if "server_accuracy" in record else LocalEvaluated
    return next((each for each in EVENTS if each.kind == kind), None)


def from_record(record: Mapping[str, Any]) -> Event | None:
    """The event that a line of metrics.jsonl holds; None if this version knows no such kind.

    Raises:
        ValueError: It lacks what such an event has, or a value is out of range.
    """
    found = type_of(record)
    if found is None:
        return None
    if found not in _READERS:
        _READERS[found] = TypeAdapter(found)
    event: Event = _READERS[found].validate_python(record)
    return event


_READERS: dict[type[Event], TypeAdapter[Any]] = {}
