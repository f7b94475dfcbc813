from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetero_common.records.history import read_records
from lab.test_simulation import SMALL, bits

if TYPE_CHECKING:
    from conftest import Simulate

TWO = ("--clients", "2")


def accuracies(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_records(run) if event["event"] == "evaluation"]


def test_isolated_devices_are_clients_that_get_nothing_from_the_others(simulate: Simulate) -> None:
    alone = simulate(*SMALL, *TWO, "--method", "isolated")
    split = simulate(*SMALL, *TWO, "--client-aggregation", "none")
    for name in ("client-1.safetensors", "client-2.safetensors"):
        assert bits(alone / name) == bits(split / name)
    together = {e["client"]: e["exit_accuracy"] for e in accuracies(split)}
    assert {e["client"]: e["exit_accuracy"] for e in accuracies(alone)} == together
