from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetero_common.compute.augmentation import augment
from hetero_common.compute.sampling import batch_indices, steps_per_epoch

shard_sizes = st.integers(1, 100)
batch_sizes = st.integers(1, 40)


def some_images(count: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("shard_size", "batch_size", "steps"), [(10, 3, 3), (9, 3, 3), (2, 3, 1), (3, 3, 1), (1, 64, 1)]
)
def test_the_incomplete_batch_is_dropped(shard_size: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(shard_size, batch_size) == steps


@given(shard_sizes, batch_sizes, st.integers(0, 5), st.integers(0, 2**31))
def test_an_epoch_visits_each_image_at_most_once(
    shard_size: int, batch_size: int, epoch: int, seed: int
) -> None:
    steps = steps_per_epoch(shard_size, batch_size)
    batches = [
        batch_indices(shard_size, batch_size, epoch * steps + step, seed, "c")
        for step in range(steps)
    ]
    assert all(len(batch) == min(batch_size, shard_size) for batch in batches)
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen)
    assert 0 <= seen.min() <= seen.max() < shard_size
    assert shard_size - len(seen) < batch_size


@given(shard_sizes, batch_sizes, st.lists(st.integers(1, 9), max_size=5))
def test_rounds_of_any_length_walk_the_same_batches(
    shard_size: int, batch_size: int, rounds: list[int]
) -> None:
    def draw(step: int) -> list[int]:
        return batch_indices(shard_size, batch_size, step, 5, "c").tolist()  # type: ignore[no-any-return]

    straight = [draw(step) for step in range(sum(rounds))]
    starts = np.cumsum([0, *rounds])
    in_rounds = [
        draw(int(start) + step)
        for start, length in zip(starts, rounds, strict=False)
        for step in range(length)
    ]
    assert in_rounds == straight


def test_epochs_clients_and_seeds_differ() -> None:
    draws = [(0, 0, "a"), (10, 0, "a"), (0, 1, "a"), (0, 0, "b")]  # (step, seed, client)
    assert len({tuple(batch_indices(100, 10, *draw)) for draw in draws}) == len(draws)


def test_a_batch_may_be_changed_without_changing_the_next_epoch() -> None:
    first = batch_indices(10, 5, 0, 0, "a")
    expected = first.copy()
    first[:] = -1
    assert batch_indices(10, 5, 0, 0, "a").tolist() == expected.tolist()


def test_global_random_states_play_no_part() -> None:
    images = some_images(8)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augment(images, "crop-flip", seed=5), batch_indices(50, 5, 0, 5, "a")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)
    second = augment(images, "crop-flip", seed=5), batch_indices(50, 5, 0, 5, "a")
    assert torch.equal(first[0], second[0])
    assert first[1].tolist() == second[1].tolist()


DIGEST = """
import hashlib, numpy as np, torch
from hetero_client.data.partition import dirichlet, iid
from hetero_common.compute.augmentation import augment
from hetero_common.compute.sampling import batch_indices
from hetero_common.compute.seeding import derive_seed
labels = np.arange(3_000) % 10
images = torch.arange(16 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(16, 3, 32, 32)
digest = hashlib.sha256()
for shard in [*iid(labels, 7, 3), *dirichlet(labels, 7, 0.3, 3)]:
    digest.update(shard.tobytes())
for step in range(0, 500, 17):
    digest.update(batch_indices(1_000, 16, step, 3, "phone-é").tobytes())
    seed = derive_seed("augment", 3, "phone-é", step)
    digest.update(augment(images, "crop-flip", seed).numpy().tobytes())
print(digest.hexdigest())
"""


def test_two_processes_draw_the_same() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed, threads in [("1", "1"), ("2", "2")]
    ]
    assert len(digests[0]) == 2 * hashlib.sha256().digest_size
    assert digests[0] == digests[1]
