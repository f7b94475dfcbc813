"""Dashboard, alerts and documents name metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hetero_common.errors import RefusedInput
from hetero_server.run.member import MemberState
from support.engine_run import Run
from support.events import an_event
from support.monitored_run import watched

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
NAME = re.compile(r"\bhetero_[a-z_]+\b")
SUFFIXES = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def families() -> set[str]:
    """Names as they are scraped, of a run in which everything has happened."""
    run = Run(clients=2, rounds=2, eval_every=1)
    run.join("a")
    run.join("b")
    run.round("a", "b")
    run.engine.detach("b", MemberState.STALE)
    monitor = watched(run)
    monitor.observe(an_event("checkpoint", round=0, failed=None))
    monitor.metrics.refused(RefusedInput("no"))
    text = generate_latest(monitor.metrics.registry).decode()
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
        if family.name.startswith("hetero_")
    }


def base(name: str) -> str:
    """A histogram's family, of one of its series."""
    return next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)


def test_the_documents_name_all_metrics_and_no_other(families: set[str]) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    named = {name for name in NAME.findall(text) if not name.startswith("hetero_device_")}
    assert named == families


@pytest.mark.parametrize("file", ["alerts.yaml", "alerts_test.yaml"])
def test_alerts_are_about_metrics_that_there_are(families: set[str], file: str) -> None:
    text = (ROOT / "deploy" / "prometheus" / file).read_text(encoding="utf-8")
    assert {base(name) for name in NAME.findall(text)} <= families


def test_the_dashboard_shows_metrics_that_there_are(families: set[str]) -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {base(name) for expression in expressions for name in NAME.findall(expression)}
    assert named <= families
    assert len(named) > 15
