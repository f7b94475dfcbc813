"""Our commands as real processes: in a folder of their own, always reaped.

    with launch("hetero-server", "--listen", "127.0.0.1:0") as server:
        with launch("hetero-client", "--server", server.address) as client:
            assert client.finish().code == 0

Nothing here waits for a time: a process is ready when it says so, and is over when it ends. A
process that does neither runs into pytest's own timeout, and is killed on the way out.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import pytest

_SCRIPTS = Path(sysconfig.get_path("scripts"))
_READY = "listening on "


@dataclass(frozen=True)
class Finished:
    """A process that has ended, and what it has said."""

    code: int
    stdout: str
    stderr: str


class Process:
    """One console script at work.

    Attributes:
        folder: Its working directory, which nobody shares.
    """

    def __init__(
        self, script: str, flags: tuple[str, ...], folder: Path, variables: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self._variables = variables
        self._command = [str(_SCRIPTS / script), *flags]
        # Standard error goes to a file: an unread pipe would stop a talkative process.
        self._stderr = folder.with_name(f"{folder.name}.stderr")

    @cached_property
    def address(self) -> str:
        """HOST:PORT of a server, once its first line has said that it listens."""
        line = self.read_line()
        assert line.startswith(_READY), f"{line!r} is no ready line\n{self._stderr.read_text()}"
        return line.removeprefix(_READY).strip()

    def read_line(self) -> str:
        """Its next line of output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def log(self) -> str:
        """What it has logged so far."""
        return self._stderr.read_text()

    def finish(self) -> Finished:
        """Wait until it ends by itself; its output after the ready line."""
        assert self._process.stdout is not None
        stdout = self._process.stdout.read()
        return Finished(self._process.wait(), stdout, self._stderr.read_text())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with -9."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Process:
        ours = ("HETERO_", "COLUMNS")  # settings, and the width of tables
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        environment["HOME"] = str(self.folder)  # whoever runs the tests may have certificates
        environment |= self._variables
        with self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        if kind is not None:  # pytest shows it beside the failure
            print(f"--- {' '.join(self._command)}\n{self._stderr.read_text()}")


def free_address() -> str:
    """HOST:PORT on loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "{}:{}".format(*free.getsockname())


Launch = Callable[..., Process]
"""(script, *flags, **environment variables) -> the process, to be entered."""


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Make a process of a console script."""

    def make(script: str, *flags: str, **variables: str) -> Process:
        return Process(script, flags, tmp_path_factory.mktemp(script), variables)

    return make
