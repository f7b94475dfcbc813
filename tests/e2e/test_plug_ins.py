"""What users bring along: a thing of each kind, trained with over a network, without a change here.

The things are in `tests/support/plug_ins.py`; each process has a copy of that file where it stands.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import load_file

from hetero_common.records.rundir import MODEL_FILE
from support import plug_ins
from support.processes import Process

if TYPE_CHECKING:
    from conftest import Simulate
    from support.processes import Launch

AGREED = {
    "model": "network",
    "exit-head": "flat",
    "optimizer": "sign",
    "lr-schedule": "linear",
    "augment": "noise",
    "normalization": "halves",
}
"""What both sides run, by the setting that names it."""
OF_THE_SERVER = {"strategy": "TwiceStrategy", "order": "backwards"}
PLAIN = (
    *("--image-size", "8", "--classes", "3", "--batch-size", "5", "--rounds", "4"),
    *("--steps-per-round", "3", "--exits", "last", "--wire", "fp32"),
)
CUTS = (1, 2)


def flags(named: dict[str, str]) -> list[str]:
    return [text for flag, name in named.items() for text in (f"--{flag}", f"plug_ins:{name}")]


def with_plug_ins(process: Process) -> Process:
    """The process, with the user's module where it stands."""
    shutil.copy(plug_ins.__file__, process.folder / "plug_ins.py")
    return process


def started(launch: Launch, run: Path, *more: str) -> Process:
    server = ("--listen", "127.0.0.1:0", "--http", "off", "--run-dir", str(run), *more)
    own = flags(AGREED | OF_THE_SERVER)
    return with_plug_ins(launch("hetero-server", *PLAIN, *own, *server))


def test_a_run_of_nothing_but_the_users_own_things_ends_as_it_is_simulated(
    launch: Launch, simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(started(launch, tmp_path / "server", "--clients", "2"))
        clients = []
        for number, cut in enumerate(CUTS, start=1):
            own = ("--cut-layer", str(cut), "--client-id", f"client-{number}", *flags(AGREED))
            data = ("--dataset", "plug_ins:stripes", "--shard", f"{number}/2")
            client = launch("hetero-client", "--server", server.address, *own, *data)
            clients.append(stack.enter_context(with_plug_ins(client)))
        assert [client.finish().code for client in clients] == [0, 0]
        assert server.finish().code == 0

    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(plug_ins.__file__, folder / "plug_ins.py")
    monkeypatch.syspath_prepend(folder)
    simulated = simulate(
        *(*PLAIN, *flags(AGREED | OF_THE_SERVER), "--dataset", "plug_ins:stripes"),
        *("--clients", "2", "--cut-layers", "1,2"),
    )
    ours = load_file(tmp_path / "server" / MODEL_FILE)
    theirs = load_file(simulated / MODEL_FILE)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.parametrize("left_out", AGREED)
def test_a_client_runs_no_code_that_only_the_server_has_named(
    left_out: str, launch: Launch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: Process = request.getfixturevalue("waiting")
    named = {flag: name for flag, name in AGREED.items() if flag != left_out}
    client = launch(
        *("hetero-client", "--server", server.address, "--cut-layer", "1"),
        *(*flags(named), "--dataset", "plug_ins:stripes"),
    )
    with client:  # without the module: it would not even be imported
        finished = client.finish()
    thing = f"plug_ins:{AGREED[left_out]}"
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1] == (
        f"hetero-client: the server trains with {thing}, which is code on this device: "
        f"repeat --{left_out} {thing} here if it is yours"
    )


@pytest.fixture(scope="module")
def waiting(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> object:
    """A server that waits for its clients."""
    run = tmp_path_factory.mktemp("waiting")
    with started(launch, run, "--clients", "2") as server:
        assert server.address
        yield server
