from __future__ import annotations

import torch

from hetero_lab.methods.base import evaluated_on, scores
from lab.test_simulation import settings_of
from support.plain_client import some_images


def test_an_evaluation_takes_the_first_images_and_the_last_one_all() -> None:
    settings, test = settings_of("--rounds", "3", "--eval-samples", "4"), some_images(10)
    for round_, count in ((0, 4), (1, 4), (2, 10)):
        some = evaluated_on(settings, test, round_)
        assert torch.equal(some.images, test.images[:count])
        assert torch.equal(some.labels, test.labels[:count])


def test_scores_are_of_all_images_and_of_each_class() -> None:
    test = some_images(6)
    labels = torch.tensor([0, 0, 0, 2, 2, 2])
    test = type(test)(test.images, labels)
    right = torch.tensor([True, False, False, True, True, True])
    assert scores(right, test, 3, "exit_") == {
        "samples": 6,
        "class_samples": [3, 0, 3],
        "exit_accuracy": 4 / 6,
        "exit_class_accuracy": [1 / 3, None, 1.0],
    }
