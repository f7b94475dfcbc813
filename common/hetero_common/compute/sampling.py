"""Which images make up a batch.

Pure functions of the seed, the client and the step, equal bit for bit in every process: a resumed
run draws the same batches. Nothing here uses or disturbs a global random state.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from hetero_common.compute.seeding import derive_seed, permutation


def steps_per_epoch(shard_size: int, batch_size: int) -> int:
    """Count the full batches in a shard; a shard smaller than a batch is one batch."""
    return max(1, shard_size // batch_size)


def batch_indices(
    shard_size: int, batch_size: int, global_step: int, seed: int, client_id: str
) -> npt.NDArray[np.int64]:
    """Say which images of its shard a client trains on.

    The shard is reshuffled every epoch; what an epoch leaves over of the last, incomplete batch is
    dropped. Rounds play no part: of whatever length, they walk the same sequence of steps.

    Args:
        shard_size: Images the client holds.
        batch_size: Images per step.
        global_step: Steps the client has made since the run began.
        seed: The run's seed.
        client_id: Gives each client its own order.

    Returns:
        Positions in the shard, (min(batch_size, shard_size),).
    """
    epoch, step = divmod(global_step, steps_per_epoch(shard_size, batch_size))
    order = _epoch_order(shard_size, epoch, seed, client_id)
    return order[step * batch_size : (step + 1) * batch_size].copy()


@functools.lru_cache(maxsize=16)  # a device needs one, a simulator one per client
def _epoch_order(shard_size: int, epoch: int, seed: int, client_id: str) -> npt.NDArray[np.int64]:
    return permutation(shard_size, derive_seed("epoch", seed, client_id, epoch))
