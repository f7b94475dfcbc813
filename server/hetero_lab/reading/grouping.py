"""Runs that differ in their seed only are repetitions of one experiment, and share its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hetero_common.errors import SettingsError
from hetero_lab.reading.facts import setup
from hetero_lab.reading.run import Run, Source

_MOST_NAMED = 3
"""Settings that are spelt out in a label."""


@dataclass(frozen=True)
class Group:
    """Runs with one label."""

    label: str
    runs: tuple[Run, ...]


def group(runs: Sequence[Run], labels: Sequence[str] = ()) -> list[Group]:
    """Put runs together, in the order in which each label comes first.

    Args:
        runs: What is compared.
        labels: One for each run; by default its method, and what it needs to be told apart.

    Raises:
        SettingsError: There are not as many labels as runs.
    """
    if labels and len(labels) != len(runs):
        raise SettingsError(
            f"--labels names {len(labels)} of {len(runs)} runs: give one label for each, separated "
            "by commas"
        )
    by_label: dict[str, list[Run]] = {}
    for run, label in zip(runs, labels or _labels(runs), strict=True):
        by_label.setdefault(label, []).append(run)
    return [Group(label, tuple(members)) for label, members in by_label.items()]


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by its method, and by what tells it from others of the method, seeds apart."""
    setups = [(_name(run), setup(run)) for run in runs]
    labels: list[str] = []
    known: dict[str, tuple[str, object]] = {}
    for base, own in setups:
        others = [other for name, other in setups if name == base]
        differing = [key for key in own if len({other.get(key) for other in others}) > 1]
        named = [f"{key.replace('_', ' ')} {own[key]}" for key in differing[:_MOST_NAMED]]
        label = ", ".join([base, *named])
        number = 1
        while known.setdefault(_numbered(label, number), (base, own)) != (base, own):
            number += 1
        labels.append(_numbered(label, number))
    return labels


def _name(run: Run) -> str:
    if run.source is Source.CLIENT:
        return ", ".join(participant.name for participant in run.participants)
    return run.method


def _numbered(label: str, number: int) -> str:
    return label if number == 1 else f"{label} ({number})"
