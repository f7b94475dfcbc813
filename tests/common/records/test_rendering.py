"""Events in words."""

from __future__ import annotations

import pytest

from hetero_common.records.events import (
    CheckpointWritten,
    DeviceJoined,
    Event,
    Finished,
    Joined,
    Left,
    LeftOut,
    QuarantineEntered,
    Rejoined,
    Released,
    Resumed,
    Returned,
    RoundClosed,
    Started,
)
from hetero_common.records.rendering import in_words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Started("r-1"), "the run r-1 has started"),
        (Joined("a", 3, 1200), "a joined with cut layer 3 and 1,200 images"),
        (DeviceJoined("r", "a", 3, 12), "a joined with cut layer 3 and 12 images"),
        (Returned("a", 5, 3), "a came back and went on from the end of round 4"),
        (Returned("a", 5, None), "a came back and started anew"),
        (Returned("a", 0, -1), "a came back and went on from its beginning"),
        (Left("a", "LEFT", 2), "a has left"),
        (Left("a", "STALE", 2), "a lost its connection, and may come back"),
        (Left("a", "EVICTED", 2), "a was sent away, or a newer process has its id"),
        (Left("a", "EVICTED", 2, "NonFinite"), "a was sent away (NonFinite)"),
        (Released("a", 4, "it slept"), "round 5 goes on without a: it slept"),
        (
            LeftOut("a", 4, "update_norm", 12.3456, 1.5),
            "what a pushed is in no average of round 5: update norm of 12.3 where 1.5 is usual",
        ),
        (
            QuarantineEntered("a", 4, 1, "server_loss", 99.0, 1.0),
            "a was sent away for the rest of the run: server loss of 99 where 1 is usual",
        ),
        (CheckpointWritten(-1), "the run was saved before its first round"),
        (CheckpointWritten(7), "the run was saved after round 8"),
        (CheckpointWritten(7, "disk full"), "the run could not be saved: disk full"),
        (Resumed(3), "the server was started again and went on from the end of round 4"),
        (Resumed(-1), "the server was started again and went on from its beginning"),
        (Finished(9), "all 9 rounds are done"),
        (RoundClosed(1, "a"), ""),
    ],
)
def test_each_event_has_a_sentence_or_none(event: Event, words: str) -> None:
    assert in_words(event) == words


def test_a_client_is_called_what_the_reader_knows_it_by() -> None:
    assert in_words(Released("a", 0, "why"), "this client").endswith("without this client: why")
    assert in_words(Rejoined(2)).startswith("the client lost the server")
