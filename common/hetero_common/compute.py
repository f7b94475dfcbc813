"""One device's arithmetic: where tensors live, in which precision, with which learning rule."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from hetero_common import onednn, optimizers
from hetero_common.errors import NonFinite, SettingsError
from hetero_common.plan import Plan, StepAt
from hetero_common.sampling import derive_seed


class Compute:
    """Device and precision of one process.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16` or `auto`.

    Raises:
        SettingsError: The device is not to be had.
    """

    def __init__(self, device: str = "cpu", precision: str = "fp32") -> None:
        self.device = _device(device)
        self.bf16 = precision == "bf16" or (precision == "auto" and _has_bf16_units(self.device))

    def adopt(self, module: nn.Module) -> nn.Module:
        """Move a module here, in the memory format that convolutions are fastest in."""
        if self.device.type == "cpu":
            onednn.avoid_overrun(module)
        return module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Move images, activations or labels here."""
        if tensor.dim() == 4:
            return tensor.to(self.device, memory_format=torch.channels_last)
        return tensor.to(self.device)

    def autocast(self) -> torch.autocast:
        """The context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def seed_step(seed: int, *scope: object) -> None:
    """Seed the global generators for one step, so that dropout is a function of its scope too."""
    # torch.manual_seed() asks every backend there is, which takes longer than moving the batch.
    number = derive_seed(seed, *scope)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)


@contextlib.contextmanager
def seeded(seed: int, *scope: object) -> Iterator[None]:
    """Seed the global generator inside the block and put its state back after it."""
    with torch.random.fork_rng(devices=[]):
        seed_step(seed, *scope)
        yield


class Learner:
    """An optimizer over some layers, as the plan describes it.

    Layers can be added later (a client with a shallower cut joins), and parameters that had no
    part in a step stay untouched by it: no momentum, no decay.
    """

    def __init__(self, plan: Plan, base_lr: float, modules: Iterable[nn.Module]) -> None:
        self._plan = plan
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
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._plan.grad_clip or math.inf))
        if not math.isfinite(norm):
            raise NonFinite("the gradient of this batch")
        rate = self._plan.learning_rate(self._base_lr, at)
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
        plan = self._plan
        if plan.optimizer == "adam":
            return optimizers.Adam([group], lr=self._base_lr, weight_decay=plan.weight_decay)
        return optimizers.SGD(
            [group],
            lr=self._base_lr,
            momentum=plan.momentum,
            nesterov=plan.momentum > 0,
            weight_decay=plan.weight_decay,
        )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"unknown device {name!r}: use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device {name} is not to be had: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def _has_bf16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Private, and not in all versions of torch; AVX512-BF16 alone halves ResNet-18's training time.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
