"""A server that is killed after an evaluation, and has to ask for it again: the same weights.

By then its clients are in the middle of the next round, with weights of their own.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from hetero_splitee.v1 import service_pb2 as pb
from hetero_splitee.v1.service_pb2_grpc import HeteroSplitStub
from support.chaos_fleet import MODEL, Fleet, events, require_same, simulated

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

STEPS, BATCH = 60, 16
EVALUATED = 2
"""The first round that is evaluated, and the first that is saved."""
AGREED = (
    *(*MODEL, "--steps-per-round", str(STEPS), "--rounds", "5"),
    *("--eval-every", "3", "--order", "interleaved"),
)


def wait_until_all_train_round(address: str, round_: int) -> None:
    with grpc.insecure_channel(address) as channel:
        stub: Any = HeteroSplitStub(channel)
        while True:
            status = stub.GetStatus(pb.GetStatusRequest())
            begun = [member.samples > round_ * STEPS * BATCH for member in status.members]
            if status.round == round_ and all(begun):
                return
            time.sleep(0.005)


def test_a_server_that_is_killed_in_the_round_after_an_evaluation(
    simulate: Simulate, launch: Launch, tmp_path: Path
) -> None:
    undisturbed = simulated(simulate, AGREED)
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, AGREED)
        wait_until_all_train_round(fleet.address, EVALUATED + 1)
        fleet.kill_server()
        require_same(fleet, undisturbed)
        assert [e["round"] for e in events(fleet.run, "resumed")] == [EVALUATED]
        evaluated = events(fleet.run, "evaluation", round=EVALUATED, client="client-1")
        assert len(evaluated) == 2, "it was killed after the first one"
