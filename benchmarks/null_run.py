"""A run whose server model does nothing: what remains is everything around it.

The gRPC front, service, runner, engine, codec and client link are the real ones, on loopback; only
the strategy is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from measure import SEED
from torch import Tensor

from hetero_client.link.inbox import Outgoing
from hetero_client.link.transport import ServerLink
from hetero_common.agreement.control import RoundDone, StartRound
from hetero_common.agreement.plan import Plan
from hetero_common.errors import RefusedInput
from hetero_common.tensors import codec
from hetero_common.tensors.aggregation import LayerStates
from hetero_server.compute_thread import ComputeThread
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch
from hetero_server.net.listener import Listener
from hetero_server.net.service import HeteroSplitService
from hetero_server.run.engine import Engine
from hetero_server.run.orders import arrival
from hetero_server.runner import Runner

CUT_LAYER = 3
BATCH = 64
SHAPE = (BATCH, 16, 32, 32)
"""Of one activation after CUT_LAYER: 4 MiB of fp32."""

_ENDLESS = 1_000_000  # rounds; the last one would have the weights pushed


@dataclass(frozen=True)
class NullStrategy:
    """Holds no layers and trains none; a step takes `seconds`."""

    seconds: float = 0.0
    is_joint = False
    minds_order = True

    def add(self, client_id: str, cut_layer: int) -> None:
        """Nothing is held."""

    def remove(self, client_id: str) -> None:
        """Nothing is held."""

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """The activations have been decoded and checked; that was all."""
        if self.seconds:
            time.sleep(self.seconds)
        return [StepOutcome(loss=0.0, correct=0, feedback=None) for _ in batches]

    def forget_statistics(self, client_id: str) -> None:
        """There are none."""

    def nbytes(self) -> int:
        """Nothing is held."""
        return 0

    def copies(self, round_: int, last: bool) -> Mapping[str, LayerStates]:
        """Nothing is aggregated."""
        return {}

    def adopt(self, averaged: LayerStates) -> None:
        """Nothing is held."""

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """No benchmark predicts."""
        raise NotImplementedError

    def layers(self) -> LayerStates:
        """Nothing is held."""
        return {}


def null_engine(
    kind: type[Engine] = Engine, *, steps: int, clients: int = 1, seconds: float = 0.0
) -> Engine:
    """An engine of `steps` per round that trains nothing, and whose run does not end."""
    plan = Plan(
        **{"model": "resnet18", "width": 16, "image_size": 32, "batch_size": BATCH, "seed": SEED},
        **{"rounds": _ENDLESS, "steps_per_round": steps},
        **{"client_aggregation": "none", "wire": "fp32"},
    )
    return kind(plan, InitialModel(plan), NullStrategy(seconds), arrival, clients=clients)


@contextlib.asynccontextmanager
async def served(engine: Engine) -> AsyncIterator[str]:
    """The engine behind gRPC; its HOST:PORT."""
    compute = ComputeThread()
    runner = Runner(engine, compute)
    runner.monitor.watch(engine, "null", "sequential")
    service = HeteroSplitService(engine, "null", compute, runner.monitor, runner.changed)
    listener = await Listener.open("127.0.0.1:0")
    listener.serve(service)
    work = asyncio.create_task(runner.run())
    try:
        yield f"127.0.0.1:{listener.port}"
    finally:
        work.cancel()
        await listener.close()
        compute.close()


class NullClient:
    """A client that sends the same random activation over and over."""

    def __init__(self, address: str, client_id: str) -> None:
        self._link = ServerLink(address)
        status = self._link.status()
        self._link.register(client_id, CUT_LAYER, BATCH, status.fingerprint)
        self._link.open()
        self._activation, self._labels = batch()

    def train_round(self) -> None:
        """Send a round's batches, as fast as the credits allow, and wait for the last one."""
        inbox = self._link.inbox
        start = inbox.next_directive()
        assert isinstance(start, StartRound), "the run does not end"
        for step in range(start.steps):
            payload = codec.encode(self._activation, "fp32", known_finite=True)
            batch = Outgoing(start.round, step, payload, self._labels)
            inbox.take_credit(batch)
            self._link.send(batch)
        inbox.drain()
        self._link.report(RoundDone(start.round, exit_loss=0.0, exit_accuracy=0.0))

    def close(self) -> None:
        """Leave the run once the server has closed the round."""
        self._link.inbox.next_directive()
        self._link.leave()
        self._link.close()


def batch() -> tuple[Tensor, Tensor]:
    """Activation (B, C, H, W) and labels (B,) of one step."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(SHAPE, generator=generator), torch.arange(BATCH) % 10
