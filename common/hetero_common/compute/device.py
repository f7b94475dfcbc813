"""One device's arithmetic: where tensors live, and in which precision."""

from __future__ import annotations

import torch
from torch import nn

from hetero_common.compute import onednn
from hetero_common.errors import SettingsError


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
