from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hetero_client.data.torchvision_shim import torchvision
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


def test_resnet18_has_readable_layer_names() -> None:
    names = [name for name, _ in tiny("resnet18").named_children()]
    assert names == ["stem", *(f"block{number}" for number in range(1, 9)), "head"]


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


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "mobilenet_v2"])
def test_computes_what_torchvision_computes(name: str) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, weights=None)
    images = torch.randn(2, 3, 64, 64)
    reference.train()(images)  # so that the running statistics are not all 0 and 1
    ours = build_model(name, num_classes=1000, stem="imagenet")

    theirs = reference.state_dict().values()
    state = dict(zip(ours.state_dict(), theirs, strict=True))
    ours.load_state_dict(state)  # checks every shape

    assert torch.equal(ours.eval()(images), reference.eval()(images))


def test_fresh_weights_are_drawn_as_in_torchvision() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=10, weights=None).state_dict()
    ours = build_model("resnet18", num_classes=10, stem="imagenet").state_dict()
    for (name, tensor), expected in zip(ours.items(), reference.values(), strict=True):
        if tensor.dim() == 4:  # the other tensors start as constants or are few
            assert tensor.std().item() == pytest.approx(expected.std().item(), rel=0.1), name
        elif "linear" not in name:
            assert torch.equal(tensor, expected), name


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


OWN_MODELS = """
from torch import nn


def net(num_classes):
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.LazyLinear(num_classes)
    )


def lazily(num_classes):
    from own_parts import head
    return nn.Sequential(nn.Flatten(), head(num_classes))


def module(num_classes):
    return nn.Linear(3, num_classes)


def single(num_classes):
    return nn.Sequential(nn.Linear(3, num_classes))


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def subclass(num_classes):
    return Residual(nn.ReLU(), nn.ReLU())


def broken(num_classes):
    raise ZeroDivisionError


NUMBER = 3
"""


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory like a user's, as a console script sees it: not on `sys.path`."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "models.py").write_text(OWN_MODELS)
    (package / "needy.py").write_text("import no_such_dependency")
    (tmp_path / "own_parts.py").write_text("from torch.nn import LazyLinear as head")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for name in ("own_package", "own_package.models", "own_package.needy", "own_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("own_models")
def test_a_model_of_your_own() -> None:
    path = list(sys.path)
    model = build_model("own_package.models:net", num_classes=7)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 7)
    assert sys.path == path


@pytest.mark.usefixtures("own_models")
def test_a_factory_may_import_its_neighbors_when_called() -> None:
    model = build_model("own_package.models:lazily", num_classes=7)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 7)


@pytest.mark.usefixtures("own_models")
def test_layers_of_your_own_leave_activations_alone() -> None:
    convolution, relu = build_model("own_package.models:net", num_classes=7)[:2].children()
    activation = convolution(torch.randn(2, 3, 8, 8))
    sent = activation.clone()
    relu(activation)
    assert torch.equal(activation, sent)


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "no_such_package.models:net",
            "model 'no_such_package.models:net' cannot be imported "
            "(No module named 'no_such_package'): "
            "start in the directory that holds it, or install what is missing",
        ),
        (
            "own_package.needy:net",
            "model 'own_package.needy:net' cannot be imported "
            "(No module named 'no_such_dependency'): "
            "start in the directory that holds it, or install what is missing",
        ),
        (
            "own_package.models:nett",
            "model 'own_package.models:nett' was not found: own_package.models has no 'nett'; "
            "define it there or correct the name",
        ),
        (
            "own_package.models:NUMBER",
            "model 'own_package.models:NUMBER' is no function: name one that returns the layers",
        ),
        (
            "own_package.models:module",
            "model 'own_package.models:module' returned Linear: "
            "it must return a plain torch.nn.Sequential of at least 2 layers",
        ),
        (
            "own_package.models:single",
            "model 'own_package.models:single' returned Sequential of length 1: "
            "it must return a plain torch.nn.Sequential of at least 2 layers",
        ),
        (
            "own_package.models:subclass",
            "model 'own_package.models:subclass' returned Residual of length 2: "
            "it must return a plain torch.nn.Sequential of at least 2 layers",
        ),
    ],
)
def test_what_is_wrong_with_a_model_of_your_own(name: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_model(name, num_classes=7)
    assert str(caught.value) == sentence


@pytest.mark.usefixtures("own_models")
def test_errors_inside_a_factory_keep_their_traceback() -> None:
    path = list(sys.path)
    with pytest.raises(ZeroDivisionError):
        build_model("own_package.models:broken", num_classes=7)
    assert sys.path == path
