"""All errors that there are."""

from __future__ import annotations

from hetero_common.errors import HeteroError


def descendants(error: type[HeteroError]) -> list[type[HeteroError]]:
    """All classes below `error`, each right after its parent."""
    return [found for child in error.__subclasses__() for found in (child, *descendants(child))]


EVERY_ERROR = descendants(HeteroError)
