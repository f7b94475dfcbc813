"""What the method is held against: each baseline against something that it must equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hetero_common.records.history import read_records
from hetero_lab.methods import METHODS
from lab.test_simulation import SMALL

if TYPE_CHECKING:
    from conftest import Simulate

TWO = ("--clients", "2")


def accuracies(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_records(run) if event["event"] == "evaluation"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_and_reports(method: str, simulate: Simulate) -> None:
    run = simulate(*SMALL, *TWO, "--cut-layers", "3", "--method", method)
    kinds = {event["event"] for event in read_records(run)}
    assert {"round", "evaluation"} <= kinds
    assert list(run.glob("*.safetensors"))
    for event in accuracies(run):
        assert len(event["class_samples"]) == 10 and sum(event["class_samples"]) == event["samples"]
        recorded = [name for name in event if name.endswith("class_accuracy")]
        assert recorded == {
            "centralized": ["class_accuracy"],
            "fedavg": ["class_accuracy"],
            "fedavg-prefix": ["class_accuracy"],
            "isolated": ["exit_class_accuracy"],
        }.get(method, ["exit_class_accuracy", "server_class_accuracy"])
        for name in recorded:
            right = zip(event[name], event["class_samples"], strict=True)
            mean = sum(share * count for share, count in right) / event["samples"]
            assert mean == pytest.approx(event[name.replace("class_accuracy", "accuracy")])
