"""One typed settings model per command, read from flags, environment and YAML, in that order."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableFlags
from typing_extensions import Self

from hetero_common.errors import SettingsError
from hetero_common.records.logs import LogFormat
from hetero_common.registry import registry_of

ENV_PREFIX = "HETERO_"

S = TypeVar("S", bound="Settings")


class Settings(BaseSettings):
    """Settings that every command has."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        env_prefix=ENV_PREFIX,
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
    )

    other_commands: ClassVar[frozenset[str]] = frozenset()
    """Settings of other commands that could be taken for a misspelt one of this command."""

    config: Path | None = None
    """YAML file with any of these settings, names with underscores."""
    device: str = "cpu"
    """Where torch computes: cpu, cuda or cuda:N."""
    threads: int = Field(1, ge=1)
    """Threads of torch; raise it when this process has the machine to itself."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged to standard error: with error what went wrong for good, with warning what was
    mended, with info how the run goes, with debug each round and who changes state."""
    quiet: bool = False
    """Log warnings and errors only."""
    verbose: bool = False
    """Log everything, as with --log-level debug."""
    log_format: LogFormat = "text"
    """Lines for people, or one JSON object per line."""

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        if self.quiet and self.verbose:
            raise ValueError("--quiet and --verbose are opposites: give one of them")
        return self

    def level(self) -> str:
        """The level from which on to log."""
        if self.verbose:
            return "debug"
        return "warning" if self.quiet and self.log_level in ("debug", "info") else self.log_level

    def base(self) -> Mapping[str, Any]:
        """Values that hold where nothing else sets them; by default, none but the defaults.

        Raises:
            SettingsError: They cannot be read.
        """
        return {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the YAML file, which arrives as keyword arguments."""
        return env_settings, init_settings


def host_and_port(text: str) -> str:
    """The text, for validators of settings.

    Raises:
        ValueError: It is not HOST:PORT.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("write HOST:PORT, such as 127.0.0.1:50051")
    return text


def tell_choices(settings_class: type[Settings]) -> None:
    """Let the descriptions of settings, which are their help texts, tell what registries hold."""
    for field in settings_class.model_fields.values():
        registry = registry_of(field)
        choices = registry and f"One of: {registry.told()}."
        if choices and choices not in (field.description or ""):
            field.description = f"{field.description} {choices}"


def load(settings_class: type[S], flags: Sequence[str], program: str) -> S:
    """Read the settings of a command.

    Raises:
        SettingsError: A flag, variable, key or value is unknown or out of range, or the YAML file
            cannot be read; one sentence.
    """
    _refuse_misspelt_variables(settings_class)
    tell_choices(settings_class)
    file = _config_file(flags)
    given = read_yaml(Path(file), settings_class) if file else {}
    settings = _resolve(settings_class, flags, program, given)
    base = settings.base()
    return _resolve(settings_class, flags, program, {**base, **given}) if base else settings


def _resolve(
    settings_class: type[S], flags: Sequence[str], program: str, given: Mapping[str, Any]
) -> S:
    try:
        return settings_class(_cli_parse_args=list(flags), _cli_prog_name=program, **given)
    except UnreadableFlags as error:
        raise SettingsError(_explain_flags(str(error), settings_class)) from None
    except ValidationError as error:
        raise SettingsError(_explain_values(error, settings_class)) from None


def as_yaml(settings: Settings) -> str:
    """The resolved settings, in the form that `--config` reads; what is secret is left out."""
    secret = {name for name, value in settings if isinstance(value, SecretStr)}
    values = settings.model_dump(mode="json", exclude={"config", *secret}, exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False)


def first_difference(
    model: type[BaseModel], held: Mapping[str, Any], given: Mapping[str, Any]
) -> str | None:
    """The first setting in which two sets of values differ, as YAML or JSON has them.

    One that is absent has its default: a version that did not know it has run with that.

    Args:
        model: Says which settings there are, and their defaults.
        held: Values that were written down.
        given: Values of now.

    Returns:
        Its name, in the order of the settings; None if all are equal.

    Raises:
        SettingsError: A value was written down that this version does not know.
    """
    for name in held:
        if name not in model.model_fields:
            raise SettingsError(
                f"setting {name.replace('_', '-')} is of another version of hetero-splitee: "
                "go on with the version that wrote it"
            )
    for name, field in model.model_fields.items():
        default = None if field.is_required() else _plain(field.get_default())
        if _plain(held.get(name, default)) != _plain(given.get(name, default)):
            return name
    return None


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def read_yaml(file: Path, settings_class: type[Settings]) -> Mapping[str, Any]:
    """Values for settings of this class from a file.

    Raises:
        SettingsError: It cannot be read, or names something else; one sentence.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"settings file {file} is not valid YAML: {reason}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"settings file {file} must hold `name: value` lines")
    for key in values:
        if key not in settings_class.model_fields:
            raise SettingsError(_unknown(key, settings_class))
    return values


def _config_file(flags: Sequence[str]) -> str | None:
    file = os.environ.get(f"{ENV_PREFIX}CONFIG")
    for index, flag in enumerate(flags):
        if flag == "--config":
            file = next(iter(flags[index + 1 :]), None)
        elif flag.startswith("--config="):
            file = flag.removeprefix("--config=")
    return file


def _refuse_misspelt_variables(settings_class: type[Settings]) -> None:
    """A variable close to a setting is a misspelling; others belong to the other commands."""
    names = [f"{ENV_PREFIX}{name.upper()}" for name in settings_class.model_fields]
    known = {*names, *(f"{ENV_PREFIX}{name.upper()}" for name in settings_class.other_commands)}
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, names, n=1, cutoff=0.9)
            if close:
                raise SettingsError(f"unknown variable {variable}: did you mean {close[0]}?")


def _explain_flags(message: str, settings_class: type[Settings]) -> str:
    reason = message.removeprefix("error parsing CLI: ").strip()
    unknown = re.search(r"unrecognized arguments: (\S+)", reason)
    if unknown is None:
        return reason
    return _unknown(unknown[1], settings_class)


def _explain_values(error: ValidationError, settings_class: type[Settings]) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    reason = reason[0].lower() + reason[1:]
    return f"setting {name.replace('_', '-')}: {reason}, got {given!r}" if name else reason


def _unknown(name: str, settings_class: type[Settings]) -> str:
    fields = list(settings_class.model_fields)
    known = [f"--{field.replace('_', '-')}" for field in fields] if name[:1] == "-" else fields
    close = difflib.get_close_matches(name.split("=")[0], known, n=1)
    hint = f"did you mean {close[0]}?" if close else "see --help for the known ones"
    return f"unknown setting {name}: {hint}"
