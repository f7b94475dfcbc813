"""Sessions: the tokens that Register hands out, and whom each one stands for."""

from __future__ import annotations

import secrets

from hetero_common.errors import LimitExceeded, UnknownSession
from hetero_server.auth.identity import Caller
from hetero_server.net.limits import PerMinute
from hetero_server.run.member import GONE, Member

_NO_SESSION = "this session has ended or was never opened: register again"


class Sessions:
    """Who is here.

    Args:
        most: Sessions at a time.
        registrations: Counts who registers.
    """

    def __init__(self, most: int, registrations: PerMinute) -> None:
        self._most = most
        self._registrations = registrations
        self._members: dict[str, Member] = {}
        self._tokens: dict[int, str] = {}

    def require_room(self, client_id: str) -> None:
        """Check that there is room for one more session of this client.

        Raises:
            LimitExceeded: It has registered too often, or too many others are here.
        """
        self._registrations.count(client_id)
        if len(self._members) < self._most:
            return
        for member in [member for member in self._members.values() if member.state in GONE]:
            self.end(member)
        here = [member for member in self._members.values() if member.client_id != client_id]
        if len(here) >= self._most:
            raise LimitExceeded(
                f"the server takes at most {self._most} clients at a time (its --max-clients): "
                "try again later"
            )

    def open(self, member: Member) -> str:
        """A token for the member's calls."""
        token = secrets.token_urlsafe(24)
        self._members[token] = member
        self._tokens[id(member)] = token
        return token

    def member(self, caller: Caller) -> Member:
        """Return whose session the caller uses.

        Raises:
            UnknownSession: It has none.
            PermissionDenied: It is another client's.
        """
        member = self._members.get(caller.session)
        if member is None:
            raise UnknownSession(_NO_SESSION)
        caller.require(member.client_id)
        require_current(member)
        return member

    def end(self, member: Member) -> None:
        """Its token is worth nothing from now on."""
        self._members.pop(self._tokens.pop(id(member), ""), None)


def require_current(member: Member) -> None:
    """Nothing that an ended session still sends is taken for what its successor says.

    Raises:
        UnknownSession: The member has left, or another process has taken over.
    """
    if member.state in GONE:
        raise UnknownSession(_NO_SESSION)
