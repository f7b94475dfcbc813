from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.records.checkpoints import CheckpointStore
from hetero_server.build import build_engine
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies.averaging import AveragingStrategy
from hetero_server.learning.strategies.mixed import MixedStrategy
from hetero_server.learning.strategies.sequential import SequentialStrategy
from hetero_server.run.checkpointing import Saving
from hetero_server.run.engine import Engine
from hetero_server.run.phase import Phase
from hetero_server.settings import StrategySettings
from support.engine_run import a_batch, hand_in


def built(initial: InitialModel, settings: StrategySettings, **more: Any) -> Engine:
    options: dict[str, Any] = {"clients": 2, "observe": lambda event: None, **more}
    return build_engine(initial, settings, Compute(), **options)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sequential", SequentialStrategy),
        ("averaging", AveragingStrategy),
        ("mixed", MixedStrategy),
    ],
)
def test_an_engine_has_the_strategy_of_the_settings(
    name: str, kind: type, initial: InitialModel
) -> None:
    engine = built(initial, StrategySettings.model_validate({"strategy": name}))
    assert type(engine.strategy) is kind


def test_it_waits_for_as_many_clients_as_it_is_told_and_tells_what_happens(
    initial: InitialModel,
) -> None:
    events: list[str] = []
    engine = built(initial, StrategySettings(), observe=lambda event: events.append(event.kind))
    for number, client_id in enumerate("ab"):
        assert engine.phase is Phase.WAITING, number
        engine.register(client_id, 2, 64)
        engine.attach(client_id)
    assert engine.phase is Phase.TRAINING
    assert events == ["joined", "joined"]


def test_the_server_trains_exits_only_if_it_shall(plan: Plan) -> None:
    initial = InitialModel(plan.model_copy(update={"exits": "all"}))
    held = {}
    for server_exits in (True, False):
        strategy = built(initial, StrategySettings(server_exits=server_exits)).strategy
        strategy.add("a", 2)
        held[server_exits] = strategy.nbytes()
    assert held[True] > held[False]


def test_what_it_saves_goes_where_it_is_told(initial: InitialModel, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "run", initial.fingerprint)
    engine = built(initial, StrategySettings(), clients=1, saving=Saving(store))
    engine.begin(None)
    while (work := engine.work()) is not None:
        engine.settle(work, engine.perform(work))
    assert store.rounds() == [-1]


@pytest.mark.parametrize("order", ["arrival", "interleaved", "relay"])
def test_replicas_take_batches_as_they_come_whatever_the_order(
    order: str, initial: InitialModel
) -> None:
    """Whose is next makes no difference to them, so nobody is waited for."""
    settings = StrategySettings.model_validate({"strategy": "averaging", "order": order})
    engine = built(initial, settings)
    for client_id in ("a", "b"):
        engine.register(client_id, 2, 64)
        engine.attach(client_id)
    while (work := engine.work()) is not None:
        engine.settle(work, engine.perform(work))
    hand_in(engine, "b", a_batch(0, 0))
    assert engine.work() is not None
