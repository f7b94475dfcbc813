"""The files of deploy/: manifests by the schemas of Kubernetes, and what they take for granted."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hetero_client.settings import ClientSettings
from hetero_common.settings import Settings
from hetero_server.settings import ServerSettings

DEPLOY = Path(__file__).parents[1] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
NO_SCHEMA = {"Kustomization", "PodMonitor"}
COMMANDS: dict[str, type[Settings]] = {
    "hetero-server": ServerSettings,
    "hetero-client": ClientSettings,
}


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(DEPLOY)}: {document['kind']}", document


DOCUMENTS = dict(documents())
PODS = {
    name: document["spec"]["template"]["spec"]
    for name, document in DOCUMENTS.items()
    if document["kind"] in ("StatefulSet", "DaemonSet")
}


@pytest.mark.parametrize("name", [n for n, d in DOCUMENTS.items() if d["kind"] not in NO_SCHEMA])
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_manifests_are_what_kubernetes_takes(name: str, version: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], version, strict=True)


@pytest.mark.parametrize("path", [p for p in MANIFESTS if p.name == "kustomization.yaml"])
def test_kustomizations_name_files_that_there_are(path: Path) -> None:
    for resource in yaml.safe_load(path.read_text())["resources"]:
        assert (path.parent / resource).is_file()


@pytest.mark.parametrize("name", PODS)
def test_pods_have_no_more_rights_than_they_need(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        given = {volume["name"] for volume in pod["volumes"]} | {"data"}
        assert mounted <= given


def command_lines() -> Iterator[tuple[str, list[str]]]:
    for name, pod in PODS.items():
        for container in pod["containers"]:
            yield name, [*container["command"], *container["args"]]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        command = service.get("command", [])
        yield f"compose {name}", shlex.split(command) if isinstance(command, str) else command


@pytest.mark.parametrize(
    ("name", "command"), [(n, c) for n, c in command_lines() if c and c[0] in COMMANDS]
)
def test_commands_have_the_flags_that_there_are(name: str, command: list[str]) -> None:
    known = COMMANDS[command[0]].model_fields
    flags = [word[2:].partition("=")[0] for word in command[1:] if word.startswith("--")]
    assert len(flags) > 5
    assert {flag.replace("-", "_") for flag in flags} <= set(known)


def test_the_demos_devices_differ_in_what_they_may_use() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    boards = [service for name, service in services.items() if name.startswith("board-")]
    assert len({board["cpus"] for board in boards}) == len({b["mem_limit"] for b in boards}) == 3
    cuts = [re.findall(r"--cut-layer (\d+)", board["command"])[0] for board in boards]
    assert cuts == ["3", "4", "5"]


def test_the_unit_is_started_again_but_not_for_bad_settings() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]  # keys as they are
    unit.read(DEPLOY / "systemd" / "hetero-client.service")
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
    assert unit["Service"]["ExecStart"].split()[0].endswith("/hetero-client")
