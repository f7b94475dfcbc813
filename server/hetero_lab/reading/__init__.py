"""Run directories as values.

What a server, a client or the simulator has recorded, checked and in one form, and runs that repeat
each other as groups. Reports and tables are made of it.
"""

from __future__ import annotations

from hetero_lab.reading.facts import OF_EACH_RUN, common, facts, title
from hetero_lab.reading.grouping import Group, group
from hetero_lab.reading.reader import read_run, run_from
from hetero_lab.reading.run import ByClass, Curve, Measurement, Participant, Run
from hetero_lab.reading.spread import Spread, mean

__all__ = [
    "OF_EACH_RUN",
    "ByClass",
    "Curve",
    "Group",
    "Measurement",
    "Participant",
    "Run",
    "Spread",
    "common",
    "facts",
    "group",
    "mean",
    "read_run",
    "run_from",
    "title",
]
