"""The tests stand where their modules stand: tests/client/data/test_shard.py tests data/shard.py.

A file tests the module that it names: test_shard.py, or test_shard_hold_out.py for one aspect of
it. What a package says in its __init__.py is tested under the package's name, as in
models/test_models.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

TESTS = Path(__file__).parent
PACKAGES = {
    "common": TESTS.parent / "common" / "hetero_common",
    "client": TESTS.parent / "client" / "hetero_client",
    "server": TESTS.parent / "server" / "hetero_server",
    "lab": TESTS.parent / "server" / "hetero_lab",
}
TESTED_ELSEWHERE: dict[str, str] = {
    "client/__main__": "an entry point, which e2e/ runs as a process",
    "server/__main__": "an entry point, which e2e/ runs as a process",
    "server/learning/strategies/averaging": "held against the others in test_strategies.py",
    "server/learning/strategies/sequential": "held against the others in test_strategies.py",
    "server/run/member": "state of the engine, seen through it in test_engine*.py",
    "server/run/performer": "work of the engine, seen through it in test_engine*.py",
    "server/run/roster": "state of the engine, seen through it in test_engine*.py",
}
"""Modules without a test file of their own, and why."""


def modules() -> Iterator[tuple[PurePath, Path]]:
    """Each module as `client/data/shard`, a package as `client/data/__init__`, and its source."""
    for name, folder in PACKAGES.items():
        for source in sorted(folder.rglob("*.py")):
            yield PurePath(name) / source.relative_to(folder).with_suffix(""), source


def files() -> Iterator[PurePath]:
    """Each test file as `client/data/test_shard`."""
    for name in PACKAGES:
        for file in sorted((TESTS / name).rglob("test_*.py")):
            yield file.relative_to(TESTS).with_suffix("")


def does_something(source: Path) -> bool:
    """Whether anything in it can go wrong: constants, types and fields alone cannot."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return any(isinstance(n, functions) and not is_declaration(n) for n in ast.walk(tree))


def is_declaration(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether there is only a docstring, as in the methods of a protocol."""
    return all(
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        for statement in function.body
    )


MODULES = dict(modules())
TESTED = [
    module
    for module, source in MODULES.items()
    if module.name != "__init__" and does_something(source)
]


@pytest.mark.parametrize("module", TESTED, ids=str)
def test_every_module_has_its_test_file(module: PurePath) -> None:
    has_one = (TESTS / module.with_name(f"test_{module.name.strip('_')}.py")).exists()
    assert has_one or str(module) in TESTED_ELSEWHERE


@pytest.mark.parametrize("file", list(files()), ids=str)
def test_every_test_file_names_a_module(file: PurePath) -> None:
    words = file.name.removeprefix("test_").split("_")
    names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
    assert any(names_a_module(file.parent, name) for name in names)


def names_a_module(folder: PurePath, name: str) -> bool:
    is_package = name == folder.name and folder / "__init__" in MODULES
    return is_package or any(folder / each in MODULES for each in (name, f"__{name}__"))


@pytest.mark.parametrize("name", TESTED_ELSEWHERE)
def test_no_exception_outlives_its_reason(name: str) -> None:
    module = PurePath(name)
    assert module in TESTED
    assert not (TESTS / module.with_name(f"test_{module.name.strip('_')}.py")).exists()
