"""What one step has done to the server model."""

from __future__ import annotations

from dataclasses import dataclass

from hetero_common.tensors.codec import Payload


@dataclass(frozen=True)
class StepOutcome:
    """A batch was applied.

    Attributes:
        loss: Mean cross-entropy over the batch, adjusted where the plan says so.
        correct: Images of the batch that were classified right.
        feedback: The gradient of the loss at the activation, (B, ...), or the logits, (B, classes),
            as the client gets them; None unless the plan asks for one.
        gradient_norm: Norm over all layers that took part, before clipping.
        activation_peak: Largest absolute value of the activation.
        is_joint: Others' batches were in the step too, and are behind its loss and gradient.
    """

    loss: float
    correct: int
    feedback: Payload | None = None
    gradient_norm: float = 0.0
    activation_peak: float = 0.0
    is_joint: bool = False

    def statistics(self) -> dict[str, float]:
        """Return what tells absurd input of this client, by the names of docs/runs.md."""
        own = {"activation_peak": self.activation_peak}
        if self.is_joint:  # nobody is sent away for what another has sent
            return own
        return {"server_loss": self.loss, "gradient_norm": self.gradient_norm} | own
