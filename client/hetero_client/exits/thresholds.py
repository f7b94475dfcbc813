"""Choosing the threshold of an early exit on labeled images that were kept for it.

Three aims, one function each: a largest share of offloaded images, a least accuracy, a largest loss
of accuracy against the server. The first two take the images as they are; the third allows for
chance.

What is bounded there is the share of images that are *lost*: the exit answers, it is wrong, and the
server would have been right. Accuracy is below the server's by that, less what the exit alone has
right. Leaving that out makes the loss of an image 0 or 1 and not -1, 0 or 1, so that

- their number is binomial, and its tail known exactly. Hoeffding-Bentkus bounds by e times that
  tail, and with three values takes over a hundred times as many images to show a loss of 1 %;
- it only rises with the threshold. So thresholds can be tested from the lowest one upwards until
  one fails (fixed-sequence testing), in steps as fine as the uncertainties that occur: the one at
  which the risk comes to exceed `max_loss` passes with a probability of at most 1 - confidence, and
  where it fails, so do all above it.

Angelopoulos, Bates, Candes, Jordan, Lei, "Learn then test: calibrating predictive algorithms to
achieve risk control", 2021 (arXiv 2110.01052), for the testing; Bates, Angelopoulos, Lei, Malik,
Jordan, "Distribution-free, risk-controlling prediction sets", Journal of the ACM 2021 (arXiv
2101.02703), for risks that only rise; Jazbec, Timans, Hadzi Veljkovic, Sakmann, Zhang, Naesseth,
Nalisnick, "Fast yet safe: early-exiting with risk control", NeurIPS 2024 (arXiv 2405.20915), for
both with early exits, and the risk as a gap in performance against the full model.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from hetero_client.exits.rule import Answers, exits_early
from hetero_common.errors import SettingsError


@dataclass(frozen=True)
class Sweep:
    """What each threshold gives that makes a difference, the lowest first, in numbers of images.

    Attributes:
        thresholds: -1, each uncertainty that occurs but the highest, and 1: (T,) fp64.
        offloaded: Images that the server answers, (T,) int64.
        right: Images that are answered right, by whoever answers, (T,) int64.
        lost: Images that the exit answers wrong, and the server would have answered right, (T,)
            int64.
        images: How many there are.
    """

    thresholds: Tensor
    offloaded: Tensor
    right: Tensor
    lost: Tensor
    images: int

    @classmethod
    def of(cls, answers: Answers) -> Sweep:
        """Sweep all thresholds over the answers to at least one image."""
        uncertainty, order = answers.uncertainty.sort()
        values, repeats = torch.unique_consecutive(uncertainty, return_counts=True)
        local = torch.cat([torch.zeros(1, dtype=torch.int64), repeats.cumsum(0)])
        exit_right, server_right = answers.exit_right[order], answers.server_right[order]
        inner = values[:-1].double()
        server_alone = int(server_right.sum())
        return cls(
            thresholds=torch.cat([inner.new_tensor([-1.0]), inner, inner.new_tensor([1.0])]),
            offloaded=len(uncertainty) - local,
            right=server_alone + _among_first(local, exit_right.long() - server_right.long()),
            lost=_among_first(local, server_right & ~exit_right),
            images=len(uncertainty),
        )


@dataclass(frozen=True)
class Target:
    """What a threshold is to be chosen for.

    Attributes:
        kind: Which of the three.
        value: The share or accuracy that was asked for, in [0, 1].
        confidence: Of `max-loss`, else None.
    """

    kind: Literal["offload", "accuracy", "max-loss"]
    value: float
    confidence: float | None = None

    def __str__(self) -> str:
        if self.kind == "offload":
            return f"at most {100 * self.value:g}% offloaded"
        if self.kind == "accuracy":
            return f"an accuracy of {100 * self.value:g}%"
        return f"at most {100 * self.value:g}% lost, with confidence {self.confidence:g}"

    def choose(self, answers: Answers) -> float:
        """The threshold for it.

        Raises:
            SettingsError: It cannot be reached.
        """
        if self.kind == "offload":
            return for_offload(answers, self.value)
        if self.kind == "accuracy":
            return for_accuracy(answers, self.value)
        assert self.confidence is not None, "a bound on the loss has a confidence"
        return for_loss(answers, self.value, self.confidence)


def for_offload(answers: Answers, share: float) -> float:
    """The lowest threshold that offloads at most `share` of these images."""
    sweep = Sweep.of(answers)
    allowed = sweep.offloaded.double() / sweep.images <= share
    return float(sweep.thresholds[allowed][0])


def for_accuracy(answers: Answers, accuracy: float) -> float:
    """The highest threshold that answers at least the share `accuracy` of these images right.

    Raises:
        SettingsError: None does; the sentence gives the best that there is.
    """
    sweep = Sweep.of(answers)
    enough = sweep.right.double() / sweep.images >= accuracy
    if not bool(enough.any()):
        raise SettingsError(_best(sweep, accuracy))
    return float(sweep.thresholds[enough][-1])


def for_loss(answers: Answers, max_loss: float, confidence: float) -> float:
    """The highest threshold at which, with this confidence, at most `max_loss` of images are lost.

    Of all images like these, that is. -1 where nothing of that kind can be said of any other.

    Args:
        answers: To images that were drawn independently, as those to come.
        max_loss: Share of images, in [0, 1).
        confidence: Probability, over the draw of these images, that the statement is true.
    """
    sweep = Sweep.of(answers)
    safe = sweep.lost <= _most_lost(sweep.images, max_loss, confidence)
    safe[0] = True  # what the exit does not answer it does not lose
    return float(sweep.thresholds[safe][-1])


def lost_images(answers: Answers, threshold: float) -> int:
    """Return how many of these images are lost at a threshold."""
    at_exit = exits_early(answers.uncertainty, threshold)
    return int((at_exit & answers.server_right & ~answers.exit_right).sum())


def images_needed(max_loss: float, confidence: float) -> int | None:
    """Return how many images can show that at most `max_loss` are lost, if none of them is.

    None if no number of images can.
    """
    if max_loss < 1e-15:  # nobody has as many as it would take
        return None
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_loss))


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """Probability of at most this many successes."""
    if probability <= 0 or successes >= trials:
        return 1.0
    if probability >= 1:
        return 0.0
    yes, no = math.log(probability), math.log1p(-probability)
    logarithms = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * yes
        + (trials - k) * no
        for k in range(successes + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logarithms)))


def upper_bound(successes: int, trials: int, confidence: float) -> float:
    """Largest probability that, with this confidence, so few successes leave possible.

    One-sided, of Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the
    case of the binomial", Biometrika 1934.
    """
    low, high = successes / trials, 1.0
    for _ in range(60):  # halvings, beyond the precision of a float
        middle = (low + high) / 2
        if binomial_cdf(successes, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _among_first(counts: Tensor, values: Tensor) -> Tensor:
    """Sum of the first `counts` values, for each of the counts (T,): int64 (T,)."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), values.cumsum(0)])[counts]


def _most_lost(images: int, max_loss: float, confidence: float) -> int:
    """The most lost images that show a share of at most `max_loss`; -1 if not even none do."""
    tail = partial(binomial_cdf, trials=images, probability=max_loss)
    return bisect_right(range(images + 1), 1 - confidence, key=tail) - 1


def _best(sweep: Sweep, accuracy: float) -> str:
    best = int(sweep.right.max())
    last = int((sweep.right == best).nonzero()[-1])
    reached = math.floor(best / sweep.images * 10_000) / 10_000  # asked for, it is reached
    return (
        f"no threshold gives an accuracy of {accuracy:g} on these {sweep.images} images: the best "
        f"is {reached:g}, with {int(sweep.offloaded[last]) / sweep.images:.1%} offloaded: "
        f"ask for --accuracy {reached:g} or less"
    )
