from __future__ import annotations

import dataclasses

import pytest

from hetero_lab.reading.run import Measurement, TransferredBytes
from support.sample_runs import measured, participant, run_of


def test_payloads_add_up_each_way() -> None:
    both = TransferredBytes(1, 20) + TransferredBytes(300, 4000)
    assert (both, both.total) == (TransferredBytes(301, 4020), 4321)


def test_the_last_evaluation_is_the_newest() -> None:
    assert participant("a", 3, measured(1), measured(4)).last == measured(4)
    assert participant("a", 3).last is None


def test_rounds_are_counted_by_whatever_was_measured_last() -> None:
    trained = dataclasses.replace(
        participant("a", 3, measured(2)), training=(Measurement(5, 0.5, 0.5, None),)
    )
    assert run_of(trained, participant("b", 3, measured(3))).rounds == 6
    assert run_of(participant("a", 3)).rounds == 0


@pytest.mark.parametrize(
    ("method", "has_clients"),
    [
        *(("sequential", True), ("isolated", True), ("splitfed-v1", True), ("client", True)),
        *(("centralized", False), ("fedavg", False), ("fedavg-prefix", False)),
    ],
)
def test_some_methods_have_no_clients_to_tell_apart(method: str, has_clients: bool) -> None:
    assert run_of(participant("a", 3), method=method).has_clients is has_clients
