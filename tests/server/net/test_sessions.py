from __future__ import annotations

import pytest

from hetero_common.errors import LimitExceeded, PermissionDenied, UnknownSession
from hetero_server.auth.identity import Caller
from hetero_server.net.limits import PerMinute
from hetero_server.net.sessions import Sessions
from hetero_server.run.member import Identity, Member, MemberState


def a_member(client_id: str) -> Member:
    return Member(Identity(client_id, cut_layer=1, shard_size=64, steps=2), membership=0)


def sessions(most: int) -> Sessions:
    return Sessions(most, PerMinute(100, 100))


def test_a_session_is_of_one_client_and_ends() -> None:
    here = sessions(2)
    member = a_member("a")
    token = here.open(member)
    assert here.member(Caller("a", token)) is member
    with pytest.raises(PermissionDenied):
        here.member(Caller("b", token))
    for wrong in ("", token[:-1]):
        with pytest.raises(UnknownSession):
            here.member(Caller("a", wrong))
    here.end(member)
    with pytest.raises(UnknownSession):
        here.member(Caller("a", token))


def test_so_many_clients_are_here_at_a_time() -> None:
    here = sessions(2)
    first, second = a_member("a"), a_member("b")
    for member in (first, second):
        here.require_room(member.client_id)
        here.open(member)
    with pytest.raises(LimitExceeded, match=r"at most 2 clients at a time \(its --max-clients\)"):
        here.require_room("c")
    here.require_room("a")  # it takes its own place
    second.enter(MemberState.STALE, "its connection broke")
    here.require_room("c")
