"""The metrics of a run that trains, as Prometheus and its tools see them."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.browser_page import LiveRun
from support.processes import free_address

pytestmark = pytest.mark.web

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"


def promtool(*arguments: str, given: str = "") -> str:
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_promtool_finds_nothing_to_say_about_a_live_run(live_run: LiveRun) -> None:
    while "hetero_client_exit_accuracy_ratio{" not in (text := fetch(f"{live_run.url}metrics")):
        time.sleep(0.5)
    assert promtool("check", "metrics", given=text) == ""


def test_a_prometheus_answers_which_round_it_is(live_run: LiveRun, tmp_path: Path) -> None:
    address = free_address()
    target = urllib.parse.urlsplit(live_run.url).netloc
    scrape = {"job_name": "hetero-server", "static_configs": [{"targets": [target]}]}
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [scrape],
        "rule_files": [str(RULES / "alerts.yaml")],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        *("prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}"),
        *(f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}"),
    ]
    with (tmp_path / "log").open("w") as log:
        prometheus = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            first = _answer(address, "hetero_round")
            while _answer(address, "hetero_round") <= first:
                time.sleep(0.5)
            assert _answer(address, 'sum(hetero_clients{state!~"left|evicted"})') == 2.0
            assert _answer(address, "count(hetero_exit_accuracy_ratio)") == 2.0
        finally:
            prometheus.kill()
            prometheus.wait()


def _answer(address: str, query: str) -> float:
    """Of an instant query, as soon as there is one."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    while True:
        try:
            result: list[dict[str, Any]] = json.loads(fetch(url))["data"]["result"]
        except OSError:
            result = []
        if result:
            return float(result[0]["value"][1])
        time.sleep(0.5)


def test_the_alert_rules_do_what_their_tests_say() -> None:
    promtool("check", "rules", str(RULES / "alerts.yaml"))
    promtool("test", "rules", str(RULES / "alerts_test.yaml"))


def test_the_scrape_configuration_of_the_demo_is_one() -> None:
    promtool("check", "config", "--syntax-only", str(RULES / "prometheus.yaml"))
