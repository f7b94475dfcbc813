"""How far confidences can be trusted: whether they rank right answers first, and what they promise.

Both take confidences (N,) and whether each answer is right, (N,) bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 15


def auroc(confidence: Tensor, right: Tensor) -> float | None:
    """Probability that a right answer is surer than a wrong one; one as sure counts half.

    1 for a perfect ranking, 0.5 for none. None where all answers are right, or all wrong.
    """
    of_right, of_wrong = confidence[right].contiguous(), confidence[~right].sort().values
    pairs = len(of_right) * len(of_wrong)
    if not pairs:
        return None
    less = torch.searchsorted(of_wrong, of_right)
    less_or_equal = torch.searchsorted(of_wrong, of_right, right=True)
    return int((less + less_or_equal).sum()) / (2 * pairs)


def calibration_error(confidence: Tensor, right: Tensor, bins: int = _BINS) -> float:
    """Expected calibration error, in [0, 1]: how far accuracy is from confidence.

    The mean of |accuracy - mean confidence| over bins of equal width, ((b - 1) / bins, b / bins],
    weighted by their number of answers. Guo, Pleiss, Sun, Weinberger, "On calibration of modern
    neural networks", ICML 2017 (arXiv 1706.04599), equation 3.
    """
    confidence = confidence.double()
    bin_ = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, bin_, right.double() - confidence)
    return float(gap.abs().sum()) / len(confidence)
