"""The device's part of a run.

The trainer of prefix and exits, what a client does round after round, states to go back to, what
the server returned in this round. It reaches the server through a `Link`, whatever that is.
"""

from __future__ import annotations

from hetero_client.training.checkpointing import Keeping, States
from hetero_client.training.feedback_journal import (
    JOURNAL_FILE,
    FeedbackJournal,
    Journal,
    NoJournal,
)
from hetero_client.training.participation import Identity, Participation
from hetero_client.training.protocol import Trainer
from hetero_client.training.trainer import PrefixTrainer

__all__ = [
    "JOURNAL_FILE",
    "FeedbackJournal",
    "Identity",
    "Journal",
    "Keeping",
    "NoJournal",
    "Participation",
    "PrefixTrainer",
    "States",
    "Trainer",
]
