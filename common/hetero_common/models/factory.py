"""Models that users bring along, named `package.module:factory`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from torch import nn

from hetero_common.errors import SettingsError


def is_factory(name: str) -> bool:
    """Whether a model's name has the form `package.module:factory`."""
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), function))


def model_from_factory(name: str, num_classes: int) -> nn.Sequential:
    """Import and call `factory(num_classes=num_classes)`.

    Exceptions of the user's own code pass through: to mend it, they need the traceback.

    Raises:
        SettingsError: The factory was not found, or what it returns cannot be split.
    """
    with _current_directory_on_path():
        model = _import_factory(name)(num_classes=num_classes)
    # A subclass may have a forward of its own, which layers run one by one would not follow.
    if type(model) is not nn.Sequential or len(model) < 2:
        raise SettingsError(
            f"model {name!r} returned {_describe(model)}: "
            "it must return a plain torch.nn.Sequential of at least 2 layers"
        )
    _keep_activations(model)
    return model


def _import_factory(name: str) -> Callable[..., object]:
    module_name, _, function_name = name.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"model {name!r} cannot be imported ({error}): "
            "start in the directory that holds it, or install what is missing"
        ) from error
    factory: object = getattr(module, function_name, None)
    if not callable(factory):
        raise SettingsError(
            f"model {name!r} was not found: {module_name} has no function {function_name!r}; "
            "define it there or correct the name"
        )
    return factory


@contextmanager
def _current_directory_on_path() -> Iterator[None]:
    """Import from where the user stands, as `python -m` does and a console script does not."""
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


def _keep_activations(model: nn.Sequential) -> None:
    """Stop layers such as `ReLU(inplace=True)` from overwriting the previous layer's activation.

    That activation may be on its way to the server or wait for the exit head's backward pass.
    `hetero_common.models.split.activation_shapes` refuses what stays hidden inside a layer.
    """
    for layer in model:
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]  # typed as if all were submodules


def _describe(model: object) -> str:
    kind = type(model).__name__
    return f"{kind} of length {len(model)}" if isinstance(model, nn.Sequential) else kind
