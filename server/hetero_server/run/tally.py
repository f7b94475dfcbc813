"""The sums over a client's round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hetero_server.learning.step_outcome import StepOutcome


@dataclass
class Tally:
    """Sums over the steps of a round that the server model has taken.

    Attributes:
        outliers: Steps that were far beyond those of the other clients.
    """

    steps: int = 0
    samples: int = 0
    correct: int = 0
    loss_sum: float = 0.0
    gradient_norm_sum: float = 0.0
    gradient_norm_max: float = 0.0
    activation_peak_sum: float = 0.0
    activation_peak_max: float = 0.0
    outliers: int = 0

    def add(self, outcome: StepOutcome, rows: int) -> None:
        """Count one step of `rows` images."""
        self.steps += 1
        self.samples += rows
        self.correct += outcome.correct
        self.loss_sum += outcome.loss * rows
        self.gradient_norm_sum += outcome.gradient_norm
        self.gradient_norm_max = max(self.gradient_norm_max, outcome.gradient_norm)
        self.activation_peak_sum += outcome.activation_peak
        self.activation_peak_max = max(self.activation_peak_max, outcome.activation_peak)

    def record(self) -> dict[str, Any]:
        """Return what is recorded of a round: means over its samples, or over its steps."""
        samples, steps = max(1, self.samples), max(1, self.steps)
        return {
            "samples": self.samples,
            "server_loss": self.loss_sum / samples,
            "server_train_accuracy": self.correct / samples,
            "gradient_norm": self.gradient_norm_sum / steps,
            "gradient_norm_max": self.gradient_norm_max,
            "activation_peak": self.activation_peak_sum / steps,
            "activation_peak_max": self.activation_peak_max,
            "outliers": self.outliers,
        }
