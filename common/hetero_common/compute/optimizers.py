"""Optimizers by name: torch's, without what makes them ready for torch.compile.

The methods of an optimizer are wrapped so that torch's compiler keeps out of them, and the first
call of a wrapper loads the compiler to tell it so: some 70 MB of memory, and more than a second at
the start of each process, which a small device has better use for. Nothing here is compiled. The
arithmetic is torch's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import torch
from torch.optim import Optimizer

from hetero_common.registry import Registry

Kind = TypeVar("Kind", bound=Optimizer)

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _plain(kind: type[Kind]) -> type[Kind]:
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    # Among the wrappers of a step is the one that keeps autograd from recording it.
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return cast("type[Kind]", type(kind.__name__, (kind,), {**methods, "step": step}))


SGD = _plain(torch.optim.SGD)
Adam = _plain(torch.optim.Adam)


class Recipe(Protocol):
    """What an optimizer takes from the agreement of a run."""

    @property
    def momentum(self) -> float:
        """Momentum of SGD."""

    @property
    def weight_decay(self) -> float:
        """Decay of matrices; groups of other parameters say that they have none."""


Build = Callable[[dict[str, Any], float, Recipe], Optimizer]
"""(the first group of parameters, learning rate, recipe) -> the optimizer.

Groups come later too, by `add_param_group`, and the learning rate of each is set before each step.
Its state is kept in checkpoints as far as it is made of tensors, one of the parameter's own.
"""

OPTIMIZERS: Registry[Build] = Registry("optimizer")


@OPTIMIZERS.add("sgd", "SGD with Nesterov momentum")
def sgd(group: dict[str, Any], rate: float, recipe: Recipe) -> Optimizer:
    """SGD with Nesterov momentum, where the recipe has momentum."""
    return SGD(
        [group],
        lr=rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )


@OPTIMIZERS.add("adam", "Adam, whose decay is a part of the gradient")
def adam(group: dict[str, Any], rate: float, recipe: Recipe) -> Optimizer:
    """Adam with torch's coefficients."""
    return Adam([group], lr=rate, weight_decay=recipe.weight_decay)
