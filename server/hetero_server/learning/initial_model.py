"""The model a run starts from: its weights, its shapes, and what a client must match."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from hetero_common.agreement.plan import Plan
from hetero_common.compute.seeding import seeded
from hetero_common.errors import CutLayerOutOfRange, RefusedInput, SettingsError
from hetero_common.models import build_model
from hetero_common.models.exits import build_exit
from hetero_common.models.split import activation_shapes, fingerprint, named_layers
from hetero_common.records.rundir import MODEL_FILE, read_plan
from hetero_common.tensors.weights import Weights, layer_states, load_states, numbered, read_file


class InitialModel:
    """The whole model and an exit head per cut layer, seeded by the plan.

    Raises:
        SettingsError: The plan describes no model that can be built.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        with seeded(plan.seed, "model"):
            model = build_model(
                plan.model, num_classes=plan.classes, width=plan.width, stem=plan.stem
            )
            self.shapes = activation_shapes(model, plan.image_size)
            self._heads: dict[int, nn.Module] = {
                cut: build_exit(plan.exit_head, self.shapes[cut - 1], plan.classes)
                for cut in range(1, len(model))
            }
        self.names = [name for name, _ in named_layers(model)]
        self.fingerprint = fingerprint(model, plan.image_size)
        self._modules = numbered(model)
        self.weights = Weights(layer_states(self._modules), layer_states(self._heads))

    def require_cut(self, cut_layer: int) -> None:
        """Raise CutLayerOutOfRange unless the model can be cut there."""
        if not 1 <= cut_layer < len(self._modules):
            raise CutLayerOutOfRange(cut_layer, self.names)

    def fresh(self, cut_layer: int) -> Mapping[int, nn.Module]:
        """New modules for layers cut_layer+1..L at the initial weights."""
        return {k: copy.deepcopy(m) for k, m in self._modules.items() if k > cut_layer}

    def fresh_exits(self, cut_layer: int) -> Mapping[int, nn.Module]:
        """New exits, those of the plan, after layers beyond the cut layer."""
        listed = (k for k in self._heads if k > cut_layer and self.plan.has_exit_after(k))
        return {k: copy.deepcopy(self._heads[k]) for k in listed}

    def load(self, weights: Weights) -> None:
        """Start from trained weights instead.

        Raises:
            RefusedInput: They are not of this model.
        """
        Weights(weights.layers).require_like(Weights(self.weights.layers))
        load_states(self._modules, weights.layers)
        self.weights = weights


def load_run(run: Path) -> InitialModel:
    """The trained model of a server's finished run directory.

    Raises:
        SettingsError: It holds no finished run.
    """
    plan = read_plan(run)
    weights, _ = read_file(run / MODEL_FILE)
    initial = InitialModel(plan)
    try:
        initial.load(weights)
    except RefusedInput:
        raise SettingsError(f"{run} does not hold a whole model of its plan") from None
    return initial
