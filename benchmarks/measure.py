"""What a benchmark reports, and what it ran on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import google.protobuf
import grpc
import torch

SEED = 0
"""Of weights, data and activations in every benchmark."""


@dataclass(frozen=True)
class Result:
    """One measured value.

    Attributes:
        benchmark: Which one it belongs to.
        value: What was measured, with its unit unless it is a ratio.
        samples: One per repeat.
        bound: The median must not be above it; None where there is nothing to promise.
    """

    benchmark: str
    value: str
    samples: Sequence[float]
    bound: float | None = None

    @property
    def median(self) -> float:
        """The sample in the middle."""
        return statistics.median(self.samples)

    @property
    def ok(self) -> bool:
        """Whether the bound holds."""
        return self.bound is None or self.median <= self.bound

    def row(self) -> str:
        """A row of `HEADING`'s table; spread is from the lowest sample to the highest."""
        spread = f"{min(self.samples):.4g} to {max(self.samples):.4g}"
        verdict = "-" if self.bound is None else "yes" if self.ok else "NO"
        bound = "-" if self.bound is None else f"<= {self.bound:g}"
        cells = (self.benchmark, self.value, str(len(self.samples)), f"{self.median:.4g}")
        return f"| {' | '.join((*cells, spread, bound, verdict))} |"

    def record(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {
            "benchmark": self.benchmark,
            "value": self.value,
            "n": len(self.samples),
            "median": self.median,
            "samples": list(self.samples),
            "bound": self.bound,
            "ok": self.ok,
        }


HEADING = "| benchmark | value | n | median | spread | bound | ok |\n|---|---|---|---|---|---|---|"


def environment() -> dict[str, Any]:
    """Versions, machine, seed and date; the load says how quiet the machine was at the start."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "grpcio": grpc.__version__,
        "protobuf": google.protobuf.__version__,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "seed": SEED,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
