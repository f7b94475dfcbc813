"""The learning rule of some layers: an optimizer, its schedule, and a bound on the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from hetero_common.compute import optimizers
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import NonFinite


class Recipe(optimizers.Recipe, Protocol):
    """What a learner takes from the agreement of a run; `hetero_common.agreement.Plan` has it."""

    @property
    def optimizer(self) -> str:
        """Name of the optimizer, in `optimizers.OPTIMIZERS` or the user's own."""

    @property
    def grad_clip(self) -> float:
        """Largest norm of one step's gradient; 0: no limit."""

    def learning_rate(self, base: float, at: StepAt) -> float:
        """Learning rate of one step."""


class Learner:
    """An optimizer over some layers, as the recipe of a run describes it.

    Layers can be added later (a client with a shallower cut joins), and parameters that had no
    part in a step stay untouched by it: no momentum, no decay.
    """

    def __init__(self, recipe: Recipe, base_lr: float, modules: Iterable[nn.Module]) -> None:
        self._recipe = recipe
        self._base_lr = base_lr
        self._parameters: list[nn.Parameter] = []
        self.optimizer: torch.optim.Optimizer | None = None
        for module in modules:
            self.add(module)

    def add(self, module: nn.Module) -> None:
        """Train the parameters of `module` too. Matrices decay; biases and BatchNorm do not."""
        parameters = list(module.parameters())
        self._parameters += parameters
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        for group in (group for group in groups if group["params"]):
            if self.optimizer is None:
                self.optimizer = self._build(group)
            else:
                self.optimizer.add_param_group(group)

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def step(self, at: StepAt) -> float:
        """Apply the gradients at the learning rate of this step of the run, clipped to the plan.

        Returns:
            Their norm before clipping, over all parameters together.

        Raises:
            NonFinite: It is not finite; no weight was changed.
        """
        if self.optimizer is None:
            return 0.0
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._recipe.grad_clip or math.inf))
        if not math.isfinite(norm):
            raise NonFinite("the gradient of this batch")
        rate = self._recipe.learning_rate(self._base_lr, at)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Momentum and the like, `K.NAME` for the K-th parameter in the order they were added."""
        if self.optimizer is None:
            return {}
        return {
            f"{index}.{name}": value.detach().to("cpu", copy=True)
            for index, held in self.optimizer.state_dict()["state"].items()
            for name, value in held.items()
            if value is not None
        }

    def nbytes(self) -> int:
        """Bytes of that state."""
        held = {} if self.optimizer is None else self.optimizer.state
        values = (value for state in held.values() for value in state.values())
        return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a `state` of a learner with the same parameters."""
        if self.optimizer is None:
            return
        held: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            index, _, name = key.partition(".")
            held.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": held, "param_groups": groups})

    def _build(self, group: dict[str, Any]) -> torch.optim.Optimizer:
        build = optimizers.OPTIMIZERS[self._recipe.optimizer]
        return build(group, self._base_lr, self._recipe)
