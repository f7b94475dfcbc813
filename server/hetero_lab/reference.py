"""docs/settings.md: every setting of every command, from the settings models themselves.

python -m hetero_lab.reference > docs/settings.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from hetero_client.data.settings import DataSettings
from hetero_client.exits.settings import ExitSettings
from hetero_client.settings import (
    CalibrationSettings,
    ClientSettings,
    CredentialSettings,
    InferenceSettings,
    ModelExpectation,
    StatusSettings,
)
from hetero_common.agreement.plan import Plan
from hetero_common.registry import registry_of
from hetero_common.settings import Settings, tell_choices
from hetero_lab.report import ReportSettings
from hetero_lab.settings import SimulationSettings
from hetero_server.learning.strategies import STRATEGIES
from hetero_server.presets import PRESETS
from hetero_server.settings import (
    LimitSettings,
    MonitoringSettings,
    RunSettings,
    ServerSettings,
    StrategySettings,
)

COMMANDS: dict[str, type[Settings]] = {
    "hetero-server": ServerSettings,
    "hetero-client": ClientSettings,
    "hetero-infer": InferenceSettings,
    "hetero-status": StatusSettings,
    "hetero-sim": SimulationSettings,
    "hetero-report": ReportSettings,
}

_GROUPS: dict[type, str] = {
    Plan: "agreement",
    RunSettings: "run",
    StrategySettings: "strategy",
    LimitSettings: "limits",
    MonitoringSettings: "monitoring",
    DataSettings: "data",
    ExitSettings: "exits",
    ModelExpectation: "expectation",
    CalibrationSettings: "calibration",
    CredentialSettings: "credentials",
    Settings: "process",
}
"""Name of the group that a class's fields make up, in the order of the tables."""

_KINDS = {
    bool: "switch",
    int: "integer",
    float: "number",
    str: "text",
    SecretStr: "text",
    Path: "path",
}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

_PREFACE = """\
# Settings

Every command reads its settings from four places. The first that names a setting decides:

1. flags: `--batch-size 64`; a switch is `--insecure` or `--no-insecure`;
2. the environment: `HETERO_BATCH_SIZE=64`; a switch is `true` or `false`;
3. a YAML file given with `--config FILE` (or `HETERO_CONFIG`): `batch_size: 64`;
4. the default.

An unknown flag or YAML key, and a value of the wrong type or out of range, end the command before
it starts anything. So does a `HETERO_` variable that is almost the name of one of the command's
settings. Other `HETERO_` variables are ignored: they may belong to another command.

The resolved settings of a run are written to `settings.yaml` in its run directory, in the form that
`--config` reads (see [runs.md](runs.md)).

Exit codes: 0 done; 1 the run failed; 2 bad input, nothing was started; 130 interrupted.

The server decides the *agreement* and tells it to every client. A client brings what is its own:
cut layer, data, device, threads."""

_PRESETS = """\
`--preset NAME` of hetero-server and hetero-sim changes the defaults below; flags, environment and
YAML file still go before it. [method.md](method.md#presets) says which to use."""


def reference() -> str:
    """The whole page."""
    sections = (line for command in COMMANDS for line in _section(command))
    return "\n".join([_PREFACE, *_presets(), *sections])


def _presets() -> Iterator[str]:
    named = {name: preset for name, preset in PRESETS.items() if preset}
    keys = [key for key in SimulationSettings.model_fields if any(key in p for p in named.values())]
    yield from ("", "## Presets", "", _PRESETS, "")
    yield from (_row("flag", "default", *named), "|---" * (2 + len(named)) + "|")
    for key in keys:
        field = SimulationSettings.model_fields[key]
        given = (f"`{preset[key]}`" if key in preset else "" for preset in named.values())
        yield _row(_flag(key, field), _default(field), *given)


def _section(command: str) -> Iterator[str]:
    settings = COMMANDS[command]
    tell_choices(settings)
    yield from ("", f"## {command}", "", inspect.cleandoc(settings.__doc__ or ""), "")
    yield from ("| flag | value | default | meaning |", "|---|---|---|---|")
    for owner in (settings, *_GROUPS):
        fields = [item for item in settings.model_fields.items() if _owner(settings, item) is owner]
        if fields and owner is not settings:
            summary = inspect.cleandoc(owner.__doc__ or "").splitlines()[0]
            yield _row(f"**{_GROUPS[owner]}**", "", "", summary)
        for name, field in fields:
            meaning = " ".join((field.description or "").split())
            if owner is ModelExpectation:  # the agreement has said what the choices are
                meaning = meaning.partition(" One of:")[0]
            yield _row(_flag(name, field), _value(field), _default(field), meaning)


def _owner(settings: type[Settings], item: tuple[str, FieldInfo]) -> type:
    """The class whose body has the field; the options of a strategy are in their group."""
    owner = next(c for c in settings.__mro__ if item[0] in inspect.get_annotations(c))
    return StrategySettings if owner in STRATEGIES.options() else owner


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flag(name: str, field: FieldInfo) -> str:
    positional = get_origin(field.annotation) is tuple
    return f"`{name.upper()}...`" if positional else f"`--{name.replace('_', '-')}`"


def _value(field: FieldInfo) -> str:
    kind = _without_none(field.annotation)
    registry = registry_of(field)
    if registry is not None:
        return ", ".join([*(f"`{name}`" for name in registry.shown()), *registry.others()])
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    bounds = [
        f"{sign} {getattr(limit, attribute)}"
        for limit in field.metadata
        for attribute, sign in _BOUNDS.items()
        if hasattr(limit, attribute)
    ]
    return " ".join([_KINDS[kind], ", ".join(bounds)]).strip()


def _without_none(annotation: Any) -> Any:
    """`T` of `T | None`."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if type(None) in get_args(annotation) else annotation


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return "none" if field.default in (None, ()) else f"`{field.default}`"


def main() -> None:
    """Print the page."""
    print(reference())


if __name__ == "__main__":
    main()
