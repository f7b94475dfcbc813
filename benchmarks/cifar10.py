"""Real CIFAR-10 over loopback: both strategies, then centralized training of as many images.

python benchmarks/cifar10.py --zip cifar10.zip

One server and three clients (cut layers 3, 4, 5), ResNet-18 at width 16. Writes runs/cifar10/ with
the run directories of all processes, results.json, and the tables of docs/results.md as Markdown.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hetero_common.records.history import read_records
from hetero_lab.fleet import Fleet

CUT_LAYERS = (3, 4, 5)
RECIPE: dict[str, Any] = {
    "width": 16,
    "order": "arrival",
    "exits": "last",
    "exit_head": "linear",
    "batch_size": 32,
    "steps_per_round": 8,
    "client_lr": 0.05,
    "server_lr": 0.05,
    "normalization": "cifar10",
    "wire": "fp32",
    "weights_wire": "fp32",
    "seed": 0,
}


def main() -> None:
    """Run everything that is not there yet, and print the tables."""
    arguments = _arguments()
    out: Path = arguments.out
    data = {"dataset": f"folder:{arguments.zip}", "eval_samples": 2000, "threshold": 0.5}
    recipe = RECIPE | {"rounds": arguments.rounds, "eval_every": max(1, arguments.rounds // 10)}
    results: dict[str, Any] = {"recipe": recipe, "cut_layers": CUT_LAYERS, "machine": _machine()}
    for strategy in ("sequential", "averaging"):
        results[strategy] = _split(out / strategy, strategy, recipe, data)
    results["centralized"] = _centralized(out / "centralized", recipe, data)
    (out / "results.json").write_text(json.dumps(results, indent=2))
    print(_report(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zip", type=Path, required=True, help="CIFAR-10 as a zipped image folder")
    parser.add_argument("--rounds", type=int, default=325, help="about 65 are one sample pass")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    return parser.parse_args()


def _split(
    out: Path, strategy: str, recipe: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    if not out.exists():
        clients = [{"cut_layer": cut_layer} for cut_layer in CUT_LAYERS]
        if Fleet({"strategy": strategy} | recipe, clients, data).run(out):
            raise SystemExit(f"the {strategy} run failed: its logs are above")
    clients = {f"client-{n}": _client(out / f"client-{n}") for n in range(1, len(CUT_LAYERS) + 1)}
    curves = _curves(out, data, list(clients))
    seconds = read_records(out / "server")[-1]["seconds"]
    return {"seconds": seconds, "clients": clients, "curves": curves}


def _client(run: Path) -> dict[str, Any]:
    events = read_records(run)
    evaluations = [event for event in events if event["event"] == "evaluation"]
    return {"evaluations": evaluations, "bytes_sent": events[-1]["bytes_sent"]}


def _curves(out: Path, data: dict[str, Any], clients: list[str]) -> dict[str, Any]:
    """Accuracy versus offload of each client, asked of the server that serves the finished run."""
    python = [sys.executable, "-m"]
    serve = [*python, "hetero_server", "--serve", str(out / "server"), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None, "it is piped"
        address = server.stdout.readline().removeprefix("listening on ").strip()
        infer = [
            *python,
            "hetero_client.commands.infer",
            "--server",
            address,
            "--curve",
            "--output=json",
        ]
        infer += ["--dataset", str(data["dataset"])]
        try:
            return {
                client: [
                    json.loads(line)
                    for line in subprocess.run(
                        [*infer, "--run", str(out / client)],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout.splitlines()
                ]
                for client in clients
            }
        finally:
            server.terminate()


def _centralized(out: Path, recipe: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    if not out.exists():
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in (recipe | data).items()]
        command = [sys.executable, "-m", "hetero_lab", "--method", "centralized", *flags]
        command += ["--clients", str(len(CUT_LAYERS)), "--threads", "1", "--run-dir", str(out)]
        subprocess.run(command, check=True)
    events = read_records(out)
    return {
        "seconds": time.monotonic() - started,
        "evaluations": [event for event in events if event["event"] == "evaluation"],
        "samples": max(event.get("samples", 0) for event in events),
    }


def _machine() -> dict[str, Any]:
    import grpc

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "grpcio": grpc.__version__,
        "machine": platform.machine(),
    }


def _report(results: dict[str, Any]) -> str:
    return "\n\n".join((_final_table(results), _rounds_table(results), _offload_table(results)))


def _final_table(results: dict[str, Any]) -> str:
    rows = [
        "| run | client | cut | exit % | server % | at threshold % | offloaded % | MB sent | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy in ("sequential", "averaging"):
        run = results[strategy]
        for cut_layer, (name, client) in zip(CUT_LAYERS, run["clients"].items(), strict=True):
            last = client["evaluations"][-1]
            shares = ("exit_accuracy", "server_accuracy", "threshold_accuracy", "offload_share")
            cells = " | ".join(f"{100 * last[share]:.2f}" for share in shares)
            sent = f"{client['bytes_sent'] / 1e6:,.0f}"
            rows.append(
                f"| {strategy} | {name} | {cut_layer} | {cells} | {sent} | {run['seconds']:.0f} |"
            )
    central = results["centralized"]
    accuracy = 100 * central["evaluations"][-1]["accuracy"]
    seconds = central["seconds"]
    rows.append(f"| centralized | | | | {accuracy:.2f} | | | | {seconds:.0f} |")
    return "\n".join(rows)


def _rounds_table(results: dict[str, Any]) -> str:
    """Accuracy of exits and server over the rounds, mean of the clients."""
    rows = [
        "| round | sequential exit % | server % | averaging exit % | server % | centralized % |",
        "|---|---|---|---|---|---|",
    ]
    for index, central in enumerate(results["centralized"]["evaluations"]):
        cells = []
        for strategy in ("sequential", "averaging"):
            clients = results[strategy]["clients"].values()
            for key in ("exit_accuracy", "server_accuracy"):
                values = [client["evaluations"][index][key] for client in clients]
                cells.append(f"{100 * sum(values) / len(values):.1f}")
        row = " | ".join(cells)
        rows.append(f"| {central['round'] + 1} | {row} | {100 * central['accuracy']:.1f} |")
    return "\n".join(rows)


def _offload_table(results: dict[str, Any]) -> str:
    """Accuracy at evenly spaced offload shares, per client."""
    curves = [(s, c) for s in ("sequential", "averaging") for c in results[s]["curves"]]
    rows = [
        "| offloaded % | " + " | ".join(f"{s} {c}" for s, c in curves) + " |",
        "|---|" + "---|" * len(curves),
    ]
    points = len(results["sequential"]["curves"]["client-1"])
    for index in range(0, points, 2):
        cells = [f"{100 * results[s]['curves'][c][index]['accuracy']:.2f}" for s, c in curves]
        share = results["sequential"]["curves"]["client-1"][index]["offload_share"]
        rows.append(f"| {100 * share:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
