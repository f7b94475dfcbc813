"""Networks that can be split, and how they are: layers by number, exits, normalization.

A network is a file that declares itself to `MODELS`; every file of this folder is looked through
for one.
"""

from __future__ import annotations

from hetero_common.models.exits import EXIT_HEADS, build_exit
from hetero_common.models.networks import MODELS, STEMS, build_model

__all__ = ["EXIT_HEADS", "MODELS", "STEMS", "build_exit", "build_model"]

MODELS.discover(__name__, __path__)
