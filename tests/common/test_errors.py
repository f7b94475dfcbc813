from __future__ import annotations

import re

import pytest

from hetero_common import errors
from hetero_common.errors import (
    CutLayerOutOfRange,
    HeteroError,
    ModelMismatch,
    NonFinite,
    NotTraining,
    PermissionDenied,
    Quarantined,
    ServerFault,
    StepGap,
    Superseded,
    VersionMismatch,
)
from support.error_tree import EVERY_ERROR

WITH_A_SENTENCE_OF_THEIR_OWN: list[tuple[HeteroError, str]] = [
    (
        CutLayerOutOfRange(4, ["stem", "block1", "head"]),
        "cut layer 4 is out of range: choose one of 1..2: 1 (stem), 2 (block1)",
    ),
    (
        NonFinite("a tensor"),
        "a tensor holds NaN or infinity: lower the learning rate or check the input data",
    ),
    (NotTraining(), "no training goes on here: the run is over or only being served"),
    (Superseded("a"), "a newer process registered as a: this one can stop"),
    (StepGap(2, 5, 3), "step 5 of round 2 leaves a gap: step 3 is expected next"),
    (
        VersionMismatch(client=1, server=2),
        "the client speaks protocol version 1, the server 2: upgrade hetero-splitee on the client",
    ),
    (
        VersionMismatch(client=3, server=2),
        "the client speaks protocol version 3, the server 2: upgrade hetero-splitee on the server",
    ),
    (
        ModelMismatch("a" * 64, "b" * 64),
        "the client built a model with fingerprint aaaaaaaaaaaa, the server trains bbbbbbbbbbbb: "
        "install the same model code on both sides",
    ),
    *(
        (
            ModelMismatch(fingerprint, "b" * 64),
            "the client built a model with a fingerprint that is none, the server trains "
            "bbbbbbbbbbbb: install the same model code on both sides",
        )
        for fingerprint in ("", "a\n12:00:00 ERROR   fault")
    ),
    (
        PermissionDenied("board-2", "board-1"),
        "this credential is board-1's and not board-2's: start the client with --client-id "
        "board-1, or give it a credential of its own",
    ),
    (NotTraining(), "no training goes on here: the run is over or only being served"),
    (Superseded("a"), "a newer process registered as a: this one can stop"),
    (
        Quarantined("board-2", "its activations"),
        "this run takes nothing more from board-2: its activations were too often far beyond those "
        "of the other clients: check its data and its learning rate",
    ),
    (ServerFault("c0ffee"), "the server failed; its log has the details under id c0ffee"),
]


def test_the_tree_is_the_one_in_the_docstring() -> None:
    path: list[str] = []
    drawn = {}
    for branch, name in re.findall(r"^    ([│├└─ ]*)(\w+)", errors.__doc__ or "", re.MULTILINE):
        del path[len(branch) // 4 :]
        drawn[name] = path[-1] if path else "Exception"
        path.append(name)
    parents = {error.__name__: error.__bases__[0].__name__ for error in EVERY_ERROR}
    assert drawn == {"HeteroError": "Exception"} | parents


@pytest.mark.parametrize(("error", "sentence"), WITH_A_SENTENCE_OF_THEIR_OWN)
def test_sentences(error: HeteroError, sentence: str) -> None:
    assert str(error) == sentence
    assert "\n" not in sentence
    rebuilt = type(error).from_sentence(sentence)
    assert (type(rebuilt), str(rebuilt)) == (type(error), sentence)


def test_all_sentences_of_their_own_are_pinned() -> None:
    own = {error for error in EVERY_ERROR if "__init__" in vars(error)}
    assert {type(error) for error, _ in WITH_A_SENTENCE_OF_THEIR_OWN} == own
