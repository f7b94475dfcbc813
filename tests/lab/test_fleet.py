"""A server and its clients as processes; scripts stand in for them, which read what they are given.

`make demo` runs the real ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hetero_client.settings import ClientSettings
from hetero_lab import fleet
from hetero_lab.fleet import Fleet
from hetero_server.settings import ServerSettings

DEMO = Path(__file__).parents[2] / "deploy" / "demo.yaml"
STAND_IN = """#!/bin/sh
# -m MODULE --config FILE: a server listens, and may wait for ever; each can end with a code.
code=$(sed -n 's/^code: //p' "$4")
case "$2" in
hetero_server)
  test -n "$code" && echo "bad settings" >&2 && exit "$code"
  echo "listening on 127.0.0.1:4711"
  echo "the server speaks" >&2
  grep -q waits "$4" && mkfifo nobody-writes && read -r line < nobody-writes
  echo "results";;
hetero_client)
  echo "a client speaks" >&2
  exit "${code:-0}";;
esac
"""

pytestmark = [
    pytest.mark.usefixtures("unset_settings"),
    # The pipes of the processes are left to the collector, once these have ended.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "stand-in"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def settings(name: str) -> dict[str, Any]:
    """What a process was given."""
    given: dict[str, Any] = yaml.safe_load(Path("run", f"{name}.yaml").read_text())
    return given


def test_a_file_describes_a_fleet() -> None:
    demo = Fleet.read(DEMO)
    assert demo.data["dataset"] == "digits"
    assert [client["cut_layer"] for client in demo.clients] == [3, 4, 5]


def test_the_demo_has_settings_that_there_are() -> None:
    demo = Fleet.read(DEMO)
    assert set(demo.server) <= set(ServerSettings.model_fields)
    for given in (demo.data, *demo.clients):
        assert set(given) <= set(ClientSettings.model_fields)


def test_each_process_gets_its_place_and_what_it_was_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clients: list[dict[str, Any]] = [
        {"cut_layer": 3},
        {"cut_layer": 4, "threshold": 0.6, "client_id": "last"},
    ]
    assert Fleet({"rounds": 7}, clients, {"threshold": 0.3}).run(Path("run")) == 0
    assert settings("server") == {
        "run_dir": "run/server",
        "listen": "127.0.0.1:0",
        "clients": 2,
        "rounds": 7,
    }
    assert settings("client-1") == {
        "run_dir": "run/client-1",
        "server": "127.0.0.1:4711",
        "client_id": "client-1",
        "shard": "1/2",
        "cut_layer": 3,
        "threshold": 0.3,
    }
    assert [settings("client-2")[name] for name in ("shard", "client_id", "threshold")] == [
        *("2/2", "last", 0.6),
    ]
    said = capsys.readouterr().out.splitlines()
    assert {"server    the server speaks", "client-1  a client speaks", "results"} <= set(said)


def test_a_client_that_fails_ends_the_fleet() -> None:
    """The server would wait for it for ever."""
    assert Fleet({"waits": True}, [{"code": 3}]).run(Path("run")) == 1


def test_a_server_that_does_not_start_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="the server did not start; its message is above"):
        Fleet({"code": 2}, [{}]).run(Path("run"))
    assert capsys.readouterr().out == "server    bad settings\n"
    assert not Path("run", "client-1.yaml").exists()


def test_the_command_makes_a_directory_below_runs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("two.yaml").write_text("server: {}\nclients: [{cut_layer: 3}]\n")
    assert fleet.main(["two.yaml"]) == 0
    (directory,) = Path("runs").iterdir()
    assert directory.name.startswith("two-")
    said = capsys.readouterr().out
    assert said.endswith(f"run directories and settings are in {directory}\n")
