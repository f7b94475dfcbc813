"""The compose demo for real: a device and the server are killed while they train, and it ends well.

Takes docker compose or podman-compose, and the image; `make compose-kill`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

COMPOSE = [
    *shlex.split(os.environ.get("COMPOSE", "docker compose")),
    *("-f", str(Path(__file__).parents[2] / "deploy" / "compose.yaml")),
]
ENGINE = os.environ.get("ENGINE", "docker")
SERVICES = ("certs", "server", "board-1", "board-2", "board-3")
KILL = """
import os
for process in filter(str.isdigit, os.listdir("/proc")):
    command = open(f"/proc/{process}/cmdline").read()
    if process not in ("1", str(os.getpid())) and "/hetero-" in command:
        os.kill(int(process), 9)
"""
"""Of all our processes in a container but its init."""


def say(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def container(service: str) -> str:
    label = f"label=com.docker.compose.service={service}"
    (found,) = say(ENGINE, "ps", "--all", "--quiet", "--filter", label).split()
    return found


def log(service: str) -> str:
    return say(ENGINE, "logs", container(service))


def rounds(service: str) -> int:
    """How far its log has come."""
    rounds = re.findall(rf"\[{service} (\d+)/60\]", log(service))
    return int(rounds[-1]) if rounds else 0


def state(service: str) -> str:
    form = "{{.State.Status}} {{.State.ExitCode}}"
    return say(ENGINE, "inspect", "--format", form, container(service)).strip()


def kill(service: str) -> None:
    say(ENGINE, "exec", container(service), "python", "-c", KILL)


def wait_until_round(service: str, wanted: int) -> None:
    while rounds(service) < wanted:
        assert not state(service).startswith("exited"), log(service)
        time.sleep(1)


@pytest.fixture(scope="module", autouse=True)
def _disturbed_run() -> Iterator[None]:
    say(*COMPOSE, "down", "--volumes", check=False)
    say(*COMPOSE, "up", "--detach", *SERVICES)
    wait_until_round("server", 7)
    kill("board-2")
    wait_until_round("server", 25)
    kill("server")
    while not all(state(service).startswith("exited") for service in SERVICES):
        time.sleep(2)
    yield
    say(*COMPOSE, "down", "--volumes", check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_all_end_well(service: str) -> None:
    assert state(service) == "exited 0", log(service)


@pytest.mark.parametrize(("service", "sign"), [("server", "listening on"), ("board-2", "joining")])
def test_who_was_killed_has_started_again(service: str, sign: str) -> None:
    assert log(service).count(sign) == 2


def test_the_server_ends_with_the_table() -> None:
    table = log("server").partition("Results on the test images")[2]
    for device in ("board-1", "board-2", "board-3"):
        (row,) = [line for line in table.splitlines() if f" {device} " in line]
        exit_, server = (float(share) for share in re.findall(r"([\d.]+)%", row)[:2])
        assert exit_ > 90
        assert server > 90


def test_each_step_was_applied_once() -> None:
    form = '{{range .Mounts}}{{if eq .Destination "/data"}}{{.Name}}{{end}}{{end}}'
    volume = say(ENGINE, "inspect", "--format", form, container("server")).strip()
    audit = say(
        *(ENGINE, "run", "--rm", "--volume", f"{volume}:/data:ro", "hetero-splitee:dev"),
        *("hetero-report", "--audit", "/data/run"),
    )
    assert "audit passed: 3 clients, 60 rounds, 1440 steps" in audit
    assert "resumed 1 times, finished" in audit
