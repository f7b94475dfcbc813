"""A server and its clients as processes on this machine, described in one YAML file.

python -m hetero_lab.fleet deploy/demo.yaml

    server: {strategy: sequential, rounds: 40}     # settings of hetero-server
    data: {dataset: digits}                        # settings of every hetero-client
    clients:                                       # ... and of each one
      - {cut_layer: 3}
      - {cut_layer: 4}

The clients get one shard each. Everything lands in one directory below runs/.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import yaml

_READY = "listening on "


@dataclass(frozen=True)
class Fleet:
    """Settings of one server and its clients.

    Args:
        server: Settings of hetero-server; the address is chosen.
        clients: Settings of each hetero-client; id, shard and run directory are filled in.
    """

    server: Mapping[str, Any]
    clients: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Fleet:
        """The fleet that a YAML file describes."""
        return cls(**yaml.safe_load(file.read_text(encoding="utf-8")))

    def run(self, directory: Path) -> int:
        """Run to the end; returns 0 if every process did.

        Args:
            directory: Created; holds the settings and the run directories of all processes.
        """
        directory.mkdir(parents=True)
        server = {"listen": "127.0.0.1:0", "clients": len(self.clients)} | dict(self.server)
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(_process("hetero_server", "server", directory, server))
            assert process.stdout is not None, "it is piped"
            address = _address(process.stdout)
            echo = threading.Thread(target=_echo, args=(process.stdout,))
            echo.start()
            clients = [
                stack.enter_context(
                    _process(
                        "hetero_client",
                        f"client-{number}",
                        directory,
                        {
                            "server": address,
                            "client_id": f"client-{number}",
                            "shard": f"{number}/{len(self.clients)}",
                        }
                        | dict(self.data)
                        | dict(client),
                    )
                )
                for number, client in enumerate(self.clients, start=1)
            ]
            codes = [client.wait() for client in clients]
            if any(codes):
                return 1
            code = process.wait()
            echo.join()
            return code


@contextlib.contextmanager
def _process(
    module: str, name: str, directory: Path, settings: Mapping[str, Any]
) -> Iterator[subprocess.Popen[str]]:
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump({"run_dir": str(directory / name)} | dict(settings)))
    command = [sys.executable, "-m", module, "--config", str(config)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stderr is not None, "it is piped"
    log = threading.Thread(target=_echo, args=(process.stderr, f"{name:<9}"))
    log.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        log.join()


def _address(output: IO[str]) -> str:
    line = output.readline()
    if not line.startswith(_READY):
        raise SystemExit("the server did not start; its message is above")
    return line.removeprefix(_READY).strip()


def _echo(lines: IO[str], prefix: str = "") -> None:
    for line in lines:
        print(f"{prefix} {line.rstrip()}" if prefix else line.rstrip(), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fleet of a file."""
    parser = argparse.ArgumentParser(prog="python -m hetero_lab.fleet", description=__doc__)
    parser.add_argument("file", type=Path, help="YAML file that describes the fleet")
    file: Path = parser.parse_args(arguments).file
    directory = Path("runs") / f"{file.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    code = Fleet.read(file).run(directory)
    print(f"run directories and settings are in {directory}")
    return code


if __name__ == "__main__":
    sys.exit(main())
