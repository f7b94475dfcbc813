"""What one line of a figure stands for, and its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hetero_lab.reading.grouping import Group
from hetero_lab.reading.run import Measurement, Participant, Run
from hetero_lab.reading.spread import Spread, mean
from hetero_lab.report.curves import Offloading

_MOST_LINES = 6
"""Clients that have a line each; more of them have one per cut layer."""

Quantity = Callable[[Measurement], float | None]
"""What a line shows of a measurement."""


@dataclass(frozen=True)
class Strand:
    """Some participants that a figure shows as one line.

    Attributes:
        label: In the figure's legend.
        members: The mean of each one's participants is a value; the line is the mean of the values,
            its band their standard deviation.
        is_joint: Only rounds that all members have measured count: members are whole runs.
    """

    label: str
    members: tuple[tuple[Participant, ...], ...]
    is_joint: bool = False

    @property
    def participants(self) -> tuple[Participant, ...]:
        """The participants of all members of the group."""
        return tuple(participant for member in self.members for participant in member)

    def by_round(self, quantity: Quantity, *, training: bool = False) -> dict[int, Spread]:
        """A quantity after each round that it was measured in, on test or on training images."""
        values = [_means(member, quantity, training) for member in self.members]
        if self.is_joint:
            rounds = set.intersection(*(set(value) for value in values))
        else:
            rounds = {round_ for value in values for round_ in value}
        spreads = {r: Spread.of(value.get(r) for value in values) for r in sorted(rounds)}
        return {round_: spread for round_, spread in spreads.items() if spread is not None}

    def at_last(self, quantity: Quantity) -> Spread | None:
        """A quantity of the last evaluations."""
        return Spread.of(
            mean(quantity(participant.last) for participant in member if participant.last)
            for member in self.members
        )

    def offloading(self) -> list[Offloading]:
        """Return what offloading gives each member whose last evaluations have curves."""
        curves = [[p.last.curve for p in m if p.last and p.last.curve] for m in self.members]
        return [Offloading.of(those) for those in curves if those]


def client_strands(run: Run) -> list[Strand]:
    """One for each client; of many clients, one for each cut layer."""
    if len(run.participants) > _MOST_LINES:
        return cut_strands(run)
    return [Strand(_client_label(p), ((p,),)) for p in run.participants]


def cut_strands(run: Run) -> list[Strand]:
    """One for each cut layer: the mean over its clients."""
    by_cut = _by_cut(run.participants)
    return [
        Strand(_cut_label(cut, len(clients)), tuple((client,) for client in clients))
        for cut, clients in by_cut.items()
    ]


def run_strand(run: Run) -> Strand:
    """The mean over all participants of a run."""
    count = len(run.participants)
    label = f"all {count} clients" if count > 1 else run.participants[0].name
    return Strand(label, tuple((participant,) for participant in run.participants))


def pooled(strand: Strand) -> Strand:
    """The same participants as one member."""
    return Strand(strand.label, (strand.participants,))


def group_strand(group: Group) -> Strand:
    """The mean over runs of the means over their participants."""
    count = len(group.runs)
    label = f"{group.label} ({count} runs)" if count > 1 else group.label
    return Strand(label, tuple(run.participants for run in group.runs), is_joint=True)


def group_cut_strands(group: Group) -> dict[int, Strand]:
    """Average over runs, for each cut layer, the means over the clients with that cut."""
    by_run = [_by_cut(run.participants) for run in group.runs]
    cuts = sorted({cut for by_cut in by_run for cut in by_cut})
    return {
        cut: Strand(f"cut {cut}", tuple(tuple(c[cut]) for c in by_run if cut in c), is_joint=True)
        for cut in cuts
    }


def _by_cut(participants: Sequence[Participant]) -> Mapping[int, list[Participant]]:
    by_cut: dict[int, list[Participant]] = {}
    for participant in participants:
        if participant.cut_layer is not None:
            by_cut.setdefault(participant.cut_layer, []).append(participant)
    return dict(sorted(by_cut.items()))


def _client_label(participant: Participant) -> str:
    cut = participant.cut_layer
    return participant.name if cut is None else f"{participant.name} (cut {cut})"


def _cut_label(cut: int, clients: int) -> str:
    return f"cut {cut} ({clients} clients)" if clients > 1 else f"cut {cut}"


def _means(member: Sequence[Participant], quantity: Quantity, training: bool) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for participant in member:
        for measurement in participant.training if training else participant.tests:
            value = quantity(measurement)
            if value is not None:
                values.setdefault(measurement.round, []).append(value)
    return {round_: sum(those) / len(those) for round_, those in values.items()}
