"""Work is made of values: it can be copied, kept, and computed again elsewhere."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator

import pytest
import torch

from hetero_client.data.shard import Shard
from hetero_client.device_model import DeviceModel
from hetero_client.exits.rule import DEFAULT_RULE
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_lab.simulation import InNoFile, SimulatedClient, simulate
from hetero_server.build import build_engine
from hetero_server.learning.aggregation import BoundaryResult
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.engine import Engine
from hetero_server.run.member import Member
from hetero_server.run.work import BoundaryWork, JoinWork, Outcome, StepWork, Work
from hetero_server.settings import StrategySettings

PLAN = Plan(
    model="tinycnn", width=4, image_size=8, classes=3, rounds=3, batch_size=4, feedback="logits"
)


def an_engine(strategy: str) -> Engine:
    settings = StrategySettings.model_validate({"strategy": strategy})
    initial = InitialModel(PLAN)
    return build_engine(initial, settings, Compute(), clients=2, observe=lambda event: None)


def watched(engine: Engine) -> list[bytes]:
    """All work of a run, as it was handed out."""
    done: list[bytes] = []
    perform = engine.perform

    def remember(work: Work) -> Outcome:
        done.append(pickle.dumps(portable(work)))
        return perform(work)

    engine.perform = remember  # type: ignore[method-assign]
    return done


def portable(work: Work) -> Work:
    """The same work; memory that is only looked at is no value that can be sent."""
    if not isinstance(work, StepWork):
        return work
    parts = []
    for part in work.parts:
        payload = part.batch.payload
        data = bytes(payload.data)
        copied = dataclasses.replace(payload, data=data)  # type: ignore[arg-type]
        parts.append(
            dataclasses.replace(part, batch=dataclasses.replace(part.batch, payload=copied))
        )
    return StepWork(parts)


def received(kept: bytes) -> Work:
    """The work that was sent."""
    work: Work = pickle.loads(kept)
    if isinstance(work, StepWork):
        for part in work.parts:
            payload = part.batch.payload
            object.__setattr__(payload, "data", memoryview(bytearray(payload.data)))
    return work


def run_of(engine: Engine) -> None:
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8)
    shard = Shard(images, torch.arange(24) % 3)
    clients = []
    for name, cut_layer in (("a", 1), ("b", 2)):
        model = DeviceModel(PLAN, cut_layer, Compute())
        trainer = PrefixTrainer(PLAN, name, model, shard, PLAN.steps_for(24))
        clients.append(SimulatedClient(name, trainer, 24, shard, DEFAULT_RULE, 8, InNoFile()))
    simulate(engine, "run", clients)


@pytest.mark.parametrize("strategy", ["sequential", "averaging", "mixed"])
def test_a_run_can_be_computed_again_from_its_work(strategy: str) -> None:
    engine = an_engine(strategy)
    done = watched(engine)
    run_of(engine)
    assert engine.model is not None
    kinds = {type(received(kept)) for kept in done}
    assert kinds >= {JoinWork, StepWork, BoundaryWork}

    again = an_engine(strategy)
    outcomes = [again.perform(received(kept)) for kept in done]
    last = [each.model for each in outcomes if isinstance(each, BoundaryResult)][-1]
    assert last is not None
    expected = engine.model.flat()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in last.flat().items())
    assert last.flat().keys() == expected.keys()


def parts_of(value: object) -> Iterator[object]:
    yield value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from parts_of(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from parts_of(each)


@pytest.mark.parametrize("strategy", ["sequential", "averaging", "mixed"])
def test_no_work_holds_a_member(strategy: str) -> None:
    engine = an_engine(strategy)
    seen: list[Work] = []
    perform = engine.perform

    def look(work: Work) -> Outcome:
        seen.append(work)
        return perform(work)

    engine.perform = look  # type: ignore[method-assign]
    run_of(engine)
    assert seen
    assert not [part for work in seen for part in parts_of(work) if isinstance(part, Member)]
