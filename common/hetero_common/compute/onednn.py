"""A way around an error of oneDNN, which computes torch's convolutions on a CPU.

In channels_last its gradient of the weights of a strided 1x1 convolution writes beyond its
workspace if there are fewer input channels than a vector register holds numbers: the process
aborts, or goes on with a damaged memory (uxlfoundation/oneDNN issue 6035; seen with torch 2.13.0 on
a CPU with AVX2). Such are the shortcuts of a narrow ResNet.
"""

from __future__ import annotations

from torch import Tensor, nn

_VECTOR = 16
"""Numbers of fp32 in the widest register, that of AVX-512."""


def avoid_overrun(model: nn.Module) -> None:
    """Let such convolutions of a model take the pixels that they need, and have no stride then."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _overruns(module):
            module.register_forward_pre_hook(_Stride(module.stride))
            module.stride = (1, 1)


def _overruns(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and convolution.padding == (0, 0)
        and max(convolution.stride) > 1
        and convolution.in_channels // convolution.groups < _VECTOR
    )


class _Stride:
    def __init__(self, stride: tuple[int, ...]) -> None:
        self._down, self._right = stride

    def __call__(self, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / down), ceil(W / right))."""
        return inputs[0][..., :: self._down, :: self._right]
