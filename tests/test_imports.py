"""The arrows between the packages, read from their sources; a new one is a decision to discuss."""

from __future__ import annotations

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSES = {
    "hetero_common": ROOT / "common",
    "hetero_server": ROOT / "server",
    "hetero_lab": ROOT / "server",
    "hetero_client": ROOT / "client",
    "hetero_splitee": ROOT / "proto",
}
MAY_IMPORT = {
    "hetero_splitee": set(),
    "hetero_common": {"hetero_splitee"},
    "hetero_server": {"hetero_common", "hetero_splitee"},
    "hetero_client": {"hetero_common", "hetero_splitee"},
    "hetero_lab": {"hetero_common", "hetero_server", "hetero_client"},
}
FLOORS = {
    "hetero_common": (
        "errors version",
        "registry",
        "compute models tensors",
        "agreement",
        "records wire",
        "settings",
        "about",
        "command",
    ),
    "hetero_client": (
        "data progress stopping",
        "device_metrics device_model",
        "exits link",
        "settings training",
        "commands",
        "__main__",
    ),
    "hetero_server": (
        "auth compute_thread learning presets",
        "run",
        "settings stragglers",
        "build monitoring",
        "runner",
        "net",
        "host",
        "__main__",
    ),
    "hetero_lab": (
        "method",
        "reading settings",
        "memory_link report resuming turns",
        "simulation",
        "methods",
        "__main__ fleet reference",
    ),
}
"""The rooms of each package, and the modules beside them, from the ground up.

A room imports rooms of lower floors only; those of one floor do not know each other.
"""
KNOW_GRPC = ("hetero_common.wire", "hetero_server.net", "hetero_client.link")
"""All that knows gRPC and the messages; `hetero_server.auth` knows the type of a call's context."""
NOT_IN_A_RUN = {"asyncio", "threading", "concurrent", "queue", "multiprocessing", "time", "socket"}
KNOW_TORCHVISION = {"hetero_client.data.torchvision_shim"}
KNOW_MATPLOTLIB = {"hetero_lab.report.drawing"}
KNOW_THE_WEB = {"hetero_server.monitoring.serving", "hetero_server.monitoring.site"}
MOST_MODULES, MOST_LINES, MOST_LINES_OF_A_FUNCTION = 15, 400, 60
ENTRY_POINTS = {"hetero_client.commands"}
"""Rooms of whose modules each is a command, and loads what that takes and no more."""
UNHEARD_OF = re.compile(r"\b(pickle|torch\.load|eval|exec|allow_pickle)\b")
"""Words that stand nowhere in the packages, comments included, so that a plain grep is proof."""
RUN_FOREIGN_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


@dataclass(frozen=True)
class Import:
    """One imported name: `torch.nn`, or `hetero_common.wire` for `from hetero_common import wire`.

    Attributes:
        runs_first: It stands at the top of the module, so the other module is imported before.
    """

    name: str
    runs_first: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module
    path: Path

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        return room_of(self.name)


def room_of(name: str) -> str:
    """The folder of its package that a module is in, or the module itself beside the folders."""
    return "".join(name.split(".")[1:2])


def read_modules() -> Iterator[Module]:
    for package, root in HOUSES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            yield Module(name, tree, path)


MODULES = list(read_modules())
NAMES = {module.name for module in MODULES}
OWN = [module for module in MODULES if module.package != "hetero_splitee"]


@functools.cache
def imports(tree: ast.Module) -> list[Import]:
    """All imports, those in functions and under TYPE_CHECKING too."""
    first = set(runs_at_import(tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node in first) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(Import(inner if inner in NAMES else str(node.module), node in first))
    return found


def runs_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, as far as imports are concerned."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.unparse(statement.test):
            yield from runs_at_import(statement.body + statement.orelse)
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from runs_at_import(statement.body + handlers + statement.orelse)
        elif isinstance(statement, ast.With):
            yield from runs_at_import(statement.body)


def foreign_code(tree: ast.Module) -> list[str]:
    """Ways to run what a file or a peer says."""
    found = [entry.name for entry in imports(tree) if entry.package in RUN_FOREIGN_CODE]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("eval", "exec"):
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
            found.append("torch.load")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of the graph, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


# The rules.


def test_a_house_imports_only_the_houses_below_it() -> None:
    for module in MODULES:
        houses = {entry.package for entry in imports(module.tree)} & set(HOUSES)
        assert houses - {module.package} <= MAY_IMPORT[module.package], module.name


@pytest.mark.parametrize("package", FLOORS)
def test_each_room_has_its_floor(package: str) -> None:
    named = [room for floor in FLOORS[package] for room in floor.split()]
    rooms = {module.room for module in OWN if module.package == package and module.room}
    assert len(named) == len(set(named))
    assert set(named) == rooms


def test_a_room_imports_only_rooms_of_lower_floors() -> None:
    for module in OWN:
        floors = {
            room: i for i, floor in enumerate(FLOORS[module.package]) for room in floor.split()
        }
        rooms = {
            room_of(entry.name)
            for entry in imports(module.tree)
            if entry.package == module.package and entry.name in NAMES
        } - {module.room, ""}
        above = {room for room in rooms if floors[room] >= floors.get(module.room, -1)}
        assert not above, f"{module.name} is on floor {floors.get(module.room)}"


def test_grpc_is_known_at_the_doors_only() -> None:
    for module in OWN:
        wire = {entry.name for entry in imports(module.tree) if is_wire(entry)}
        assert not wire or module.name.startswith(KNOW_GRPC), module.name


def test_a_run_knows_no_wire_no_thread_and_no_clock() -> None:
    for module in OWN:
        if f"{module.package}.{module.room}" in ("hetero_server.run", "hetero_server.learning"):
            known = {entry.package for entry in imports(module.tree)}
            assert known.isdisjoint(NOT_IN_A_RUN), module.name


def test_a_device_knows_its_link_by_its_protocol_only() -> None:
    for module in OWN:
        if module.name.startswith(
            tuple(f"hetero_client.{r}." for r in ("data", "exits", "training"))
        ):
            link = {e.name for e in imports(module.tree) if e.name.startswith("hetero_client.link")}
            assert link <= {"hetero_client.link.inbox", "hetero_client.link.protocol"}, module.name


def is_wire(entry: Import) -> bool:
    return entry.package.startswith("grpc") or entry.package in ("hetero_splitee", "google")


def test_torchvision_is_known_in_one_place_only() -> None:
    for module in OWN:
        known = {entry.package for entry in imports(module.tree)}
        assert "torchvision" not in known or module.name in KNOW_TORCHVISION, module.name


def test_matplotlib_is_known_in_one_place_only() -> None:
    for module in OWN:
        known = {entry.package for entry in imports(module.tree)}
        assert "matplotlib" not in known or module.name in KNOW_MATPLOTLIB, module.name
        assert known.isdisjoint({"starlette", "uvicorn"}) or module.name in KNOW_THE_WEB, (
            module.name
        )


def test_nothing_runs_what_a_file_or_a_peer_says() -> None:
    for module in OWN:
        assert foreign_code(module.tree) == [], module.name


@pytest.mark.parametrize("package", HOUSES)
def test_a_plain_grep_finds_no_such_word(package: str) -> None:
    for path in sorted((HOUSES[package] / package).rglob("*.*")):
        if path.suffix in (".py", ".pyi", ".proto"):
            assert UNHEARD_OF.findall(path.read_text(encoding="utf-8")) == [], path


def test_no_module_imports_itself_over_others() -> None:
    graph = {
        module.name: {
            entry.name for entry in imports(module.tree) if entry.runs_first and entry.name in NAMES
        }
        for module in MODULES
    }
    assert cycle(graph) == []


def test_the_bench_loads_no_grpc() -> None:
    modules = sorted(module.name for module in OWN if module.package == "hetero_lab")
    script = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert loaded >= set(modules)
    assert not loaded & {"grpc", "hetero_common.wire.rpc", "hetero_splitee"}


TRAIN = """
import sys
from hetero_lab.__main__ import main
assert main(sys.argv[1:]) == 0
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_loads_no_compiler(optimizer: str, tmp_path: Path) -> None:
    flags = ["--model", "tinycnn", "--image-size", "8", "--dataset", "digits", "--rounds", "2"]
    flags += ["--clients", "2", "--optimizer", optimizer, "--run-dir", str(tmp_path / "run")]
    program = [sys.executable, "-c", TRAIN, *flags]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("folder", sorted({module.path.parent for module in OWN}), ids=str)
def test_a_folder_can_be_looked_over(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_MODULES


def test_a_room_says_what_it_is_for_and_what_others_use() -> None:
    for module in OWN:
        if module.path.name == "__init__.py" and module.room:
            assert len((ast.get_docstring(module.tree) or "").split()) >= 8, module.name
            exports = [n for n in module.tree.body if ast.unparse(n).startswith("__all__ = ")]
            assert exports or module.name in ENTRY_POINTS, module.name


def test_files_and_functions_are_of_one_idea() -> None:
    for module in OWN:
        assert len(module.path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, module.name
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


# The tables, and what the rules can see.


def test_the_tables_name_modules_that_exist() -> None:
    assert {module.package for module in MODULES} == set(HOUSES) == set(MAY_IMPORT)
    assert NAMES >= KNOW_TORCHVISION | KNOW_MATPLOTLIB | KNOW_THE_WEB


@pytest.mark.parametrize("door", KNOW_GRPC)
def test_doors_that_no_longer_know_grpc_are_struck_off(door: str) -> None:
    assert any(is_wire(e) for m in OWN if m.name.startswith(door) for e in imports(m.tree))


SAMPLE = """
import grpc.aio as renamed
from hetero_common import wire, errors as e
from hetero_common.errors import HeteroError
if TYPE_CHECKING:
    import torchvision
else:
    import json
try:
    import scipy
except ImportError:
    import numpy

def late():
    from hetero_server.run.engine import Engine
"""


def test_an_import_is_seen_wherever_it_stands() -> None:
    assert set(imports(ast.parse(SAMPLE))) == {
        Import("grpc.aio", runs_first=True),
        Import("hetero_common.wire", runs_first=True),
        Import("hetero_common.errors", runs_first=True),
        Import("torchvision", runs_first=False),
        Import("json", runs_first=False),
        Import("scipy", runs_first=True),
        Import("numpy", runs_first=True),
        Import("hetero_server.run.engine", runs_first=False),
    }


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from dill import loads", ["dill"]),
        ("x = eval(text)", ["eval"]),
        ("run = exec", ["exec"]),
        ("torch.load(file)", ["torch.load"]),
        ("np.load(file, allow_pickle=True)", ["allow_pickle"]),
        ("model.eval()\nredis.load(x)\n'pickle'", []),
    ],
)
def test_foreign_code_is_seen(source: str, found: list[str]) -> None:
    assert foreign_code(ast.parse(source)) == found


def test_a_cycle_is_seen() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


FIRST_GRPC = """
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY"))
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Finder())
import {command}
"""


@pytest.mark.parametrize("command", ["hetero_server.__main__", "hetero_client.__main__"])
def test_grpc_is_told_to_be_silent_before_it_is_imported(command: str) -> None:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GRPC_")}
    program = [sys.executable, "-c", FIRST_GRPC.format(command=command)]
    done = subprocess.run(program, capture_output=True, text=True, env=variables, check=True)
    assert done.stdout == "NONE\n"
