from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hetero_common.errors import CutLayerOutOfRange, SettingsError
from hetero_common.models import MODELS, build_model
from hetero_common.models.split import (
    ExitHead,
    activation_shapes,
    evaluation,
    fingerprint,
    named_layers,
    split_model,
)


def tiny(name: str = "tinycnn", *, seed: int = 0, num_classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return build_model(name, num_classes=num_classes, width=8)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS.names())
def test_prefix_then_suffix_is_the_model_at_every_cut(name: str, training: bool) -> None:
    model = tiny(name)
    images = torch.randn(4, 3, 16, 16)
    model(images)  # so that the running statistics are not all 0 and 1
    model.train(training)
    whole = copy.deepcopy(model)
    expected = whole(images)
    for cut_layer in range(1, len(model)):
        parts = copy.deepcopy(model)
        prefix, suffix = split_model(parts, cut_layer)
        assert torch.equal(suffix(prefix(images)), expected), cut_layer
        state = parts.state_dict()
        for key, value in whole.state_dict().items():  # BatchNorm saw the same batch
            assert torch.equal(state[key], value), (cut_layer, key)


@pytest.mark.parametrize("name", MODELS.names())
def test_gradients_through_the_cut_are_the_models(name: str) -> None:
    model = tiny(name)
    images = torch.randn(4, 3, 16, 16)
    model(images).square().sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for cut_layer in range(1, len(model)):
        model.zero_grad()
        prefix, suffix = split_model(model, cut_layer)
        sent = prefix(images)
        received = sent.detach().requires_grad_()
        suffix(received).square().sum().backward()
        sent.backward(received.grad)
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_the_parts_share_parameters_and_names_with_the_model() -> None:
    model = tiny("resnet18")
    prefix, suffix = split_model(model, 3)
    assert [name for name, _ in named_layers(prefix)] == ["stem", "block1", "block2"]
    parts = dict(prefix.named_parameters()) | dict(suffix.named_parameters())
    assert list(parts) == [name for name, _ in model.named_parameters()]
    assert all(parts[name] is parameter for name, parameter in model.named_parameters())


def test_a_module_that_serves_as_two_layers_stays_two_layers() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu)
    prefix, suffix = split_model(model, 3)
    assert [name for name, _ in named_layers(prefix)] == ["0", "1", "2"]
    assert [name for name, _ in named_layers(suffix)] == ["3"]
    assert activation_shapes(model, 5) == [(4, 5, 5)] * 4


@pytest.mark.parametrize("cut_layer", [-1, 0, 6, 7])
def test_a_cut_layer_out_of_range(cut_layer: int) -> None:
    with pytest.raises(CutLayerOutOfRange) as caught:
        split_model(tiny(), cut_layer)
    assert str(caught.value) == (
        f"cut layer {cut_layer} is out of range: choose one of 1..5: "
        "1 (conv1), 2 (conv2), 3 (conv3), 4 (conv4), 5 (conv5)"
    )


@pytest.mark.parametrize("trailing", [(), (5,), (4, 6), (2, 3, 4)])
def test_an_exit_head_averages_all_but_batch_and_channels(trailing: tuple[int, ...]) -> None:
    head = ExitHead(7, 3)
    activation = torch.randn(2, 7, *trailing)
    pooled = activation.reshape(2, 7, -1).mean(dim=2)
    torch.testing.assert_close(head(activation), head.linear(pooled))


def test_activation_shapes_of_resnet18() -> None:
    blocks = [(8, 32, 32)] * 2 + [(16, 16, 16)] * 2 + [(32, 8, 8)] * 2 + [(64, 4, 4)] * 2
    assert activation_shapes(tiny("resnet18"), 32) == [(8, 32, 32), *blocks, (3,)]


@pytest.mark.parametrize("name", MODELS.names())
def test_activation_shapes_are_those_of_a_real_batch(name: str) -> None:
    model = tiny(name)
    activation = torch.randn(2, 3, 16, 16)
    for layer, shape in zip(model, activation_shapes(model, 16), strict=True):
        activation = layer(activation)
        assert activation.shape[1:] == shape


def test_activation_shapes_leave_the_model_as_it_is() -> None:
    model = tiny("resnet18")
    model[0].eval()  # a mode that differs from its parent's
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    activation_shapes(model, 16)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_modes_come_back_after_an_error() -> None:
    model = tiny()
    with pytest.raises(ZeroDivisionError), evaluation(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            nn.Sequential(nn.MaxPool2d(4), nn.MaxPool2d(4), nn.Flatten()),
            "the model cannot take images of 8x8: layer 1 refuses an input of 3x2x2; "
            "choose another image size",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)),
            "the model cannot take images of 8x8: layer 1 refuses an input of 192; "
            "choose another image size",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(inplace=True))),
            "layer 1 overwrites its input, which the client may still be sending: "
            "build it with inplace=False",
        ),
    ],
)
def test_what_is_wrong_with_a_model_or_its_image_size(model: nn.Sequential, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        activation_shapes(model, 8)
    assert str(caught.value) == sentence


def test_a_fingerprint_identifies_the_architecture_only() -> None:
    trained = tiny(seed=1)
    trained(torch.randn(2, 3, 16, 16))
    assert fingerprint(tiny(seed=0), 16) == fingerprint(trained.eval(), 16)


def test_a_fingerprint_is_the_same_on_every_machine_and_version() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    canonical = (
        '[{"output":[2,4,4],"state":[["bias",[2],"float32"],["weight",[2,3,1,1],"float32"]]},'
        '{"output":[2,4,4],"state":[["bias",[2],"float32"],["num_batches_tracked",[],"int64"],'
        '["running_mean",[2],"float32"],["running_var",[2],"float32"],["weight",[2],"float32"]]}]'
    )
    assert fingerprint(model, 4) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda: fingerprint(build_model("tinycnn", num_classes=3, width=9), 16),
        lambda: fingerprint(tiny(num_classes=4), 16),
        lambda: fingerprint(tiny(), 20),
        lambda: fingerprint(tiny().double(), 16),
        lambda: fingerprint(with_layer(2, nn.Conv2d(8, 8, 3, padding=1)), 16),
        lambda: fingerprint(with_layer(2, nn.Identity()), 16),
        lambda: fingerprint(tiny("vgg11_bn"), 16),
    ],
    ids=["width", "classes", "image size", "dtype", "layer", "weightless layer", "model"],
)
def test_a_fingerprint_differs_when_the_architecture_does(change: Callable[[], str]) -> None:
    assert change() != fingerprint(tiny(), 16)


def with_layer(index: int, layer: nn.Module) -> nn.Sequential:
    model = tiny()
    model[index] = layer
    return model
