"""A simulated client's way to its server: what it sends, and what a break of it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hetero_client.data.shard import Shard
from hetero_client.device_model import DeviceModel
from hetero_client.exits.rule import DEFAULT_RULE
from hetero_client.link.inbox import Outgoing
from hetero_client.training.checkpointing import Keeping
from hetero_client.training.feedback_journal import FeedbackJournal
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import CheckpointStore
from hetero_common.records.events import Event, Returned
from hetero_common.tensors.weights import Weights
from hetero_lab import simulation
from hetero_lab.memory_link import MemoryLink
from hetero_lab.simulation import SimulatedClient, simulate
from hetero_server.build import build_engine
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.engine import Engine
from hetero_server.settings import StrategySettings

CLIENTS = (("a", 1), ("b", 2), ("c", 2))
ROUNDS, STEPS, ROWS, CLASSES, FP32 = 4, 5, 4, 3, 4


def plan_of(**changes: object) -> Plan:
    plan = Plan(model="tinycnn", width=4, image_size=8, classes=CLASSES, rounds=ROUNDS)
    own = {"batch_size": ROWS, "steps_per_round": STEPS, "wire": "fp32"}
    return plan.model_copy(update={**own, **changes})


def trained(plan: Plan, folder: Path, **strategy: str) -> tuple[Engine, list[tuple[str, int]]]:
    """A finished run, and which events of clients that came back it has recorded."""
    returned: list[tuple[str, int]] = []

    def observe(event: Event) -> None:
        if isinstance(event, Returned):
            returned.append((event.client, event.round))

    settings = StrategySettings.model_validate({"strategy": "sequential", **strategy})
    engine = build_engine(InitialModel(plan), settings, Compute(), clients=3, observe=observe)
    clients = []
    for number, (name, cut_layer) in enumerate(CLIENTS):
        generator = torch.Generator().manual_seed(number)
        images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
        shard = Shard(images, torch.arange(24) % 3)
        model = DeviceModel(plan, cut_layer, Compute())
        trainer = PrefixTrainer(plan, name, model, shard, plan.steps_for(24))
        store = CheckpointStore(folder / name, "run", model.fingerprint)
        clients.append(
            SimulatedClient(
                name,
                trainer,
                24,
                shard,
                DEFAULT_RULE,
                8,
                Keeping(store, Cadence(1e9)),
                FeedbackJournal(folder / f"{name}.journal", "run"),
            )
        )
    simulate(engine, "run", clients)
    return engine, returned


class FragileLink(MemoryLink):
    """Breaks as it sends the batches that are named: (client id, round, step), each once."""

    breaks: set[tuple[str, int, int]]
    most_unacknowledged = 0

    def send(self, batch: Outgoing) -> None:
        under_way = len(self.inbox.unacknowledged())
        FragileLink.most_unacknowledged = max(FragileLink.most_unacknowledged, under_way)
        here = (self._own.client_id, batch.round, batch.step)
        if here in self.breaks:
            self.breaks.remove(here)
            self.lose()
        else:
            super().send(batch)


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FragileLink]]:
    """Simulated clients get links that break."""
    FragileLink.breaks, FragileLink.most_unacknowledged = set(), 0
    monkeypatch.setattr(simulation, "MemoryLink", FragileLink)
    yield FragileLink


def weights(engine: Engine) -> Weights:
    assert engine.model is not None
    return engine.model


def same_bits(first: Weights, second: Weights) -> bool:
    one, other = first.flat(), second.flat()
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


@pytest.mark.parametrize("feedback", ["none", "gradient", "logits"])
@pytest.mark.parametrize("strategy", ["sequential", "averaging", "mixed"])
def test_broken_connections_cost_nothing(
    feedback: str, strategy: str, tmp_path: Path, fragile: type[FragileLink]
) -> None:
    plan = plan_of(feedback=feedback)
    undisturbed, returned = trained(plan, tmp_path / "undisturbed", strategy=strategy)
    assert not returned
    fragile.breaks = {("a", 0, 0), ("a", 2, 3), ("b", 1, 4), ("c", 1, 2), ("c", 3, 1)}
    disturbed, returned = trained(plan, tmp_path / "disturbed", strategy=strategy)
    assert not fragile.breaks
    assert sorted(returned) == [("a", 0), ("a", 2), ("b", 1), ("c", 1), ("c", 3)]
    assert same_bits(weights(disturbed), weights(undisturbed))


def test_a_client_has_no_more_batches_under_way_than_it_has_credits(
    tmp_path: Path, fragile: type[FragileLink]
) -> None:
    """In a relay the others wait for the one whose turn it is, with all that they may send."""
    engine, _ = trained(plan_of(steps_per_round=12), tmp_path, order="relay")
    assert fragile.most_unacknowledged == engine.credits


def test_what_has_travelled_is_counted_on_both_sides_alike(tmp_path: Path) -> None:
    engine, _ = trained(plan_of(feedback="logits"), tmp_path)
    for member in engine.members.values():
        values = math.prod(engine.initial.shapes[member.cut_layer - 1])
        assert member.traffic.bytes_received == ROUNDS * STEPS * ROWS * values * FP32
        assert member.traffic.bytes_returned == ROUNDS * STEPS * ROWS * CLASSES * FP32
