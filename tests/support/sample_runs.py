"""Runs that nobody has trained: as the data model has them, and as directories."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hetero_common.agreement.control import OperatingPoint
from hetero_common.agreement.plan import Plan
from hetero_common.records.rundir import METRICS_FILE, PLAN_FILE, SETTINGS_FILE
from hetero_lab.reading.run import Curve, Measurement, Participant, Run, Source, TransferredBytes

PLAN = Plan(model="tinycnn", width=4, image_size=8, normalization="digits", rounds=2)

CURVE = Curve(
    (
        OperatingPoint(-1.0, 0.8, 1.0),
        OperatingPoint(0.2, 0.9, 0.5),
        OperatingPoint(1.0, 0.6, 0.0),
    ),
    only_server_right=0.3,
)


def measured(
    round_: int,
    exit_: float | None = 0.6,
    server: float | None = 0.8,
    sent: int | None = None,
    curve: Curve | None = None,
) -> Measurement:
    """Half of the images are offloaded at threshold 0.2, where there is a curve."""
    payload = None if sent is None else TransferredBytes(sent, 0)
    if curve is None:
        return Measurement(round_, exit_, server, payload, 100)
    return Measurement(round_, exit_, server, payload, 100, 0.2, 0.9, 0.5, curve)


def participant(name: str, cut_layer: int | None, *tests: Measurement) -> Participant:
    payload = tests[-1].payload if tests else None
    return Participant(name, cut_layer, 50, 16, (), tests, payload)


def run_of(*participants: Participant, method: str = "sequential", seed: int = 0) -> Run:
    return Run(
        name="runs/made-up",
        source=Source.SIMULATOR,
        method=method,
        plan=PLAN.model_copy(update={"seed": seed}),
        settings={"strategy": "sequential", "order": "arrival", "dataset": "digits"},
        participants=participants,
        incidents=(),
        versions={"hetero-splitee": "0.1"},
        started=1.7e9,
        seconds=12.0,
        is_finished=True,
        notes=(),
    )


def planned(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, plan=run.plan.model_copy(update=changes))


def write_run(
    directory: Path,
    events: Iterable[Mapping[str, Any]],
    settings: Mapping[str, Any] | None = None,
    plan: Plan = PLAN,
) -> Path:
    """A run directory with these events, each a second after the one before."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PLAN_FILE).write_text(plan.model_dump_json())
    (directory / SETTINGS_FILE).write_text(yaml.safe_dump(settings or {"strategy": "sequential"}))
    lines = [
        json.dumps({"time": 1.7e9 + second, "seconds": second} | dict(event)) + "\n"
        for second, event in enumerate(events)
    ]
    (directory / METRICS_FILE).write_text("".join(lines))
    return directory


def joined(client: str = "a", cut_layer: int = 3, **more: Any) -> dict[str, Any]:
    return {"event": "joined", "client": client, "cut_layer": cut_layer, "shard_size": 50, **more}


def round_event(round_: int, client: str = "a", **more: Any) -> dict[str, Any]:
    """As a server has recorded them before it counted the bytes of weights."""
    fields = {"round": round_, "client": client, "cut_layer": 3, "applied": "0-7"}
    accuracies = {"exit_train_accuracy": 0.5, "server_train_accuracy": 0.75}
    return {"event": "round"} | fields | accuracies | {"bytes_received": 1000 * (round_ + 1)} | more


def evaluation_event(round_: int, client: str = "a", **more: Any) -> dict[str, Any]:
    """As a server has recorded them before clients told their curves."""
    fields = {"round": round_, "client": client, "cut_layer": 3, "samples": 10}
    accuracies = {"exit_accuracy": 0.4, "server_accuracy": 0.8}
    both = {"threshold": 0.5, "threshold_accuracy": 0.7, "offload_share": 0.6}
    count = {"bytes_received": 1000 * (round_ + 1)}
    return {"event": "evaluation"} | fields | accuracies | both | count | more


def labels(lines: Sequence[Any]) -> list[str]:
    return [line.label for line in lines]
