"""How one process computes.

Device and precision, seeds, batches and their augmentation, the learning rule of some layers,
threads and memory. Nothing here knows a run: whoever does hands in what it takes.
"""

from __future__ import annotations

from hetero_common.compute.augmentation import AUGMENTATIONS, augment
from hetero_common.compute.device import Compute
from hetero_common.compute.learner import Learner
from hetero_common.compute.optimizers import OPTIMIZERS
from hetero_common.compute.process import keep_freed_memory, limit_threads
from hetero_common.compute.sampling import batch_indices, steps_per_epoch
from hetero_common.compute.schedules import SCHEDULES, StepAt
from hetero_common.compute.seeding import derive_seed, permutation, seed_step, seeded

__all__ = [
    "AUGMENTATIONS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Compute",
    "Learner",
    "StepAt",
    "augment",
    "batch_indices",
    "derive_seed",
    "keep_freed_memory",
    "limit_threads",
    "permutation",
    "seed_step",
    "seeded",
    "steps_per_epoch",
]
