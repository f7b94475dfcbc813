"""Which rounds' ends are saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero_common.agreement.plan import Plan
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import BEFORE_FIRST, CheckpointStore
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.run.checkpointing import Saving, save_work
from support.engine_run import FakeStrategy, initial_model


@pytest.mark.parametrize(
    ("every", "seconds", "saved"),
    [
        (1, 0.0, list(range(12))),
        (3, 0.0, [2, 5, 8, 11]),
        (5, 0.0, [4, 9, 11]),  # the last one always
        (1, 30.0, [3, 7, 11]),
        (1, 1000.0, [11]),
        (3, 30.0, [5, 11]),  # after each third, if it is long enough ago by then
    ],
)
def test_a_round_is_saved_where_the_last_is_long_enough_ago(
    every: int, seconds: float, saved: list[int], tmp_path: Path
) -> None:
    """Rounds last ten seconds; that the fourth is saved is said when the third has ended."""
    now = 0.0
    store = CheckpointStore(tmp_path, "run", "f")
    saving = Saving(store, every, Cadence(seconds, lambda: now))
    initial, plan = initial_model().weights, Plan(rounds=12)
    shared = SharedWeights(initial.layers, initial.exits)
    written: list[int] = []
    for round_ in range(plan.rounds):
        keep_from, asked = saving.begin(round_, plan)
        now += 10
        assert keep_from == (written[-2:] or [BEFORE_FIRST])[0]
        assert asked == saving.is_due
        if asked:
            written.append(round_)
            saving.save(save_work(round_, (), shared, None, {}), FakeStrategy())
    assert written == saved
    assert store.rounds() == saved[-2:]
