from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hetero_common.compute import optimizers

_WITHOUT_THE_COMPILER = """
import sys, torch
from torch import nn
from hetero_common.compute.optimizers import SGD, Adam
layer = nn.Linear(2, 1)
for kind in (SGD, Adam):
    optimizer = kind(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
print("torch._dynamo" in sys.modules)
"""


def some_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("ours", "torchs", "flags"),
    [
        (optimizers.SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (optimizers.Adam, torch.optim.Adam, {"weight_decay": 0.1}),
    ],
)
def test_steps_are_torchs_own_bit_for_bit(
    ours: Callable[..., torch.optim.Optimizer],
    torchs: Callable[..., torch.optim.Optimizer],
    flags: dict[str, Any],
) -> None:
    ends = []
    for kind in (ours, torchs):
        layers = some_layers()
        optimizer = kind(layers.parameters(), lr=0.1, **flags)
        for number in range(4):
            images = torch.randn(5, 4, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            layers(images).square().sum().backward()
            optimizer.step()
        ends.append([parameter.detach() for parameter in layers.parameters()])
    assert all(map(torch.equal, *ends))
    assert not all(map(torch.equal, ends[0], some_layers().parameters()))


def test_a_step_is_not_recorded_for_gradients() -> None:
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizers.SGD(layer.parameters(), lr=0.1).step()  # recorded, a leaf changed in place raises
    assert layer.weight.is_leaf and layer.weight.requires_grad


def test_nothing_of_the_compiler_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THE_COMPILER], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
