"""A client that has default certificates, and a server of another machine that has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_client.commands.infer import main as infer
from hetero_common.wire.credentials import DEFAULT_DIRECTORY
from hetero_server.auth.certs import Authority
from support.commands import SMALL

if TYPE_CHECKING:
    from e2e.conftest import Launch

DATA = ("--dataset", "digits", "--eval-samples", "50")
SHORT = ("--batch-size", "8", "--rounds", "1", "--steps-per-round", "2", "--run-dir", "run")
LISTEN = ("--listen", "0.0.0.0:0", "--insecure")
"""At an address that is not loopback."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With default certificates."""
    Authority.new().issue(tmp_path / DEFAULT_DIRECTORY.relative_to("~"), "client", "board-1", 9)
    return tmp_path


def test_insecure_leaves_the_default_certificates_alone(
    launch: Launch,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with launch("hetero-server", *SMALL, *SHORT, *LISTEN) as server:
        flags = ("--server", server.address, "--client-id", "board-1", "--cut-layer", "2", *DATA)
        with launch("hetero-client", *flags, HOME=str(home)) as client:
            done = client.finish()
        assert done.code == 1
        assert done.stderr.splitlines()[-1] == (
            "hetero-client: the server does not speak TLS: start it with --certs, or this client "
            "with --insecure and without --certs"
        )
        with launch("hetero-client", *flags, "--insecure", HOME=str(home)) as client:
            assert client.finish().code == 0
        assert server.finish().code == 0
    monkeypatch.setenv("HOME", str(home))
    with launch("hetero-server", "--serve", str(server.folder / "run"), *LISTEN) as server:
        run = ("--server", server.address, "--run", str(client.folder / "runs" / "board-1"))
        asks = ("--dataset", "digits", "--samples", "20", "--threshold", "-1", "--insecure")
        assert infer([*run, *asks]) == 0
    assert "server 100.0%" in capsys.readouterr().out
