from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hetero_client.exits.thresholds import Target
from hetero_client.settings import ClientSettings, InferenceSettings
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_common.settings import as_yaml, load


def test_tokens_come_from_a_flag_a_variable_or_a_file_and_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(*flags: str) -> ClientSettings:
        return load(ClientSettings, flags, "hetero-client")

    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert settings().resolved_token() is None
    assert settings("--token-file", str(file)).resolved_token() == "from-file"
    assert settings("--token", "from-flag").resolved_token() == "from-flag"
    monkeypatch.setenv("HETERO_TOKEN", "from-variable")
    found = settings("--token-file", str(file))
    assert found.resolved_token() == "from-variable"
    assert "from-variable" not in as_yaml(found) + repr(found)


@pytest.mark.parametrize("text", ["", "two words", "größe", "line\nbreak"])
def test_what_is_no_token_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    settings = load(ClientSettings, ("--token-file", str(file)), "hetero-client")
    with pytest.raises(SettingsError, match="a token consists of"):
        settings.resolved_token()


def test_the_settings_of_the_other_side_are_no_misspelling(monkeypatch: pytest.MonkeyPatch) -> None:
    from hetero_server.settings import ServerSettings

    monkeypatch.setenv("HETERO_TOKEN", "x")
    monkeypatch.setenv("HETERO_TOKENS", "y")
    assert load(ServerSettings, (), "hetero-server").tokens == Path("y")
    load(ClientSettings, (), "hetero-client")
    monkeypatch.setenv("HETERO_TOKENZ", "y")
    with pytest.raises(SettingsError, match="did you mean HETERO_TOKEN"):
        load(ClientSettings, (), "hetero-client")


def client(*flags: str) -> ClientSettings:
    return load(ClientSettings, flags, "hetero-client")


def inference(*flags: str) -> InferenceSettings:
    return load(InferenceSettings, ["--run", "runs/a", *flags], "hetero-infer")


def test_an_unreadable_token_file_is_named(tmp_path: Path) -> None:
    settings = client("--token-file", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"--token-file .*nowhere cannot be read"):
        settings.resolved_token()


# What is expected of the server's model.


def test_nothing_is_expected_unless_it_is_said() -> None:
    assert client().expected() == {}
    client().require(Plan(model="vgg11_bn", width=3, classes=7))


def test_expectations_that_are_met_are_in_nobodys_way() -> None:
    settings = client("--model", "tinycnn", "--width", "8", "--classes", "7")
    assert settings.expected() == {"model": "tinycnn", "width": 8, "classes": 7}
    settings.require(Plan(model="tinycnn", width=8, classes=7))


def test_another_model_than_the_expected_one_is_refused() -> None:
    with pytest.raises(SettingsError) as refused:
        client("--image-size", "64").require(Plan(image_size=32))
    assert str(refused.value) == (
        "--image-size 64 was expected, but the server trains with 32: drop --image-size, or start "
        "the server with --image-size 64"
    )


def test_code_of_the_users_own_runs_only_where_the_user_has_named_it() -> None:
    plan = Plan(model="my.models:build")
    with pytest.raises(SettingsError, match=r"repeat --model my.models:build here if it is yours"):
        client("--width", "64").require(plan)
    client("--model", "my.models:build").require(plan)
    with pytest.raises(SettingsError, match="was expected"):
        client("--model", "my.models:other").require(plan)


# Who a client is.


def test_a_client_is_named_by_its_host_its_cut_layer_and_its_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "attic")
    assert client("--cut-layer", "3").resolved_client_id() == "attic-cut3"
    shard = ("--cut-layer", "3", "--shard", "2/5")
    assert client(*shard).resolved_client_id() == "attic-cut3-shard2of5"
    assert client(*shard, "--client-id", "board-1").resolved_client_id() == "board-1"


def test_its_cut_layer_is_that_of_its_shard_among_all() -> None:
    all_of_them = ("--cut-layers", "2,3", "--shard", "4/5")
    assert client(*all_of_them).cuts() == [2, 3, 2, 3, 2]
    assert client(*all_of_them, "--cut-layer", "3").cut_layer == 3
    with pytest.raises(SettingsError) as refused:
        client(*all_of_them, "--cut-layer", "2")
    assert str(refused.value) == (
        "--cut-layer is 2, but by --cut-layers 2,3 that of shard 4/5 is 3: all clients take the "
        "same --cut-layers"
    )


def test_metrics_are_at_an_address_or_off() -> None:
    assert client("--http", "off").http == "off"
    assert client("--http", "[::1]:9465").http == "[::1]:9465"
    with pytest.raises(SettingsError, match="HOST:PORT"):
        client("--http", "9465")


# What a threshold is chosen for.


@pytest.mark.parametrize(
    ("flags", "target"),
    [
        (("--offload", "0"), Target("offload", 0.0)),
        (("--accuracy", "0.9"), Target("accuracy", 0.9)),
        (("--max-loss", "0.01"), Target("max-loss", 0.01, 0.95)),
        (("--max-loss", "0.01", "--confidence", "0.5"), Target("max-loss", 0.01, 0.5)),
    ],
)
def test_a_threshold_is_chosen_for_one_thing(flags: tuple[str, ...], target: Target) -> None:
    assert inference(*flags).target() == target


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ((), "none of them"),
        (("--offload", "0", "--accuracy", "0"), "--offload and --accuracy"),
    ],
)
def test_nothing_and_two_things_are_refused(flags: tuple[str, ...], given: str) -> None:
    with pytest.raises(SettingsError, match=f"but got {given}$"):
        inference(*flags).target()


def test_the_criterion_is_the_given_one_else_the_default() -> None:
    assert inference().wanted_criterion == "entropy"
    assert inference("--criterion", "confidence").wanted_criterion == "confidence"
