"""The tables of a report, as text in cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter

from hetero_lab.reading.facts import OF_EACH_RUN, common, facts
from hetero_lab.reading.grouping import Group
from hetero_lab.reading.run import ByClass, Measurement, Participant, Run
from hetero_lab.reading.spread import Spread, mean
from hetero_lab.report.strands import (
    Quantity,
    Strand,
    cut_strands,
    group_cut_strands,
    group_strand,
    run_strand,
)

Side = Callable[[Measurement], ByClass]
"""Whose accuracies are meant."""

_MOST_INCIDENTS = 200
_MOST_CLASSES = 20
_NOTHING = "–"  # noqa: RUF001 - the dash of tables
_ACCURACIES: tuple[tuple[str, Quantity], ...] = (
    ("exit %", attrgetter("exit")),
    ("server %", attrgetter("server")),
    ("combined %", attrgetter("combined")),
    ("offloaded %", attrgetter("offload_share")),
)
_EXITS: Side = attrgetter("exit_classes")
_SERVERS: Side = attrgetter("server_classes")
_HEADINGS = tuple(heading for heading, _ in _ACCURACIES)
_WAYS = ("sent", "received")
_PAYLOAD = tuple(f"{way} MB" for way in _WAYS)


@dataclass(frozen=True)
class Table:
    """Rows of text under headings.

    Attributes:
        texts: How many of the first columns are text; all others are numbers.
        caption: What the headings mean.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    caption: str = ""


def clients_table(run: Run) -> Table:
    """One row for each client."""
    return Table(
        "Clients" if run.has_clients else "Models",
        ("client", "cut layer", "images", *_HEADINGS, "steps", *_PAYLOAD),
        tuple(_client_row(participant) for participant in run.participants),
        caption=f"On the test images of the last evaluation. {_combined(run.participants)} Steps: "
        "mini-batches that the server model has taken. MB: payload that the client has sent and "
        "received, in millions of bytes.",
    )


def cuts_table(run: Run) -> Table | None:
    """One row for each cut layer; None without cut layers."""
    strands = cut_strands(run)
    if not strands:
        return None
    rows = [(strand.label, *_spreads(strand)) for strand in (*strands, run_strand(run))]
    caption = "Mean and standard deviation (n - 1) of the clients."
    return Table("Cut layers", ("cut layer", *_HEADINGS), tuple(rows), caption=caption)


def results_table(groups: Sequence[Group]) -> Table:
    """One row for each label."""
    rows = []
    for group in groups:
        strand = group_strand(group)
        payloads = [
            Spread.of(mean(_megabytes(each, way) for each in member) for member in strand.members)
            for way in _WAYS
        ]
        seeds = ", ".join(str(run.plan.seed) for run in group.runs)
        sizes = (_text(payload, "{:,.2f}") for payload in payloads)
        rows.append((group.label, str(len(group.runs)), seeds, *_spreads(strand), *sizes))
    participants = [p for group in groups for run in group.runs for p in run.participants]
    caption = [
        "On the test images of the last evaluations: mean over clients; of several runs, mean and "
        "standard deviation (n - 1).",
        _combined(participants),
        "MB: payload of one client, in millions of bytes.",
    ]
    if any(participant.cut_layer is None for participant in participants):
        caption.append("Undivided models stand under server.")
    return Table(
        "Results",
        ("label", "runs", "seeds", *_HEADINGS, *_PAYLOAD),
        tuple(rows),
        caption=" ".join(sentence for sentence in caption if sentence),
    )


def compared_cuts_table(groups: Sequence[Group]) -> Table | None:
    """One row for each label and cut layer; None without cut layers."""
    rows = [
        (group.label, str(cut), *_spreads(strand))
        for group in groups
        for cut, strand in group_cut_strands(group).items()
    ]
    if not rows:
        return None
    caption = (
        "Mean over the clients with this cut layer; of several runs, mean and standard deviation "
        "(n - 1)."
    )
    return Table("Cut layers", ("label", "cut layer", *_HEADINGS), tuple(rows), caption=caption)


def classes_table(run: Run) -> Table | None:
    """One row for each class, or for those known worst; None if that was not recorded."""
    everyone = run_strand(run)
    columns = [(f"exit, {strand.label} %", strand, _EXITS) for strand in cut_strands(run)]
    columns.append(("server %", everyone, _SERVERS))
    shown = [
        (heading, [strand.at_last(_of_class(side, label)) for label in range(run.plan.classes)])
        for heading, strand, side in columns
    ]
    shown = [(heading, spreads) for heading, spreads in shown if any(spreads)]
    if not shown:
        return None
    _, last = shown[-1]
    known = [1.0 if spread is None else spread.mean for spread in last]
    labels = sorted(sorted(range(len(known)), key=known.__getitem__)[:_MOST_CLASSES])
    rows = tuple((str(k), *(_percent(spreads[k]) for _, spreads in shown)) for k in labels)
    caption = (
        "Accuracy on the test images of each class: mean and standard deviation (n - 1) of the "
        "clients."
    )
    if len(labels) < len(known):
        caption += f" Of {len(known)} classes those {len(labels)} that the last column knows worst."
    return Table("Classes", ("class", *(heading for heading, _ in shown)), rows, caption=caption)


def compared_classes_table(groups: Sequence[Group]) -> Table | None:
    """One row for each label, with its worst and best class; None if that was not recorded."""
    quantities = [_extreme(side, extreme) for side in (_EXITS, _SERVERS) for extreme in (min, max)]
    rows = []
    for group in groups:
        strand = group_strand(group)
        spreads = [strand.at_last(quantity) for quantity in quantities]
        if any(spreads):
            rows.append((group.label, *map(_percent, spreads)))
    if not rows:
        return None
    headings = ("exit worst %", "exit best %", "server worst %", "server best %")
    caption = (
        "Accuracy on the test images of the class that a client's exit or server knows worst, or "
        "best: mean over clients; of several runs, mean and standard deviation (n - 1)."
    )
    return Table("Classes", ("label", *headings), tuple(rows), caption=caption)


def differences_table(groups: Sequence[Group]) -> Table | None:
    """Return what was run, as far as it is not the same in all runs: a column for each label."""
    told = [[facts(run) for run in group.runs] for group in groups]
    shared = common([run for group in groups for run in group.runs])
    headings = dict.fromkeys(heading for runs in told for each in runs for heading in each)
    rows = tuple(
        (heading, *("; ".join(_distinct(each.get(heading) for each in runs)) for runs in told))
        for heading in headings
        if heading not in shared and heading not in OF_EACH_RUN
    )
    if not rows:
        return None
    labels = tuple(group.label for group in groups)
    return Table("Differences", ("", *labels), rows, texts=1 + len(labels))


def runs_table(groups: Sequence[Group]) -> Table:
    """One row for each run."""
    rows = []
    for group in groups:
        for run in group.runs:
            told = facts(run)
            rows.append((run.name, group.label, *(told[heading] for heading in OF_EACH_RUN)))
    headings = ("run", "label", *(heading.lower() for heading in OF_EACH_RUN))
    return Table("Runs", headings, tuple(rows), texts=len(headings))


def incidents_table(run: Run) -> Table | None:
    """Return what was out of the ordinary; None if nothing was."""
    if not run.incidents:
        return None
    rows = tuple(
        (
            str(timedelta(seconds=round(incident.seconds))),
            _NOTHING if incident.round is None else str(incident.round + 1),
            incident.client or _NOTHING,
            incident.what,
        )
        for incident in run.incidents[:_MOST_INCIDENTS]
    )
    more = len(run.incidents) - len(rows)
    caption = f"{more:,} more are in metrics.jsonl." if more else ""
    return Table("Events", ("after", "round", "client", "what"), rows, texts=4, caption=caption)


def _client_row(participant: Participant) -> tuple[str, ...]:
    last = participant.last
    shares = (None if last is None else quantity(last) for _, quantity in _ACCURACIES)
    return (
        participant.name,
        _count(participant.cut_layer),
        _count(participant.images),
        *(_NOTHING if share is None else f"{100 * share:.2f}" for share in shares),
        _count(participant.steps),
        *(_text(Spread.of([_megabytes(participant, way)]), "{:,.2f}") for way in _WAYS),
    )


def _of_class(side: Side, label: int) -> Quantity:
    def quantity(measurement: Measurement) -> float | None:
        shares = side(measurement)
        return shares[label] if label < len(shares) else None

    return quantity


def _extreme(side: Side, extreme: Callable[..., float | None]) -> Quantity:
    return lambda measurement: extreme(
        (share for share in side(measurement) if share is not None), default=None
    )


def _distinct(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text or _NOTHING for text in texts))


def _spreads(strand: Strand) -> tuple[str, ...]:
    return tuple(_percent(strand.at_last(quantity)) for _, quantity in _ACCURACIES)


def _percent(share: Spread | None) -> str:
    if share is None:
        return _NOTHING
    deviation = None if share.deviation is None else 100 * share.deviation
    return _text(Spread(100 * share.mean, deviation, share.count), "{:.2f}")


def _text(spread: Spread | None, form: str) -> str:
    if spread is None:
        return _NOTHING
    if spread.deviation is None:
        return form.format(spread.mean)
    return f"{form.format(spread.mean)} ± {form.format(spread.deviation)}"


def _count(number: int | None) -> str:
    return _NOTHING if number is None else f"{number:,}"


def _megabytes(participant: Participant, way: str) -> float | None:
    payload = participant.payload
    return None if payload is None else float(getattr(payload, way)) / 1e6


def _combined(participants: Iterable[Participant]) -> str:
    thresholds = sorted({p.last.threshold for p in participants if p.last and p.last.threshold})
    if not thresholds:
        return ""
    named = ", ".join(f"{threshold:g}" for threshold in thresholds)
    return f"Combined: the exit answers up to the uncertainty that was set ({named})."
