"""The promise that lets researchers simulate: real processes end with the very same weights.

A server process and three client processes, which register, send and finish in whatever order the
machine runs them, against the same run in one process without a socket. Sums in floating point
keep that promise only if both add up the same numbers in the same order.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import load_file

from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE

if TYPE_CHECKING:
    from conftest import Simulate
    from e2e.conftest import Launch

CUTS = (2, 3, 4)

MODEL = (
    *("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits"),
    *("--batch-size", "8", "--rounds", "3"),
)

RUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # The default preset, whose rounds are of one step.
    "defaults": (("--rounds", "12", "--eval-every", "6"), ()),
    # Seven steps a round: more than the four batches that a client may have under way.
    "interleaved": (
        (
            *("--strategy", "sequential", "--order", "interleaved", "--steps-per-round", "7"),
            *("--client-aggregation", "round", "--feedback", "gradient", "--eval-every", "2"),
        ),
        (),
    ),
    "relay": (
        (
            *("--strategy", "sequential", "--order", "relay", "--steps-per-round", "7"),
            *("--client-aggregation", "none", "--wire", "int8"),
        ),
        (),
    ),
    # Four steps, of which the clients send ahead; deep clients and the server share layers.
    "mixed": (
        (
            *("--strategy", "mixed", "--order", "interleaved", "--steps-per-round", "4"),
            *("--exits", "2,3", "--exit-head", "conv", "--feedback", "none", "--eval-every", "1"),
        ),
        (),
    ),
    # One pass over shards of unequal size: clients train different numbers of steps.
    "averaging": (
        (
            *("--strategy", "averaging", "--aggregate-every", "2", "--steps-per-round", "0"),
            *("--batch-size", "32"),
            *("--client-aggregation", "round", "--optimizer", "adam", "--client-lr", "0.01"),
            *("--exits", "all", "--exit-head", "conv"),
        ),
        ("--partition", "dirichlet", "--alpha", "0.5", "--validation", "0.2"),
    ),
    # Unequal shards whose classes depend on the cut layer, some images of them held out, and each
    # client's prior in both losses.
    "adjusted": (
        (
            *("--strategy", "sequential", "--order", "interleaved", "--steps-per-round", "5"),
            *("--logit-adjustment", "1", "--exits", "all", "--eval-every", "1"),
        ),
        (
            *("--partition", "dirichlet", "--alpha", "0.3", "--size-spread", "0.7"),
            *("--min-shard", "8", "--cut-skew", "0.5", "--cut-layers", "2,3,4"),
            *("--validation", "0.2"),
        ),
    ),
}
"""Flags of the server, and of each client; the simulator takes both."""


def bits(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(path).items()}


def recorded(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """Events without what the clock has written, in an order that does not depend on it."""
    events = [event for event in read_records(run) if event["event"] in kinds]
    for event in events:
        del event["time"], event["seconds"]
    return sorted(events, key=lambda event: (event.get("round"), event.get("client")))


Counts = list[tuple[str, int, int, int]]
"""Event, round, and the bytes that its client had sent and received by then."""


def counted_here(client: Path) -> Counts:
    """By the client itself, over a network."""
    events = [event for event in read_records(client) if "bytes_sent" in event]
    last = events.pop()
    assert last["event"] == "finished"
    for name in ("bytes_sent", "bytes_received"):
        assert last[name] == events[-1][name], "nothing follows the last evaluation"
    return [(e["event"], e["round"], e["bytes_sent"], e["bytes_received"]) for e in events]


def counted_there(run: Path, client_id: str) -> Counts:
    """By the engine, which has no network."""
    sent = ("bytes_received", "bytes_pushed", "bytes_asked")
    received = ("bytes_returned", "bytes_pulled", "bytes_answered")
    return [
        (e["event"], e["round"], sum(e[n] for n in sent), sum(e[n] for n in received))
        for e in read_records(run)
        if e["event"] in ("round", "evaluation") and e["client"] == client_id
    ]


@pytest.mark.parametrize("name", RUNS)
def test_real_processes_end_with_the_weights_of_the_simulation(
    name: str, launch: Launch, simulate: Simulate
) -> None:
    agreed, data = RUNS[name]
    data = ("--dataset", "digits", "--eval-samples", "100", *data)
    with ExitStack() as processes:
        server = processes.enter_context(
            launch(
                *("hetero-server", "--listen", "127.0.0.1:0", "--clients", "3", "--run-dir", "run"),
                *(*MODEL, *agreed),
            )
        )
        clients = {}
        for number, cut_layer in enumerate(CUTS, start=1):
            flags = (
                *("--server", server.address, "--cut-layer", str(cut_layer), "--run-dir", "run"),
                *("--client-id", f"client-{number}", "--shard", f"{number}/3"),
            )
            clients[f"client-{number}"] = processes.enter_context(
                launch("hetero-client", *flags, *data)
            )
        cuts = ",".join(map(str, CUTS))
        simulated = simulate("--clients", "3", "--cut-layers", cuts, *MODEL, *agreed, *data)
        for process in (*clients.values(), server):
            assert process.finish().code == 0

        networked = server.folder / "run"
        assert (networked / PLAN_FILE).read_bytes() == (simulated / PLAN_FILE).read_bytes()
        assert bits(networked / MODEL_FILE) == bits(simulated / MODEL_FILE)
        for client_id, client in clients.items():
            expected = bits(simulated / f"{client_id}.safetensors")
            assert bits(client.folder / "run" / MODEL_FILE) == expected
            assert counted_here(client.folder / "run") == counted_there(simulated, client_id)
        for kind in ("joined", "round", "evaluation", "left", "finished"):
            assert recorded(networked, kind) == recorded(simulated, kind) != []
