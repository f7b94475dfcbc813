"""The device's part of the model: prefix and exit head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hetero_common import normalization
from hetero_common.compute import Compute
from hetero_common.models import build_model
from hetero_common.plan import Plan
from hetero_common.split import ExitHead, activation_shapes, fingerprint, split_model
from hetero_common.weights import Weights, layer_states, load_states, numbered


class DeviceModel:
    """Layers 1..cut_layer and the exit after them. Its weights come from the server or a file.

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
        self.fingerprint = fingerprint(model, plan.image_size)
        self.activation_shape = shapes[cut_layer - 1]
        self.compute = compute
        self._normalize = normalization.parse(plan.normalization).apply
        compute.adopt(prefix)
        self.prefix = prefix
        self.head = compute.adopt(ExitHead(self.activation_shape[0], plan.classes))

    def modules(self) -> tuple[nn.Module, nn.Module]:
        """What is trained."""
        return self.prefix, self.head

    def train(self, mode: bool) -> None:
        """Switch BatchNorm and dropout between training and evaluation."""
        self.prefix.train(mode)
        self.head.train(mode)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Activation (B, *activation_shape) and exit logits (B, classes) of uint8 (B, 3, S, S)."""
        inputs = self.compute.place(self._normalize(images))
        with self.compute.autocast():
            activation = self.prefix(inputs)
            return activation, self.head(activation)

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Activation and exit probabilities (B, classes) in evaluation mode, fp32 on the CPU."""
        self.train(False)
        activation, logits = self.forward(images)
        return activation.float().cpu(), logits.float().softmax(dim=1).cpu()

    def weights(self) -> Weights:
        """A copy of the weights."""
        return Weights(
            layer_states(numbered(self.prefix)), layer_states({self.cut_layer: self.head})
        )

    def load(self, weights: Weights) -> None:
        """Take over weights of this cut layer."""
        load_states(numbered(self.prefix), weights.layers)
        load_states({self.cut_layer: self.head}, weights.exits)
