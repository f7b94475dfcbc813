"""Every error a caller can act on, as one tree.

    HeteroError
    ├── SettingsError            a flag, file or data set is wrong; nothing was started
    │   └── CutLayerOutOfRange
    ├── RefusedInput             a message breaks the agreed schema
    │   ├── NonFinite            ... holds NaN or infinity
    │   └── StepGap              ... skips a step
    ├── Mismatch                 the two sides cannot work together
    │   ├── VersionMismatch
    │   └── ModelMismatch
    ├── UnknownSession           the session was never opened or has ended: register again
    ├── Superseded               a newer process has this client's id: this one stops
    ├── Unauthenticated          no credential, or a wrong one: the caller cannot come in
    ├── PermissionDenied         a good credential, but another client's
    ├── Quarantined              this client was sent away for what it sent, and is not let in again
    ├── LimitExceeded            more than was agreed: batches without credit, bytes, rows
    ├── NotTraining              the server only serves, or the run is over
    ├── ServerUnreachable        nobody answers there, or the connection broke
    └── ServerFault              the server failed; its log has the details under the id given

`str(error)` is one sentence that says what to do. It holds nothing that may not cross the wire:
no path of the other side, no class name, no traceback. `hetero_common.wire.rpc` maps the tree to
gRPC status codes and back.
"""

from __future__ import annotations

import string

from typing_extensions import Self


class HeteroError(Exception):
    """Base of all errors that are meant to be read by a user."""

    @classmethod
    def from_sentence(cls, sentence: str) -> Self:
        """Rebuild an error that arrived over the wire, where only its sentence travels."""
        error = cls.__new__(cls)
        Exception.__init__(error, sentence)
        return error


class SettingsError(HeteroError):
    """A setting, file or data set is wrong; nothing was started and nothing is lost."""


class CutLayerOutOfRange(SettingsError):
    """The cut layer is not one of the model's.

    Args:
        cut_layer: What was asked for.
        names: Name of each layer of the model, layer 1 first.
    """

    def __init__(self, cut_layer: int, names: list[str]) -> None:
        table = ", ".join(f"{number} ({name})" for number, name in enumerate(names[:-1], start=1))
        super().__init__(
            f"cut layer {cut_layer} is out of range: choose one of 1..{len(names) - 1}: {table}"
        )


class RefusedInput(HeteroError):
    """A message breaks the schema that was agreed at registration; it was not applied."""


class NonFinite(RefusedInput):
    """A tensor holds NaN or infinity."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} holds NaN or infinity: lower the learning rate or check the input data"
        )


class StepGap(RefusedInput):
    """A batch skips a step of its round."""

    def __init__(self, round_: int, step: int, expected: int) -> None:
        super().__init__(
            f"step {step} of round {round_} leaves a gap: step {expected} is expected next"
        )


class Mismatch(HeteroError):
    """The two sides were started with settings or code that cannot work together."""


class VersionMismatch(Mismatch):
    """The two sides speak different versions of the protocol."""

    def __init__(self, client: int, server: int) -> None:
        older = "client" if client < server else "server"
        super().__init__(
            f"the client speaks protocol version {client}, the server {server}: "
            f"upgrade hetero-splitee on the {older}"
        )


class ModelMismatch(Mismatch):
    """Client and server built different models from the same plan.

    Args:
        client: What the client calls its model's fingerprint; repeated only if it may be one, since
            sentences are lines of a log.
        server: The fingerprint of the server's.
    """

    def __init__(self, client: str, server: str) -> None:
        is_one = bool(client) and set(client) <= set(string.hexdigits)
        theirs = f"fingerprint {client[:12]}" if is_one else "a fingerprint that is none"
        super().__init__(
            f"the client built a model with {theirs}, the server trains {server[:12]}: "
            "install the same model code on both sides"
        )


class UnknownSession(HeteroError):
    """The session was never opened or has ended; registering again opens a new one."""


class Superseded(HeteroError):
    """A newer process has registered under the same client id.

    Args:
        client_id: That id.
    """

    def __init__(self, client_id: str) -> None:
        super().__init__(f"a newer process registered as {client_id}: this one can stop")


class Unauthenticated(HeteroError):
    """A side shows no credential that the other one accepts; trying again does not help."""


class PermissionDenied(HeteroError):
    """The credential is good, but not for acting as this client.

    Args:
        client_id: As whom the caller would act.
        identity: Who it is by its credential.
    """

    def __init__(self, client_id: str, identity: str) -> None:
        super().__init__(
            f"this credential is {identity}'s and not {client_id}'s: "
            f"start the client with --client-id {identity}, or give it a credential of its own"
        )


class Quarantined(HeteroError):
    """What this client has sent was too often far beyond what the others send.

    Args:
        client_id: Who is sent away, for the rest of the run.
        what: What was far beyond, in words for its user.
    """

    def __init__(self, client_id: str, what: str) -> None:
        super().__init__(
            f"this run takes nothing more from {client_id}: {what} were too often far beyond those "
            "of the other clients: check its data and its learning rate"
        )


class LimitExceeded(HeteroError):
    """More than was agreed: batches without credit, bytes, or rows of a batch."""


class NotTraining(HeteroError):
    """The server answers predictions only, or its run is over.

    Args:
        sentence: What else there is to say.
    """

    def __init__(
        self, sentence: str = "no training goes on here: the run is over or only being served"
    ) -> None:
        super().__init__(sentence)


class ServerUnreachable(HeteroError):
    """Nobody answers at the address, or the connection broke."""


class ServerFault(HeteroError):
    """The server failed in a way it did not foresee.

    Args:
        fault_id: What the server's log calls it.
    """

    def __init__(self, fault_id: str) -> None:
        super().__init__(f"the server failed; its log has the details under id {fault_id}")
