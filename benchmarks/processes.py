"""Python processes under measurement: started, paused, reaped, and their CPU time read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from hetero_common.records.history import read_records
from hetero_common.records.rundir import METRICS_FILE

_READY = "listening on "
_POLL_SECONDS = 0.01
_SCHEDULER_CLOCK = 2  # of another process, by its id: clock_getcpuclockid(3), on Linux


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

    def errors(self) -> str:
        """What it has written to standard error."""
        return self._stderr.read_text()

    def ready(self) -> str:
        """Wait for a server's ready line; the HOST:PORT it holds."""
        line = self.read()
        if not line.startswith(_READY):
            raise SystemExit(f"{line!r} is no ready line\n{self.errors()}")
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
            raise SystemExit(f"a process under measurement ended\n{self.errors()}")
        return answer

    def cpu_seconds(self) -> float:
        """CPU time (user + system, all threads) that it has used so far, to the microsecond."""
        return time.clock_gettime(~self.pid << 3 | _SCHEDULER_CLOCK)

    def pause(self) -> None:
        """Stop it where it is, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def wait_for_round(rounds: int, run_dir: Path, process: Process) -> None:
    """Wait until the run of `process` has closed so many rounds."""
    while _rounds_closed(run_dir) < rounds:
        if not process.is_running():
            raise SystemExit(f"a process under measurement ended\n{process.errors()}")
        time.sleep(_POLL_SECONDS)


def _rounds_closed(run_dir: Path) -> int:
    if not (run_dir / METRICS_FILE).exists():
        return 0
    events = read_records(run_dir)
    return max((event["round"] + 1 for event in events if event["event"] == "round"), default=0)
