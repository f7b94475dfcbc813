"""Speed and memory, as ratios of one run. What each number means: docs/performance.md.

python benchmarks/run.py [--only NAME] [--repeats N] [--out FILE.json]

Prints a Markdown table, and writes the samples with versions and machine as JSON. Ends with 1 if a
median is above its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import codec
import memory
import overhead
import transport
import watched
from measure import HEADING, Result, environment

BENCHMARKS: dict[str, Callable[[int], list[Result]]] = {
    "overhead": overhead.run,
    "watched": watched.run,
    "codec": codec.run,
    "transport": transport.run,
    "memory": memory.run,
}


def main() -> int:
    """Run the chosen benchmarks one after another."""
    arguments = _arguments()
    machine = environment()
    results = []
    print(HEADING, flush=True)
    for name in [arguments.only] if arguments.only else BENCHMARKS:
        for result in BENCHMARKS[name](arguments.repeats):
            print(result.row(), flush=True)
            results.append(result)
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine.items()))
    _write(arguments.out, {"environment": machine, "results": [r.record() for r in results]})
    return 0 if all(result.ok for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="one benchmark instead of all")
    parser.add_argument("--repeats", type=int, default=7, help="samples per value (default 7)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks.json"))
    return parser.parse_args()


def _write(out: Path, report: dict[str, object]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
