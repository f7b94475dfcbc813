"""What a client of the state machine knows of itself, and what an engine may say to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hetero_common.agreement.control import Evaluate, Finish, StartRound
from hetero_common.errors import HeteroError
from hetero_server.run.member import GONE, Ack, Member
from support.engine_run import drain


@dataclass
class Session:
    """What a client of the state machine knows of itself.

    Attributes:
        sent: The value of each batch that is to be applied, in order; no two batches share one.
        acked: How many of them are acknowledged.
        sent_late: Rounds that had closed when it sent a batch of theirs.
        round: The last round it was told to train.
        step: The next step of that round.
        first_step: The first step of that round that it was to send.
        acked_of_round: How many steps of that round are acknowledged.
        start: What started that round, until its end is reported.
        asked: The evaluation it owes.
        dismissed: It was told that the run is over, or that it is to go, or has left.
        lost: Its connection has broken; another process of it may come back.
        is_heir: It goes on from where another process of it was.
        completed: The last round whose end it has kept; -2: none yet.
        may_be_sent_away: A newer process has its id, or it has sent a bad batch.
    """

    member: Member
    sent: list[float] = field(default_factory=list)
    acked: int = 0
    sent_late: list[int] = field(default_factory=list)
    round: int = -1
    step: int = 0
    first_step: int = 0
    acked_of_round: int = 0
    start: StartRound | None = None
    asked: Evaluate | None = None
    dismissed: bool = False
    may_be_sent_away: bool = False
    lost: bool = False
    completed: int = -2
    is_heir: bool = False

    @property
    def client_id(self) -> str:
        return self.member.client_id

    def listen(self) -> None:
        """Hear what an honest engine may say, and nothing else."""
        for message in drain(self.member):
            if self.member.state in GONE and self.dismissed:
                return  # its stream has ended
            assert not self.dismissed, f"{message} after the end"
            match message:
                case Ack(duplicate=True) if message.round in self.sent_late:
                    self.sent_late.remove(message.round)
                case Ack(duplicate=True):
                    assert (message.round, message.step < self.step) == (self.round, True)
                case Ack():
                    assert (message.round, message.step) == (self.round, self.acked_of_round)
                    self.acked += 1
                    self.acked_of_round += 1
                case StartRound():
                    assert (self.start, self.asked) == (None, None)
                    assert message.round > self.round or self.is_heir
                    self.start, self.round = message, message.round
                    # Of what had arrived before a break, some acknowledgements are gone with it.
                    self.step = self.first_step = message.first_step
                    self.acked_of_round = self.member.applied
                    self.completed = max(self.completed, message.round - 1)
                case Evaluate():
                    assert (self.start, self.asked) == (None, None)
                    assert message.round == self.round or self.is_heir
                    self.asked, self.round = message, message.round
                case Finish():
                    assert (self.start, self.asked) == (None, None)
                    self.dismissed = True
                case _:
                    assert isinstance(message, HeteroError)
                    assert self.may_be_sent_away, message
                    self.dismissed = True
