"""A server that trains with two real clients, and where its page is."""

from __future__ import annotations

import re
from contextlib import ExitStack

from support.commands import SMALL
from support.processes import Launch, Process


class LiveRun:
    """A server that trains, its clients, and the page of it."""

    def __init__(self, launch: Launch, stack: ExitStack) -> None:
        self._launch = launch
        self._stack = stack
        self.server: Process = stack.enter_context(
            launch(
                "hetero-server",
                *("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--clients", "2"),
                *("--rounds", "100000", "--steps-per-round", "4", "--eval-every", "20"),
                *("--checkpoint-seconds", "1", *SMALL),
            )
        )
        self.url = _url(self.server)
        self.clients = {
            name: self._client(name, cut) for name, cut in (("board-1", "2"), ("board-2", "4"))
        }

    def _client(self, name: str, cut_layer: str) -> Process:
        return self._stack.enter_context(
            self._launch(
                "hetero-client",
                *("--server", self.server.address, "--client-id", name, "--cut-layer", cut_layer),
                *("--dataset", "digits", "--eval-samples", "50"),
            )
        )


def _url(server: Process) -> str:
    assert server.address
    found = None
    while found is None:
        found = re.search(r"page and metrics: (\S+)", server.log())
    return found[1]
