"""What a command tells of itself without doing anything: its version, and shell completions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pydantic_settings import CliSettingsSource

from hetero_common.errors import SettingsError
from hetero_common.registry import registry_of
from hetero_common.settings import Settings, tell_choices
from hetero_common.version import __version__

_SHELLS = ("bash", "zsh", "tcsh")


def told(program: str, settings_class: type[Settings], flags: Sequence[str]) -> str | None:
    """Return the text that these flags ask for; None if they are for work.

    Raises:
        SettingsError: A completion is asked for that there is none of.
    """
    match list(flags):
        case ["--version"]:
            return f"{program} {__version__}"
        case ["--print-completion", shell] if shell in _SHELLS:
            return _completion(program, settings_class, shell)
        case ["--print-completion", *_]:
            raise SettingsError(f"--print-completion takes one of {', '.join(_SHELLS)}")
    return None


def _completion(program: str, settings_class: type[Settings], shell: str) -> str:
    try:
        shtab = import_module("shtab")
    except ImportError:
        raise SettingsError(
            "--print-completion takes shtab: pip install 'hetero-splitee[completion]'"
        ) from None
    tell_choices(settings_class)
    source = CliSettingsSource[Any](settings_class, cli_prog_name=program)
    parser: argparse.ArgumentParser = source.root_parser
    for action in parser._actions:  # the names of the registries, which take others too
        field = settings_class.model_fields.get(action.dest)
        registry = field and registry_of(field)
        if registry:
            action.choices = registry.names()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--print-completion", choices=_SHELLS)
    return str(shtab.complete(parser, shell))
