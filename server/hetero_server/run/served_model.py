"""A finished run's model that answers predictions, and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hetero_common.compute.device import Compute
from hetero_server.learning.initial_model import load_run
from hetero_server.learning.suffix import Suffix
from hetero_server.run.member import Member
from hetero_server.run.phase import Phase


class ServedModel:
    """All layers that a server can be asked for, as a run left them.

    Args:
        run: Directory of a finished run of a server.
        device: Where it computes: `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: The directory holds no finished run, or the device is not to be had.

    Attributes:
        initial: The model, its shapes and its fingerprint.
        plan: The agreement that it was trained by.
        phase: `Phase.SERVING`.
        round: 0, since nothing is trained.
        members: Nobody takes part.
        held_bytes: Bytes of the layers.
    """

    def __init__(self, run: Path, device: str = "cpu") -> None:
        self.initial = load_run(run)
        self.plan = self.initial.plan
        compute = Compute(device, self.plan.precision)
        self._suffix = Suffix(self.initial.fresh(cut_layer=1), self.plan, compute)
        self.phase = Phase.SERVING
        self.round = 0
        self.members: Mapping[str, Member] = {}
        self.held_bytes = self._suffix.nbytes()

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Class probabilities (B, classes) of an activation (B, ...), fp32 on the CPU.

        Args:
            activation: What the layers up to `cut_layer` have made of B inputs.
            cut_layer: The last layer that it has passed.
            client_id: Who asks; the answer is the same for everybody.

        Raises:
            RefusedInput: A value is too large to come from a trained layer.
        """
        return self._suffix.predict(activation, cut_layer)
