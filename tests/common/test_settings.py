from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hetero_client.settings import ClientSettings, InferenceSettings
from hetero_common import settings
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_common.settings import Settings, as_yaml
from hetero_lab.settings import SimulationSettings
from hetero_server.settings import ServerSettings

COMMANDS: list[type[Settings]] = [ServerSettings, ClientSettings, SimulationSettings]
each_command = pytest.mark.parametrize("command", COMMANDS)


pytestmark = pytest.mark.usefixtures("unset_settings")


def server(*flags: str) -> ServerSettings:
    return settings.load(ServerSettings, flags, "hetero-server")


def refusal(*flags: str, command: type[Settings] = ServerSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load(command, flags, "hetero")
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    return sentence


def config(content: str | bytes, name: str = "settings.yaml") -> str:
    data = content.encode() if isinstance(content, str) else content
    Path(name).write_bytes(data)
    return name


# Sources.


@each_command
def test_without_any_source_the_defaults_hold(command: type[Settings]) -> None:
    chosen = settings.load(command, [], "hetero")
    defaults = {name: field.get_default() for name, field in command.model_fields.items()}
    assert chosen.model_dump() == defaults


@pytest.mark.parametrize(
    "sources",
    [set(c) for n in range(4) for c in itertools.combinations(("yaml", "env", "flag"), n)],
)
def test_flags_go_before_the_environment_before_yaml_before_defaults(
    sources: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"yaml": 8, "env": 16, "flag": 64}
    flags = ["--rounds", "9"]
    if "yaml" in sources:
        flags += ["--config", config(f"batch_size: {given['yaml']}\nwidth: 5")]
    if "env" in sources:
        monkeypatch.setenv("HETERO_BATCH_SIZE", str(given["env"]))
    if "flag" in sources:
        flags += ["--batch-size", str(given["flag"])]
    chosen = server(*flags)
    strongest = max((given[source] for source in sources), default=Plan().batch_size)
    assert chosen.batch_size == strongest
    assert chosen.rounds == 9
    assert chosen.width == (5 if "yaml" in sources else Plan().width)


def test_a_settings_file_is_named_in_any_way(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = config("rounds: 3", "first.yaml"), config("rounds: 4", "second.yaml")
    assert server("--config", first).rounds == 3
    assert server(f"--config={first}").rounds == 3
    monkeypatch.setenv("HETERO_CONFIG", first)
    assert server("--width", "8").rounds == 3
    assert server("--config", second).rounds == 4


def test_of_a_flag_given_twice_the_last_one_counts() -> None:
    first, second = config("rounds: 3", "first.yaml"), config("rounds: 4", "second.yaml")
    assert server("--rounds", "1", "--rounds", "2").rounds == 2
    chosen = server("--config", first, "--config", second)
    assert chosen.config == Path(second)
    assert chosen.rounds == 4


def test_switches_take_no_value() -> None:
    assert server("--insecure").insecure
    assert not server("--config", config("insecure: true"), "--no-insecure").insecure
    assert refusal("--insecure", "true").startswith("unknown setting true: ")
    assert refusal("--config", config("insecure: perhaps")).startswith("setting insecure: ")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        server("--rounds", "3").rounds = 4  # type: ignore[misc]  # what is tested


def test_the_plan_is_what_both_sides_agree_on_and_nothing_else() -> None:
    chosen = server("--rounds", "7", "--wire", "int8", "--clients", "3", "--listen", "[::1]:0")
    assert type(chosen.plan()) is Plan
    assert chosen.plan() == Plan(rounds=7, wire="int8")


# The resolved settings.


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (ServerSettings, ["--rounds", "3"]),
        (
            ServerSettings,
            [
                *("--strategy", "averaging", "--order", "relay", "--aggregate-every", "4"),
                *("--listen", "0.0.0.0:0", "--insecure", "--clients", "12", "--credits", "1"),
                *("--serve", "runs/größe", "--run-dir", "runs/x y", "--seed", str(2**63 - 1)),
                *("--weight-decay", "1e-7", "--client-lr", "0.1", "--normalization", "0,0,0/1,1,1"),
            ],
        ),
        (
            ClientSettings,
            [
                *("--cut-layer", "3", "--client-id", "no", "--shard", "2/3", "--classes", "7"),
                *("--dataset", "folder:a: b", "--data-dir", "~/data", "--threshold", "-1"),
                *("--connect-timeout", "0.5", "--list-cuts", "--model", "my.models:build"),
            ],
        ),
        (
            SimulationSettings,
            ["--cut-layers", "3", "--method", "centralized", "--log-level", "debug"],
        ),
    ],
)
def test_resolved_settings_are_read_back_the_same(
    command: type[Settings], flags: list[str]
) -> None:
    chosen = settings.load(command, flags, "hetero")
    again = settings.load(command, ["--config", config(as_yaml(chosen))], "hetero")
    assert again.model_dump(exclude={"config"}) == chosen.model_dump(exclude={"config"})


def test_resolved_settings_name_every_value_but_the_file_they_came_from() -> None:
    chosen = server("--config", config("rounds: 3"))
    values: dict[str, Any] = yaml.safe_load(as_yaml(chosen))
    assert values["rounds"] == 3
    unset = {name for name, value in chosen.model_dump().items() if value is None}
    assert set(values) == set(ServerSettings.model_fields) - unset - {"config"}


# Help.


@pytest.mark.parametrize("command", [*COMMANDS, InferenceSettings])
def test_every_setting_is_explained(
    command: type[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.load(command, ["--help"], "hetero")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in command.model_fields.items():
        assert field.description, name
        assert name == "images" or f"--{name.replace('_', '-')}" in shown  # it has no flag
        assert " ".join(field.description.split()) in shown, name


# Mistakes.


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--bach-size", "7"], "unknown setting --bach-size: did you mean --batch-size?"),
        (["--bach-size=7"], "unknown setting --bach-size=7: did you mean --batch-size?"),
        (["--batch_size", "7"], "unknown setting --batch_size: did you mean --batch-size?"),
        (["--batch", "7"], "unknown setting --batch: did you mean --batch-size?"),
        (["--zzz"], "unknown setting --zzz: see --help for the known ones"),
        (["xyzzy"], "unknown setting xyzzy: see --help for the known ones"),
        (["--rounds"], "argument --rounds: expected one argument"),
        (["--config"], "argument --config: expected one argument"),
    ],
)
def test_an_unknown_flag_is_named_with_what_may_be_meant(flags: list[str], sentence: str) -> None:
    assert refusal(*flags) == sentence


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("bach_size", "did you mean batch_size?"),
        ("batch-size", "did you mean batch_size?"),
        ("zzz", "see --help for the known ones"),
        ("_case_sensitive", "see --help for the known ones"),
        ("_cli_prog_name", "see --help for the known ones"),
    ],
)
def test_an_unknown_key_is_named_with_what_may_be_meant(key: str, hint: str) -> None:
    assert refusal("--config", config(f"{key}: 1")) == f"unknown setting {key}: {hint}"


def test_a_misspelt_variable_is_named_with_what_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETERO_BACH_SIZE", "7")
    expected = "unknown variable HETERO_BACH_SIZE: did you mean HETERO_BATCH_SIZE?"
    assert refusal("--rounds", "3") == expected


@pytest.mark.parametrize("variable", ["HETERO_CUT_LAYER", "HETERO_FLEET_NAME"])
def test_variables_of_other_commands_are_ignored(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    assert server("--rounds", "3").rounds == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("rounds: [1", "is not valid YAML: "),
        (b"rounds: \xff", "is not valid YAML: "),
        ("rounds: 1\n\tx: 2", "is not valid YAML: "),
        ("", "must hold `name: value` lines"),
        ("- rounds", "must hold `name: value` lines"),
        ("rounds", "must hold `name: value` lines"),
        ("1: 2", "must hold `name: value` lines"),
    ],
)
def test_a_file_that_holds_no_settings(content: str | bytes, reason: str) -> None:
    file = config(content)
    assert refusal("--config", file).startswith(f"settings file {file} {reason}")


@pytest.mark.parametrize(
    ("file", "reason"), [("missing.yaml", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_can_not_be_read(file: str, reason: str) -> None:
    assert refusal("--config", file) == f"settings file {file} cannot be read: {reason}"


def test_yaml_builds_no_objects() -> None:
    sentence = refusal("--config", config("rounds: !!python/object/apply:os.getpid []"))
    assert "is not valid YAML" in sentence


def as_flag(name: str, value: str, patch: pytest.MonkeyPatch) -> list[str]:
    return [f"--{name.replace('_', '-')}", value]


def as_variable(name: str, value: str, patch: pytest.MonkeyPatch) -> list[str]:
    patch.setenv(f"HETERO_{name.upper()}", value)
    return ["--run-dir", "somewhere"]


def as_key(name: str, value: str, patch: pytest.MonkeyPatch) -> list[str]:
    return ["--config", config(yaml.safe_dump({name: value}))]


BAD_VALUES: list[tuple[type[Settings], str, str]] = [
    (ServerSettings, "batch_size", "many"),
    (ServerSettings, "batch_size", "1"),
    (ServerSettings, "batch_size", "2.5"),
    (ServerSettings, "strategy", "gossip"),
    (ServerSettings, "clients", "0"),
    (ServerSettings, "credits", "0"),
    (ServerSettings, "aggregate_every", "0"),
    (ServerSettings, "threads", "0"),
    (ServerSettings, "log_level", "loud"),
    (ServerSettings, "normalization", "svhn"),
    (ServerSettings, "exits", "first"),
    *(
        (ServerSettings, "listen", value)
        for value in ("50051", ":50051", "host:", "host:http", "host:65536", "host:-1", "host:²")
    ),
    (ClientSettings, "cut_layer", "three"),
    (ClientSettings, "shard", "4/3"),
    (ClientSettings, "alpha", "0"),
    (ClientSettings, "threshold", "1.1"),
    (ClientSettings, "eval_samples", "0"),
    (ClientSettings, "connect_timeout", "0"),
    *((SimulationSettings, "cut_layers", value) for value in ("", "3,x", "3,,4", "-3", "3,²")),
    (SimulationSettings, "method", "federated"),
]


@pytest.mark.parametrize("source", [as_flag, as_variable, as_key])
@pytest.mark.parametrize(("command", "name", "value"), BAD_VALUES)
def test_a_bad_value_is_named_with_its_setting(
    command: type[Settings],
    name: str,
    value: str,
    source: Callable[[str, str, pytest.MonkeyPatch], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentence = refusal(*source(name, value, monkeypatch), command=command)
    assert name.replace("_", "-") in sentence
    assert repr(value) in sentence
