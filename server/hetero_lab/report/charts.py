"""What the figures of a report show, as numbers and words; how they are drawn is elsewhere."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from hetero_lab.reading.run import Measurement
from hetero_lab.reading.spread import Spread
from hetero_lab.report.curves import Offloading
from hetero_lab.report.strands import Quantity, Strand

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_CURVE_SHARES = tuple(i / 20 for i in range(21))
_ORACLE_SHARES = tuple(i / 100 for i in range(101))


_Gives = Callable[[Offloading, float], float]


_FAR_APART = 8
"""Between what two lines have sent in all, times: a linear axis would squeeze one of them."""


class Scale(enum.Enum):
    """The scale of the x axis."""

    LINEAR = "linear"
    LOGARITHMIC = "log"
    WHOLE = "whole numbers"


class Role(enum.Enum):
    """What a line is to its reader."""

    MEASURED = "measured"
    REFERENCE = "a level that costs nothing on the x axis"
    RANDOM = "random choice"
    ORACLE = "oracle"
    POINT = "one point"


@dataclass(frozen=True)
class Line:
    """Some points, connected.

    Attributes:
        label: In the legend.
        look: Number of its color, marker and dashes.
        deviation: Of y, to both sides; None where there is nothing to deviate.
    """

    label: str
    look: int
    role: Role
    x: tuple[float, ...]
    y: tuple[float, ...]
    deviation: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        name: Of its file, without suffix.
        caption: Below it, in sentences.
        looks: How many looks its lines have.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    looks: int
    x_scale: Scale = Scale.LINEAR


@dataclass(frozen=True)
class _Kind:
    """Which accuracies a chart shows."""

    training: bool

    @property
    def label(self) -> str:
        return f"{'training' if self.training else 'test'} accuracy (%)"

    @property
    def images(self) -> str:
        return "training images, batch by batch" if self.training else "test images"


def rounds_chart(strands: Sequence[Strand]) -> Chart | None:
    """Accuracy over rounds, of exits and server; None if there is none."""
    kind = _kind(strands)
    panels = _panels(strands, lambda look, strand, q: _over_rounds(look, strand, q, kind))
    if not panels:
        return None
    return Chart(
        "accuracy-over-rounds",
        "Accuracy over rounds",
        f"Accuracy on {kind.images}, by rounds. {_bands(panels, strands)}".strip(),
        "rounds",
        kind.label,
        panels,
        len(strands),
        x_scale=Scale.WHOLE,
    )


def payload_chart(strands: Sequence[Strand]) -> Chart | None:
    """Accuracy over what has travelled; None if nothing has, or nothing was counted."""
    kind = _kind(strands)
    totals = [strand.by_round(_total, training=kind.training) for strand in strands]
    counted = [spread.mean for total in totals for spread in total.values()]
    if not any(counted):
        return None
    size, unit = next((size, unit) for size, unit in _UNITS if max(counted) >= size)
    ends = (min(counted) / size, max(counted) / size)

    def over_payload(look: int, strand: Strand, quantity: Quantity) -> Line | None:
        spreads = strand.by_round(quantity, training=kind.training)
        if not spreads:
            return None
        total = totals[look]
        if not total:
            level = list(spreads.values())[-1]
            return _line(strand.label, look, Role.REFERENCE, ends, [level, level])
        rounds = [round_ for round_ in spreads if round_ in total]
        x = tuple(total[round_].mean / size for round_ in rounds)
        return _line(strand.label, look, Role.MEASURED, x, [spreads[r] for r in rounds])

    panels = _panels(strands, over_payload)
    caption = [
        f"Accuracy on {kind.images} against the payload that a client has sent and received by "
        "then: activations, weights and feedback, without headers and frames.",
        _bands(panels, strands),
        "Level: the last accuracy of what sends nothing." if not all(totals) else "",
    ]
    return Chart(
        "accuracy-over-payload",
        "Accuracy over payload",
        " ".join(sentence for sentence in caption if sentence),
        f"payload per client, both ways ({unit})",
        kind.label,
        panels,
        len(strands),
        x_scale=_payload_scale(totals),
    )


def offload_chart(strands: Sequence[Strand]) -> Chart | None:
    """Accuracy versus offload share, a panel per strand; None if no curve was recorded."""
    panels = tuple(panel for strand in strands if (panel := _offload_panel(strand)) is not None)
    if not panels:
        return None
    return Chart(
        "accuracy-over-offload",
        "Accuracy versus offload",
        "Accuracy of exit and server together on the test images of the last evaluation, against "
        "the share of images that the server answers. By uncertainty: the least certain images are "
        "offloaded. Random: images are drawn by lot. Oracle: offloaded first is what the server "
        "answers right and the exit does not. Diamond: at the threshold that was set. "
        + _bands(panels, strands),
        "share of images offloaded (%)",
        "test accuracy (%)",
        panels,
        1,
    )


def _payload_scale(totals: Sequence[Mapping[int, Spread]]) -> Scale:
    by_line = [[spread.mean for spread in total.values()] for total in totals if total]
    lasts = [counted[-1] for counted in by_line]
    is_far = min(map(min, by_line)) > 0 and max(lasts) > _FAR_APART * min(lasts)
    return Scale.LOGARITHMIC if is_far else Scale.LINEAR


def _kind(strands: Sequence[Strand]) -> _Kind:
    """Training accuracies stand in where tests make no line, and all strands have them."""
    if any(len(p.tests) > 1 for strand in strands for p in strand.participants):
        return _Kind(training=False)
    return _Kind(
        training=all(
            strand.by_round(attrgetter("exit"), training=True)
            or strand.by_round(attrgetter("server"), training=True)
            for strand in strands
        )
    )


def _panels(
    strands: Sequence[Strand], line: Callable[[int, Strand, Quantity], Line | None]
) -> tuple[Panel, ...]:
    is_undivided = [all(p.cut_layer is None for p in strand.participants) for strand in strands]
    server = "Server"
    if any(is_undivided):
        server = "Whole model" if all(is_undivided) else "Server, or whole model"
    panels = []
    for title, quantity in (("Exit", attrgetter("exit")), (server, attrgetter("server"))):
        lines = [line(look, strand, quantity) for look, strand in enumerate(strands)]
        if any(lines):
            panels.append(Panel(title, tuple(each for each in lines if each is not None)))
    return tuple(panels)


def _over_rounds(look: int, strand: Strand, quantity: Quantity, kind: _Kind) -> Line | None:
    spreads = strand.by_round(quantity, training=kind.training)
    if not spreads:
        return None
    x = tuple(round_ + 1.0 for round_ in spreads)
    return _line(strand.label, look, Role.MEASURED, x, list(spreads.values()))


def _offload_panel(strand: Strand) -> Panel | None:
    members = strand.offloading()
    if not members:
        return None

    def line(label: str, role: Role, at: _Gives, shares: Sequence[float]) -> Line:
        spreads = [Spread.of(at(member, share) for member in members) for share in shares]
        x = tuple(100 * share for share in shares)
        return _line(label, 0, role, x, [spread for spread in spreads if spread is not None])

    lines = (
        line("by uncertainty", Role.MEASURED, Offloading.by_uncertainty, _CURVE_SHARES),
        line("random", Role.RANDOM, Offloading.at_random, (0.0, 1.0)),
        line("oracle", Role.ORACLE, Offloading.by_oracle, _ORACLE_SHARES),
    )
    return Panel(strand.label, (*lines, *_threshold_point(strand)))


def _threshold_point(strand: Strand) -> list[Line]:
    thresholds = {p.last.threshold for p in strand.participants if p.last and p.last.curve}
    share = strand.at_last(attrgetter("offload_share"))
    combined = strand.at_last(attrgetter("combined"))
    if len(thresholds) != 1 or share is None or combined is None:
        return []
    label = f"at threshold {thresholds.pop():g}"
    return [Line(label, 0, Role.POINT, (100 * share.mean,), (100 * combined.mean,))]


def _line(
    label: str, look: int, role: Role, x: tuple[float, ...], spreads: Sequence[Spread]
) -> Line:
    deviation = None
    if any(spread.deviation is not None for spread in spreads):
        deviation = tuple(100 * (spread.deviation or 0.0) for spread in spreads)
    y = tuple(100 * spread.mean for spread in spreads)
    return Line(label, look, role, x, y, deviation if role is Role.MEASURED else None)


def _total(measurement: Measurement) -> float | None:
    return None if measurement.payload is None else float(measurement.payload.total)


def _bands(panels: Sequence[Panel], strands: Sequence[Strand]) -> str:
    if not any(line.deviation for panel in panels for line in panel.lines):
        return ""
    of = "runs" if any(strand.is_joint for strand in strands) else "clients"
    return f"Bands: one standard deviation of the {of} to both sides."
