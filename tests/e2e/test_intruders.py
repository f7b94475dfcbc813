"""One live server and one honest client, while others register beside it and break the rules.

Each intruder breaks one: it gets one sentence, and nothing else happens.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from safetensors.numpy import load_file

from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_common.wire import rpc
from hetero_splitee.v1 import service_pb2 as pb
from support.bad_messages import BAD_CALLS, BAD_SESSION_CALLS, BAD_STREAMS, ENDED, EXPECTED
from support.commands import ERROR_NAMES, LOG_LINE
from support.intruder import AGREED, CUT, DATA, SECONDS, Intruder, Refusal, refusal_of

if TYPE_CHECKING:
    from conftest import Simulate
    from e2e.conftest import Finished, Launch


@dataclass
class IntrudedRun:
    """A run with one honest client among intruders, when it was over."""

    refusals: dict[str, Refusal] = field(default_factory=dict)
    afterwards: dict[str, Refusal] = field(default_factory=dict)
    """What those hear next whose training stream was ended."""
    client: Finished | None = None
    client_run: Path = Path()
    server: Finished | None = None
    server_run: Path = Path()


@pytest.fixture(scope="module")
def intruded_run(launch: Launch) -> IntrudedRun:
    intruded_run = IntrudedRun()
    intruding = [*BAD_STREAMS, *BAD_SESSION_CALLS]
    with ExitStack() as stack:
        server = stack.enter_context(
            launch(
                *("hetero-server", "--listen", "127.0.0.1:0", "--run-dir", "run"),
                *("--clients", str(len(intruding) + 1), *AGREED),
            )
        )
        flags = ("--server", server.address, "--cut-layer", str(CUT), "--run-dir", "run")
        honest = stack.enter_context(
            launch("hetero-client", *flags, *DATA, "--client-id", "client-1")
        )
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        status = rpc.callable_for(channel, "GetStatus")(pb.GetStatusRequest(), timeout=SECONDS)
        intruders = {}
        for name in intruding:
            intruders[name] = Intruder(channel, name, status.fingerprint)
            stack.callback(intruders[name].closes)
        for intruder in intruders.values():
            intruder.waits_for_round()
        # From here on the honest client is in a round that cannot end before the last intruder.
        for name, (call, _, _) in BAD_CALLS.items():
            intruded_run.refusals[name] = refusal_of(partial(call, channel, status.fingerprint))
        for name, (misbehaves, _, _) in BAD_SESSION_CALLS.items():
            intruded_run.refusals[name] = misbehaves(intruders[name])
            intruders[name].leaves()
        for name, (messages, _, _) in BAD_STREAMS.items():
            intruded_run.refusals[name] = intruders[name].sends(messages)
            intruded_run.afterwards[name] = intruders[name].pulls()
        # gRPC itself has ended this one's call, so to the server it has lost its connection.
        Intruder(channel, "a frame larger than gRPC takes", status.fingerprint).leaves()
        intruded_run.client, intruded_run.server = honest.finish(), server.finish()
        intruded_run.client_run, intruded_run.server_run = (
            honest.folder / "run",
            server.folder / "run",
        )
    return intruded_run


@pytest.mark.parametrize("case", EXPECTED)
def test_an_intruder_is_refused(case: str, intruded_run: IntrudedRun) -> None:
    code, sentence = EXPECTED[case]
    refusal = intruded_run.refusals[case]
    assert (refusal.code, sentence in refusal.sentence) == (code, True), refusal
    assert "\n" not in refusal.sentence
    assert not any(name in refusal.sentence for name in (*ERROR_NAMES, "Traceback", ".py", "/"))


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_an_intruder_s_session_is_over(case: str, intruded_run: IntrudedRun) -> None:
    assert intruded_run.afterwards[case] == Refusal(
        ENDED, "this session has ended or was never opened: register again"
    )


def test_the_honest_client_finishes_its_training(intruded_run: IntrudedRun) -> None:
    assert intruded_run.client is not None and intruded_run.server is not None
    assert (intruded_run.client.code, intruded_run.server.code) == (0, 0)
    kinds = [event["event"] for event in read_records(intruded_run.client_run)]
    assert kinds == ["joined", "round", "round", "evaluation", "finished"]


def test_intruders_leave_no_trace_in_the_weights(
    intruded_run: IntrudedRun, simulate: Simulate
) -> None:
    """Bit for bit what the honest client and the server would have got on their own."""
    alone = simulate("--clients", "1", "--cut-layers", str(CUT), *DATA, *AGREED)
    for ours, theirs in (
        (intruded_run.server_run / MODEL_FILE, alone / MODEL_FILE),
        (intruded_run.client_run / MODEL_FILE, alone / "client-1.safetensors"),
    ):
        trained, expected = load_file(ours), load_file(theirs)
        assert trained.keys() == expected.keys()
        assert all(trained[k].tobytes() == expected[k].tobytes() for k in expected)


def test_no_intruder_makes_the_server_fail(intruded_run: IntrudedRun) -> None:
    """A refusal is a line in the log; a fault would be a traceback with an id."""
    assert intruded_run.server is not None
    log = intruded_run.server.stderr.splitlines()
    assert all(LOG_LINE.match(line) for line in log)
    assert not [line for line in log if " ERROR " in line or "fault" in line]
    refused = [line for line in log if "refused a call: " in line]
    assert len(refused) >= len(intruded_run.refusals)
