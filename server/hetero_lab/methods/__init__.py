"""The methods of hetero-sim: heterogeneous split training, and baselines with the same recipe.

A method is a file that declares itself to `METHODS`; every file of this folder is looked through
for one.
"""

from __future__ import annotations

from hetero_lab.method import METHODS, Method

__all__ = ["METHODS", "Method"]

METHODS.discover(__name__, __path__)
