from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hetero_client.commands import status
from hetero_common.agreement.status import MemberStatus, RunStatus
from support.in_process_server import with_server

NEW = MemberStatus("board-1", 3, "REGISTERED", 1200, 0, None, 0, 0, None, 0)
TRAINED = MemberStatus(
    *("board-2", 4, "TRAINING", 1200, 34567, 12.34, 5_600_000, 789_000, 61.0, 2),
    *(0.5, 0.75, 0.8, 0.25),
)
RUN = RunStatus("run-1", "TRAINING", "mixed", "tinycnn", 4, 10, 3725.0, 59.6, (NEW, TRAINED))


class Link(SimpleNamespace):
    """A connection to a server whose run stands like this."""

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status_now(self) -> SimpleNamespace:
        return SimpleNamespace(run=self.run)


def shown(
    run: RunStatus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> str:
    monkeypatch.setattr(status, "ServerLink", lambda *_, **__: Link(run=run))
    assert status.main(flags) == 0
    return capsys.readouterr().out


def test_a_headline_and_a_row_for_each_client(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    headline, *table = shown(RUN, monkeypatch, capsys).splitlines()
    assert headline == (
        "run-1: tinycnn, mixed, training, round 5 of 10, 1 h 2 min left, saved 1 min 0 s ago"
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if "│" in line]
    assert rows == [
        ["board-1", "3", "registered", "1,200", "0", *"-", "0.0", "0.0", *"-----"],
        [
            *("board-2", "4", "training", "1,200", "34,567", "12.3", "5.6", "0.8"),
            *("1 min 1 s ago", "50.0%", "75.0%", "80.0%", "25.0%"),
        ],
    ]


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"phase": "FINISHED", "round": 10}, "run-1: tinycnn, mixed, finished, round 10 of 10"),
        ({"phase": "SERVING"}, "run-1: tinycnn, mixed, serving"),
        ({"seconds_left": 59.4}, "run-1: tinycnn, mixed, training, round 5 of 10, 59 s left"),
    ],
)
def test_what_nobody_knows_is_left_out(
    changes: dict[str, object],
    headline: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = replace(RUN, seconds_left=None, saved_seconds=None, members=())
    run = replace(bare, **changes)  # type: ignore[arg-type]  # of several types
    assert shown(run, monkeypatch, capsys) == f"{headline}\n"


def test_names_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = replace(RUN, run_id="[red]run", members=(replace(NEW, client_id="[bold]x"),))
    text = shown(run, monkeypatch, capsys)
    assert "[red]run: " in text
    assert "[bold]x" in text


def test_as_json_it_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = shown(RUN, monkeypatch, capsys, "--output", "json").splitlines()
    found = json.loads(line)
    assert (found["run_id"], found["seconds_left"]) == ("run-1", 3725.0)
    assert [member["client_id"] for member in found["members"]] == ["board-1", "board-2"]
    assert found["members"][0]["exit_accuracy"] is None


def test_a_real_server_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code = with_server(lambda server: status.main(["--server", server.address]))
    assert code == 0
    assert capsys.readouterr().out == "run: tinycnn, sequential, waiting, round 1 of 2\n"


def test_where_nobody_answers_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--server", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("hetero-status: the connection to the server failed")
