"""The page's routes, and who may see them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hetero_server.auth.identity import TokenOwners
from hetero_server.monitoring.monitor import Monitor
from hetero_server.monitoring.site import build_site
from support.engine_run import Run
from support.monitored_run import watched


def a_visitor(monitor: Monitor | None = None, **options: object) -> TestClient:
    site = build_site(monitor or Monitor(), lambda: True, **options)  # type: ignore[arg-type]  # they are of several types
    return TestClient(site, base_url="http://localhost")


def a_monitor() -> Monitor:
    run = Run(clients=2)
    run.join("<script>alert(1)</script>", cut_layer=2)
    return watched(run)


def a_token_file(folder: Path) -> Path:
    file = folder / "tokens"
    file.write_text(f"viewer {hashlib.sha256(b'secret').hexdigest()}\n")
    return file


def test_status_tells_who_is_there() -> None:
    status = a_visitor(a_monitor()).get("/api/status").json()
    assert (status["run_id"], status["phase"], status["rounds"]) == ("run-1", "WAITING", 3)
    assert [member["cut_layer"] for member in status["members"]] == [2]
    assert [event["kind"] for event in status["events"]] == ["joined"]


def test_status_tells_how_many_images_were_answered() -> None:
    monitor = a_monitor()
    monitor.metrics.predicted(2, 30)
    monitor.metrics.predicted(3, 12)
    assert a_visitor(monitor).get("/api/status").json()["answered"] == 42


def test_before_the_model_is_loaded_there_is_no_status_but_there_are_metrics() -> None:
    visitor = a_visitor()
    assert visitor.get("/api/status").status_code == 503
    assert visitor.get("/metrics").status_code == 200


def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    visitor = a_visitor()
    assert visitor.get("/metrics").headers["content-type"].startswith("text/plain")
    openmetrics = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = visitor.get("/metrics", headers=openmetrics)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize("file", ["", "page.js", "chart.js", "page.css", "icon.svg"])
def test_the_page_needs_nothing_from_elsewhere(file: str) -> None:
    answer = a_visitor().get(f"/{file}")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for address in ("http://", "https://", "//"):
        if file in ("", "page.css"):
            assert address not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/status", "/page.js"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    assert a_visitor(a_monitor()).request(method, path).status_code == 405


@pytest.mark.parametrize("path", ["/../settings.py", "/..%2f..%2fmonitor.py", "/%2e%2e/site.py"])
def test_nothing_but_the_assets_is_served(path: str) -> None:
    assert a_visitor().get(path).status_code == 404


def test_a_page_from_elsewhere_can_not_read_it_by_a_name_of_its_own() -> None:
    visitor = a_visitor(hosts=["localhost"])
    assert visitor.get("/metrics").status_code == 200
    assert visitor.get("/metrics", headers={"host": "evil.example"}).status_code == 400


def test_with_tokens_one_is_needed(tmp_path: Path) -> None:
    visitor = a_visitor(a_monitor(), tokens=TokenOwners(a_token_file(tmp_path)))
    for path in ("/", "/metrics", "/api/status", "/page.js"):
        refused = visitor.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        bearer = {"authorization": "Bearer secret"}
        assert visitor.get(path, headers=bearer).status_code == 200
        assert visitor.get(path, auth=("whoever", "secret")).status_code == 200
        assert visitor.get(path, auth=("whoever", "wrong")).status_code == 401


@pytest.mark.parametrize(("is_well", "code"), [(True, 200), (False, 503)])
def test_whether_it_is_well_anybody_may_know(tmp_path: Path, is_well: bool, code: int) -> None:
    site = build_site(Monitor(), lambda: is_well, TokenOwners(a_token_file(tmp_path)))
    assert TestClient(site).get("/healthz").status_code == code


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic /w==", "Bearer", "Digest x", ""])
def test_credentials_that_make_no_sense_are_none(tmp_path: Path, header: str) -> None:
    visitor = a_visitor(tokens=TokenOwners(a_token_file(tmp_path)))
    assert visitor.get("/metrics", headers={"authorization": header}).status_code == 401
