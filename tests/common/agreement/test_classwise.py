from __future__ import annotations

import pytest
import torch

from hetero_common.agreement.classwise import class_accuracies, class_counts


def test_every_class_is_counted_those_without_labels_too() -> None:
    assert class_counts(torch.tensor([2, 0, 2, 2]), 4) == (1, 0, 3, 0)
    assert class_counts(torch.tensor([], dtype=torch.int64), 3) == (0, 0, 0)


def test_a_class_without_samples_has_no_accuracy() -> None:
    assert class_accuracies([1, 0, 0], [2, 5, 0]) == [0.5, 0.0, None]


def test_counts_of_another_number_of_classes_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="argument"):
        class_accuracies([1, 0], [2, 5, 0])
