"""Python processes under measurement: started, waited for, reaped, and their CPU time read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

_READY = "listening on "


class Process:
    """One `python ...` with a single compute thread, in a folder of its own.

    Args:
        arguments: What follows `python`.
        folder: Created; working directory and standard error.
    """

    def __init__(self, *arguments: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._stderr = folder / "stderr"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HETERO_")}
        with self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.pid = self._process.pid

    def ready(self) -> str:
        """Wait for a server's ready line; the HOST:PORT it holds."""
        line = self.read()
        if not line.startswith(_READY):
            raise SystemExit(f"{line!r} is no ready line\n{self._stderr.read_text()}")
        return line.removeprefix(_READY).strip()

    def read(self) -> str:
        """Its next line of output."""
        assert self._process.stdout is not None, "it is piped"
        return self._process.stdout.readline()

    def ask(self, line: str) -> str:
        """Write it a line and wait for its answer."""
        assert self._process.stdin is not None, "it is piped"
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self.read()
        if not answer:
            raise SystemExit(f"a process under measurement died\n{self._stderr.read_text()}")
        return answer

    def finish(self) -> float:
        """Wait until it ends by itself; CPU seconds (user + system) of its whole life."""
        assert self._process.stdout is not None, "it is piped"
        self._process.stdout.read()
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode != 0:
            raise SystemExit(f"a process under measurement failed\n{self._stderr.read_text()}")
        return usage.ru_utime + usage.ru_stime

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
