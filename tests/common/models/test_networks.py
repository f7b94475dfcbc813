from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from hetero_common.errors import SettingsError
from hetero_common.models import build_model

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
