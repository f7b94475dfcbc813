"""Gauges for Prometheus: what is read off a run whenever somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hetero_common.records.events import Event
from hetero_common.version import __version__
from hetero_server.monitoring.chronicle import Chronicle
from hetero_server.monitoring.watched import Watched
from hetero_server.run.member import Member, MemberState
from hetero_server.run.phase import Phase


class Readings(Collector):
    """Reads a run and its chronicle; nothing of it costs anything between two scrapes.

    Args:
        run: What is looked at.
        chronicle: What it has told.
        about: Labels of `hetero_run_info`.
        most: Clients that have series of their own, the first by their ids.
    """

    def __init__(
        self, run: Watched, chronicle: Chronicle, about: Mapping[str, str], most: int
    ) -> None:
        self._run = run
        self._chronicle = chronicle
        self._about = {"version": __version__, **about}
        self._most = most

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not to be read off before there is a run."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families, with the values of now."""
        yield from self._about_run()
        yield from self._clients()
        yield from self._learning()
        yield from self._each_client()

    def _about_run(self) -> Iterable[Metric]:
        run = self._run
        yield _family("run_info", "What is run.", {tuple(self._about.values()): 1.0}, *self._about)
        phases = {(phase.name.lower(),): float(phase is run.phase) for phase in Phase}
        yield _family("phase", "1 for the phase that the run is in.", phases, "phase")
        yield _family("round", "The current round, counted from 0.", run.round)
        yield _family("rounds", "Rounds of the whole run.", run.plan.rounds)
        yield _family(
            "server_weights_bytes",
            "Weights and optimizer state of all server models or replicas.",
            run.held_bytes,
        )
        if self._chronicle.saved_at is not None:
            yield _family(
                "last_checkpoint_timestamp_seconds",
                "When the last checkpoint was written, since 1970.",
                self._chronicle.saved_at,
            )

    def _clients(self) -> Iterable[Metric]:
        members = list(self._run.members.values())
        states = Counter(member.state for member in members)
        by_state = {(state.name.lower(),): float(states[state]) for state in MemberState}
        yield _family("clients", "Clients that the run knows, by state.", by_state, "state")
        cuts = Counter(member.cut_layer for member in members if member.attached)
        by_cut = {(str(cut),): float(count) for cut, count in sorted(cuts.items())}
        yield _family("connected_clients", "Clients with an open stream.", by_cut, "cut_layer")
        queued = sum(len(member.progress.queue) for member in members)
        yield _family("queued_batches", "Batches that wait for their step.", queued)

    def _learning(self) -> Iterable[Metric]:
        rounds, evaluations = self._chronicle.rounds, self._chronicle.evaluations
        for name, field, text, records in (
            ("exit_loss", "exit_loss", "Exit's training loss in the last round, mean.", rounds),
            ("server_loss", "server_loss", "Server's, likewise.", rounds),
            (
                "exit_accuracy_ratio",
                "exit_accuracy",
                "Exit's accuracy on test images, mean over the clients.",
                evaluations,
            ),
            ("server_accuracy_ratio", "server_accuracy", "Server's, likewise.", evaluations),
            (
                "threshold_accuracy_ratio",
                "threshold_accuracy",
                "Of both together at the clients' thresholds, likewise.",
                evaluations,
            ),
            (
                "offload_ratio",
                "offload_share",
                "Share of test images that the exit leaves to the server, likewise.",
                evaluations,
            ),
        ):
            yield _family(name, text, _means(records.values(), field), "cut_layer")

    def _each_client(self) -> Iterable[Metric]:
        members = sorted(self._run.members.values(), key=lambda member: member.client_id)
        shown = members[: self._most]
        yield _family(
            "clients_without_series",
            "Clients that have no series of their own (--metrics-per-client).",
            len(members) - len(shown),
        )
        labels = ("client", "cut_layer")
        for make, name, text, value in _OF_EACH:
            values = {
                (member.client_id, str(member.cut_layer)): float(value(member)) for member in shown
            }
            yield make(name, text, values, *labels)
        evaluated = [(m, self._chronicle.evaluations.get(m.client_id)) for m in shown]
        for side in ("exit", "server"):
            accuracies = {
                (member.client_id, str(member.cut_layer)): accuracy
                for member, last in evaluated
                if (accuracy := getattr(last, f"{side}_accuracy", None)) is not None
            }
            text = f"Accuracy of the {side} on a client's test images, at its last evaluation."
            yield _family(f"client_{side}_accuracy_ratio", text, accuracies, *labels)


def _means(records: Iterable[Event], field: str) -> dict[tuple[str, ...], float]:
    values: dict[int, list[float]] = {}
    for record in records:
        value = getattr(record, field)
        if value is not None:
            values.setdefault(getattr(record, "cut_layer", None) or 0, []).append(value)
    return {(str(cut),): sum(each) / len(each) for cut, each in sorted(values.items())}


_Values = Mapping[Any, float]
"""By the values of the labels."""
_Make = Callable[..., Metric]


def _family(name: str, text: str, values: float | _Values, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"hetero_{name}", text, labels=labels), values)


def _count(name: str, text: str, values: float | _Values, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"hetero_{name}", text, labels=labels), values)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: float | _Values
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in ({(): values} if isinstance(values, float | int) else values).items():
        family.add_metric(labels, value)
    return family


_OF_EACH: tuple[tuple[_Make, str, str, Callable[[Member], float]], ...] = (
    (
        _count,
        "client_samples",
        "Images of a client that the server trained on.",
        lambda member: member.samples,
    ),
    (
        _count,
        "client_received_bytes",
        "Payload that came from a client, since it registered.",
        lambda member: member.traffic.bytes_in,
    ),
    (
        _count,
        "client_sent_bytes",
        "Payload that a client was sent, likewise.",
        lambda member: member.traffic.bytes_out,
    ),
    (
        _family,
        "client_connected",
        "1 while a client has an open stream.",
        lambda member: member.attached,
    ),
)
"""Of each client that has series of its own."""
