from __future__ import annotations

import pytest
import torch
from torch import nn

from hetero_common.errors import SettingsError
from hetero_common.models import MODELS, STEMS, build_model


def tiny(name: str, **settings: str) -> nn.Sequential:
    torch.manual_seed(0)
    return build_model(name, num_classes=3, width=8, **settings)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "layers"),
    [
        ("resnet18", 11_173_962, 10),
        ("resnet34", 21_282_122, 18),
        ("vgg11_bn", 9_228_362, 9),
        ("mobilenet_v2", 2_236_682, 20),
        ("tinycnn", 150_474, 6),
    ],
)
def test_size_at_width_64(name: str, parameters: int, layers: int) -> None:
    model = build_model(name, num_classes=10)
    assert (num_parameters(model), len(model)) == (parameters, layers)


@pytest.mark.parametrize("name", MODELS.names())
@pytest.mark.parametrize(
    ("stem", "image_size"), [("cifar", 4), ("cifar", 16), ("cifar", 32), ("imagenet", 96)]
)
def test_every_model_trains_on_small_and_large_images(
    name: str, stem: str, image_size: int
) -> None:
    model = tiny(name, stem=stem)
    logits = model(torch.rand(2, 3, image_size, image_size))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS.names())
def test_width_scales_every_model(name: str) -> None:
    wide = build_model(name, num_classes=3, width=32)
    assert num_parameters(wide) > 2 * num_parameters(tiny(name))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", MODELS.names())
def test_no_layer_changes_its_input_in_place(name: str, stem: str) -> None:
    activation = torch.randn(2, 3, 32, 32)
    for layer in tiny(name, stem=stem):
        sent = activation.clone()
        output = layer(activation)
        assert torch.equal(activation, sent)
        activation = output.detach()


@pytest.mark.parametrize("name", ["resnet50", "tinycnn:", ":tinycnn", "my-module:net", "a..b:net"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_model(name, num_classes=10)
    assert str(caught.value).startswith(
        f"unknown model '{name}': choose one of mobilenet_v2, resnet18, resnet34, tinycnn, "
        "vgg11_bn or your own as package.module:name"
    )


def test_an_unknown_stem_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        build_model("resnet18", num_classes=10, stem="stl")
    assert str(caught.value) == "unknown stem 'stl': choose one of cifar, imagenet"
