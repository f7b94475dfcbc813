from __future__ import annotations

import asyncio
import re
from typing import Any, NoReturn, cast

import grpc
import pytest

from hetero_common import errors
from hetero_common.errors import (
    CutLayerOutOfRange,
    HeteroError,
    Mismatch,
    ModelMismatch,
    NonFinite,
    NotTraining,
    PermissionDenied,
    Quarantined,
    ServerFault,
    ServerUnreachable,
    StepGap,
    Superseded,
    VersionMismatch,
)
from hetero_common.wire import rpc


def descendants(error: type[HeteroError]) -> list[type[HeteroError]]:
    """All classes below `error`, each right after its parent."""
    return [found for child in error.__subclasses__() for found in (child, *descendants(child))]


EVERY_ERROR = descendants(HeteroError)
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
            ModelMismatch(told, "b" * 64),
            "the client built a model with a fingerprint that is none, the server trains "
            "bbbbbbbbbbbb: install the same model code on both sides",
        )
        for told in ("", "a\n12:00:00 ERROR   fault")
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


class FailedCall(grpc.RpcError):
    """What a stub raises."""

    def __init__(
        self, code: grpc.StatusCode, details: str | None, trailing: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


class Aborting:
    """A servicer context whose abort raises what the client would see."""

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str], ...]
    ) -> NoReturn:
        raise FailedCall(code, details, trailing_metadata)


def over_the_wire(error: HeteroError) -> tuple[FailedCall, HeteroError]:
    with pytest.raises(FailedCall) as caught:
        asyncio.run(rpc.abort(cast(Any, Aborting()), error))
    return caught.value, rpc.error_from_status(caught.value)


def test_the_tree_is_the_one_in_the_docstring() -> None:
    path: list[str] = []
    drawn = {}
    for branch, name in re.findall(r"^    ([│├└─ ]*)(\w+)", errors.__doc__ or "", re.MULTILINE):
        del path[len(branch) // 4 :]
        drawn[name] = path[-1] if path else "Exception"
        path.append(name)
    parents = {error.__name__: error.__bases__[0].__name__ for error in EVERY_ERROR}
    assert drawn == {"HeteroError": "Exception"} | parents


def test_every_error_has_a_status() -> None:
    assert set(rpc.STATUS) == set(EVERY_ERROR)


def test_names_that_cross_the_wire_are_unambiguous() -> None:
    assert len({error.__name__ for error in EVERY_ERROR}) == len(EVERY_ERROR)


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_crosses_the_wire_as_itself(error: type[HeteroError]) -> None:
    sentence = "the größe is wrong: do something"
    call, rebuilt = over_the_wire(error.from_sentence(sentence))
    assert call.code() is rpc.STATUS[error]
    assert type(rebuilt) is error
    assert str(rebuilt) == sentence


@pytest.mark.parametrize(("error", "sentence"), WITH_A_SENTENCE_OF_THEIR_OWN)
def test_sentences(error: HeteroError, sentence: str) -> None:
    assert str(error) == sentence
    assert "\n" not in sentence
    rebuilt = over_the_wire(error)[1]
    assert (type(rebuilt), str(rebuilt)) == (type(error), sentence)


def test_all_sentences_of_their_own_are_pinned() -> None:
    own = {error for error in EVERY_ERROR if "__init__" in vars(error)}
    assert {type(error) for error, _ in WITH_A_SENTENCE_OF_THEIR_OWN} == own


def test_a_status_that_no_server_of_ours_sent_is_unreachability() -> None:
    failures = [
        (FailedCall(grpc.StatusCode.UNAVAILABLE, "refused\ntraceback"), "refused"),
        (FailedCall(grpc.StatusCode.DEADLINE_EXCEEDED, None), "DEADLINE_EXCEEDED"),
        (FailedCall(grpc.StatusCode.INTERNAL, ""), "INTERNAL"),
        (FailedCall(grpc.StatusCode.INTERNAL, "x", ((rpc.ERROR_KEY, "KeyError"),)), "x"),
        (FailedCall(grpc.StatusCode.INTERNAL, "x", ((rpc.ERROR_KEY, "HeteroError"),)), "x"),
    ]
    for failure, reason in failures:
        error = rpc.error_from_status(failure)
        assert type(error) is ServerUnreachable
        assert str(error) == f"the connection to the server failed: {reason}"


def test_a_server_of_another_kind_is_a_mismatch() -> None:
    error = rpc.error_from_status(FailedCall(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
    assert type(error) is Mismatch
    assert str(error) == "the server does not speak hetero_splitee.v1: check the address"
