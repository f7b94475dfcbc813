from __future__ import annotations

import pytest
import torch
from torch import nn

from hetero_common.compute import device as compute
from hetero_common.compute.device import Compute
from hetero_common.errors import SettingsError

# Devices and precision.


@pytest.mark.parametrize("unit", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_auto_takes_any_bf16_unit_of_the_processor(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda found=probe == unit: found, raising=False)
    assert Compute(precision="auto").bf16
    monkeypatch.delattr(torch.cpu, unit)
    assert not Compute(precision="auto").bf16


@pytest.mark.parametrize("name", ["tpu", "mps", "meta", "", "cuda:x", "cpu:x"])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Compute(name)
    assert str(caught.value) == f"unknown device {name!r}: use cpu, cuda or cuda:N"


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:1", 1), ("cuda:7", 2)])
def test_a_device_that_is_not_there_is_named(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(SettingsError) as caught:
        Compute(name)
    assert str(caught.value) == (f"device {name} is not to be had: torch sees {count} CUDA devices")


@pytest.mark.parametrize(
    ("precision", "has_units", "expected"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", False, torch.float32),
        ("auto", True, torch.bfloat16),
    ],
)
def test_precision_decides_what_matrices_are_multiplied_in(
    precision: str, has_units: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "_has_bf16_units", lambda device: has_units)
    layer = nn.Linear(2, 2)
    with Compute("cpu", precision).autocast():
        assert layer(torch.ones(3, 2)).dtype is expected
    assert layer(torch.ones(3, 2)).dtype is torch.float32


def test_convolutions_and_their_inputs_are_channels_last() -> None:
    cpu = Compute()
    layer = nn.Conv2d(3, 4, 3)
    images, labels = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    assert cpu.adopt(layer) is layer
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    placed = cpu.place(images)
    assert placed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed, images)
    assert torch.equal(cpu.place(labels), labels)
