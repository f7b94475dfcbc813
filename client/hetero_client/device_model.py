"""The device's part of the model: prefix and exit heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.models import build_model, normalization
from hetero_common.models.exits import build_exit
from hetero_common.models.split import activation_shapes, fingerprint, split_model
from hetero_common.tensors.weights import Weights, layer_states, load_states, numbered


class DeviceModel:
    """Layers 1..cut_layer and exits after them. Its weights come from the server or a file.

    Args:
        plan: The agreement of the run.
        cut_layer: Last layer on the device.
        compute: Where they live.

    Raises:
        CutLayerOutOfRange: The model has no such cut layer.
        SettingsError: The plan describes no model that can be built.
    """

    def __init__(self, plan: Plan, cut_layer: int, compute: Compute) -> None:
        model = build_model(plan.model, num_classes=plan.classes, width=plan.width, stem=plan.stem)
        prefix, _ = split_model(model, cut_layer)
        shapes = activation_shapes(model, plan.image_size)
        self.cut_layer = cut_layer
        self.classes = plan.classes
        self.fingerprint = fingerprint(model, plan.image_size)
        self.activation_shape = shapes[cut_layer - 1]
        self.compute = compute
        self._normalize = normalization.parse(plan.normalization).apply
        compute.adopt(prefix)
        self.prefix = prefix
        self.heads = {
            layer: compute.adopt(build_exit(plan.exit_head, shapes[layer - 1], plan.classes))
            for layer in plan.exit_layers(cut_layer)
        }

    @property
    def head(self) -> nn.Module:
        """The exit that answers, the last one."""
        return self.heads[self.cut_layer]

    def modules(self) -> list[nn.Module]:
        """All modules that are trained."""
        return [self.prefix, *self.heads.values()]

    def train(self, mode: bool) -> None:
        """Switch BatchNorm and dropout between training and evaluation."""
        for module in self.modules():
            module.train(mode)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map uint8 images (B, 3, S, S) to the activation (B, *activation_shape) and exits' logits.

        Logits are (B, classes) each, those of the last exit last.
        """
        activation = self.compute.place(self._normalize(images))
        logits = []
        with self.compute.autocast():
            for number, layer in numbered(self.prefix).items():
                activation = layer(activation)
                if number in self.heads:
                    logits.append(self.heads[number](activation))
        return activation, logits

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Activation and the last exit's probabilities (B, classes), fp32 on the CPU, evaluated."""
        self.train(False)
        activation, logits = self.forward(images)
        return activation.float().cpu(), logits[-1].float().softmax(dim=1).cpu()

    def weights(self) -> Weights:
        """A copy of the weights."""
        return Weights(layer_states(numbered(self.prefix)), layer_states(self.heads))

    def load(self, weights: Weights) -> None:
        """Take over weights of this cut layer."""
        load_states(numbered(self.prefix), weights.layers)
        load_states(self.heads, weights.exits)
