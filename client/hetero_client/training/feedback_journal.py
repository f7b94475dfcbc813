"""What the server returned for each step of the current round, for a process that comes back in it.

A client that is started again trains its round again, from the end of the last one. The server has
applied the first steps by then, and returns nothing for them a second time, except for the last.

One file, which grows by a record per step:

    bytes of the tensor's file (8), SHA-256 (32), a safetensors file with `feedback` or no tensor

The SHA-256 is of run, round and step too, so that a record that is cut short, damaged, or of
something else ends the file for its reader. It is not synced to the disk at each step: a process
that is killed loses nothing, a power cut may take the last records.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from pathlib import Path
from typing import BinaryIO, Protocol

from safetensors.torch import load
from torch import Tensor

from hetero_common.tensors.weights import tensors_to_bytes

log = logging.getLogger(__name__)

JOURNAL_FILE = "feedback.journal"
HEAD = struct.Struct("<Q32s")
"""Before each record: the bytes that follow, and the SHA-256."""


class Journal(Protocol):
    """What the server returned for each step of a round; `FeedbackJournal` outlives the process."""

    @property
    def held(self) -> int:
        """The steps below this one have a record."""

    def begin(self, round_: int, first_step: int) -> None:
        """Take up what is there of a round; `first_step` is the first that the server lacks."""

    def feedback(self, step: int) -> Tensor | None:
        """Return what the server returned for a step that is held, or None."""

    def keep(self, step: int, feedback: Tensor | None) -> None:
        """Add the step that comes next."""

    def drop(self) -> None:
        """The run is over."""


class NoJournal:
    """A journal that keeps nothing, for a client that never comes back as another process."""

    held = 0

    def begin(self, round_: int, first_step: int) -> None:
        """Nothing is there of any round."""

    def feedback(self, step: int) -> Tensor | None:
        """Nothing."""
        return None

    def keep(self, step: int, feedback: Tensor | None) -> None:
        """Forget it."""

    def drop(self) -> None:
        """Nothing is there."""


class FeedbackJournal:
    """The journal of one client in one run.

    Args:
        path: Created with the first record.
        run: Id of the run.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self._round = 0
        self._ends = [0]  # of the records, behind the beginning of the first one
        self._is_usable = True
        self._has_warned = False

    @property
    def held(self) -> int:
        """The steps below this one have a record."""
        return len(self._ends) - 1

    def begin(self, round_: int, first_step: int) -> None:
        """Take up what is there of a round.

        Args:
            round_: The round.
            first_step: The first step that the server lacks; what is recorded of it and of later
                ones belongs to a past that the server has gone back behind.
        """
        self._round, self._ends, self._is_usable = round_, [0], True
        try:
            if first_step == 0:
                self._path.unlink(missing_ok=True)
            elif self._path.exists():
                with self._path.open("r+b") as file:
                    while self.held < first_step and self._read(file, self.held) is not None:
                        self._ends.append(file.tell())
                    file.truncate(self._ends[-1])
        except OSError as error:
            self._give_up(error)

    def feedback(self, step: int) -> Tensor | None:
        """Return what the server returned for a step that is held, or None."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._ends[step])
                data = self._read(file, step)
        except OSError as error:
            self._give_up(error)
            return None
        return None if data is None else load(data).get("feedback")

    def keep(self, step: int, feedback: Tensor | None) -> None:
        """Add the step that comes next. If it cannot be written, training goes on without."""
        if not self._is_usable:
            return
        data = tensors_to_bytes({} if feedback is None else {"feedback": feedback})
        record = HEAD.pack(len(data), self._digest(step, data)) + data
        try:
            with self._path.open("ab") as file:
                file.write(record)
        except OSError as error:
            self._give_up(error)
        else:
            self._ends.append(self._ends[-1] + len(record))

    def drop(self) -> None:
        """The run is over."""
        self._path.unlink(missing_ok=True)

    def _read(self, file: BinaryIO, step: int) -> bytes | None:
        """The record that begins here, if it is whole and this step's."""
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        size, digest = HEAD.unpack(head)
        if size > self._path.stat().st_size:
            return None  # no size at all: it is not read into memory
        data = file.read(size)
        return data if self._digest(step, data) == digest else None

    def _digest(self, step: int, data: bytes) -> bytes:
        return hashlib.sha256(f"{self._run}/{self._round}/{step}/".encode() + data).digest()

    def _give_up(self, error: OSError) -> None:
        """Stop keeping a journal until the next round; the warning is given once."""
        self._is_usable = False
        if not self._has_warned:
            log.warning(
                "what the server returns cannot be kept in %s (%s): training goes on, but after a "
                "restart within the round it would go on without it",
                self._path,
                error.strerror,
            )
        self._has_warned = True
