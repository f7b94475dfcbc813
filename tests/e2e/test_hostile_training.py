"""Two honest clients learn digits while a third one trains the server on noise.

It breaks no rule of the protocol: its activations are finite, its labels exist, its weights are
those that it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import torch

from hetero_common.agreement.control import StartRound
from hetero_common.records.history import read_records
from hetero_common.tensors import codec
from hetero_common.tensors.weights import tensors_to_bytes
from hetero_common.wire import rpc
from hetero_common.wire.messages import record_from_wire
from hetero_splitee.v1 import service_pb2 as pb
from support.intruder import (
    SECONDS,
    Intruder,
    Refusal,
    batch,
    framed,
    header,
    refusal_of,
    registration,
)

if TYPE_CHECKING:
    from conftest import Simulate
    from e2e.conftest import Finished, Launch

NAME = "saboteur"
ROWS, SHAPE = 32, (8, 16, 16)
AGREED = (
    *("--model", "resnet18", "--width", "8", "--image-size", "16", "--normalization", "digits"),
    *("--augment", "none", "--rounds", "10", "--exit-head", "linear", "--wire", "fp32"),
    *("--batch-size", "32", "--steps-per-round", "8", "--server-lr", "0.05"),
)
DATA = ("--dataset", "digits")
CUTS = (3, 5)


class Saboteur(Intruder):
    """Does what it is told, from its seventh step on with noise a thousand times too large."""

    def trains(self) -> Refusal:
        """How the server ends it."""
        return refusal_of(self._follow)

    def _follow(self) -> Iterator[None]:
        start = StartRound(0, 0, pull_state=False, push_state=False)
        for frame in self._stream:
            match frame.message.WhichOneof("kind"):
                case "start_round":
                    start = record_from_wire(frame.message.start_round, StartRound)
                    self._send(start.round, 0)
                case "ack" if frame.message.ack.step + 1 < start.steps:
                    self._send(start.round, frame.message.ack.step + 1)
                case "ack":
                    self._push(tensors_to_bytes(self.unchanged()), start.round)
                    report = pb.RoundDone(round=start.round)
                    self._outgoing.put(pb.TrainRequest(round_done=report))
            yield

    def _send(self, round_: int, step: int) -> None:
        torch.manual_seed(step)
        noise = (1000 if (round_, step) >= (0, 6) else 1) * torch.randn(ROWS, *SHAPE)
        announced = header(ROWS, *SHAPE)
        labels = torch.randint(0, 10, (ROWS,)).tolist()
        message = batch(round=round_, step=step, labels=labels, activation=announced)
        self._outgoing.put(message)
        self._outgoing.put(framed(codec.encode(noise, "fp32").data))


@dataclass
class Sabotage:
    """A run with a saboteur in it, when it was over."""

    strategy: str
    refusal: Refusal
    on_return: Refusal
    server: Finished
    clients: list[Finished] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture(scope="module", params=["sequential", "mixed"])
def sabotage(launch: Launch, request: pytest.FixtureRequest) -> Sabotage:
    strategy: str = request.param
    with ExitStack() as stack:
        server = stack.enter_context(
            launch(
                *("hetero-server", "--listen", "127.0.0.1:0", "--run-dir", "run"),
                # The saboteur says nothing while it waits for the others to start.
                *("--clients", "3", "--stall-timeout", str(SECONDS), *AGREED),
                *("--strategy", strategy),
            )
        )
        honest = [
            stack.enter_context(
                launch(
                    *("hetero-client", "--server", server.address, "--run-dir", "run", *DATA),
                    *("--client-id", f"client-{number}", "--cut-layer", str(cut_layer)),
                    *("--shard", f"{number}/2"),
                )
            )
            for number, cut_layer in enumerate(CUTS, start=1)
        ]
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        status = rpc.callable_for(channel, "GetStatus")(pb.GetStatusRequest(), timeout=SECONDS)
        saboteur = Saboteur(channel, NAME, status.fingerprint)
        stack.callback(saboteur.closes)
        refusal = saboteur.trains()
        again = registration(client_id=NAME, fingerprint=status.fingerprint)
        on_return = refusal_of(
            lambda: rpc.callable_for(channel, "Register")(again, timeout=SECONDS)
        )
        clients = [client.finish() for client in honest]
        events = read_records(server.folder / "run")
        return Sabotage(strategy, refusal, on_return, server.finish(), clients, events)


def accuracies(events: list[dict[str, Any]]) -> dict[str, float]:
    """Of the server, on the activations of each client, at the end."""
    return {
        event["client"]: event["server_accuracy"]
        for event in events
        if event["event"] == "evaluation"
    }


def test_the_saboteur_is_sent_away_and_not_let_in_again(sabotage: Sabotage) -> None:
    assert sabotage.refusal == sabotage.on_return
    assert sabotage.refusal == Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        "this run takes nothing more from saboteur: its activations were too often far beyond "
        "those of the other clients: check its data and its learning rate",
    )


def test_it_is_recorded_when_and_why(sabotage: Sabotage) -> None:
    (event,) = [event for event in sabotage.events if event["event"] == "quarantined"]
    assert (event["client"], event["statistic"]) == (NAME, "activation_peak")
    assert (event["round"], event["step"]) == (1, 5)
    assert event["value"] > 1000 > 100 > event["usual"]
    assert "client saboteur is sent away: 8 of its last 14 steps were " in sabotage.server.stderr


def test_honest_clients_finish_and_none_of_their_steps_is_an_outlier(sabotage: Sabotage) -> None:
    assert [process.code for process in (*sabotage.clients, sabotage.server)] == [0, 0, 0]
    rounds = [event for event in sabotage.events if event["event"] == "round"]
    honest = [event for event in rounds if event["client"] != NAME]
    assert len(honest) == 20
    assert not any(event["outliers"] for event in honest)


def test_the_model_is_as_good_as_without_the_saboteur(
    sabotage: Sabotage, simulate: Simulate
) -> None:
    cuts = ",".join(map(str, CUTS))
    undisturbed: Path = simulate(
        *("--clients", "2", "--cut-layers", cuts, "--strategy", sabotage.strategy, *AGREED, *DATA)
    )
    expected, ours = accuracies(read_records(undisturbed)), accuracies(sabotage.events)
    assert expected.keys() == ours.keys()
    for client_id, accuracy in expected.items():
        assert accuracy > 0.9
        assert ours[client_id] > accuracy - 0.05
