"""Exact bounds of a rate from counts, and of what a rate lost between two models.

C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial" (Biometrika 26, 1934), one-sided. They hold for independent samples of a population; for samples
drawn without replacement from a finite one they are wider than they need be. Each holds by itself: several
of them hold together with less confidence.
"""

from __future__ import annotations

import math

import numpy as np

from ..checks import integer, real

CONFIDENCE = 0.95


def upper_bound(hits: int, count: int, confidence: float = CONFIDENCE) -> float:
    """The largest rate at which as few hits as these still come about with probability 1 - confidence.

    The rate of the population is above this bound in at most a share of 1 - confidence of all samples.

    Args:
        hits: 0 to ``count``.
        count: samples; of none nothing is known, and the bound is 1.
        confidence: between 0 and 1.

    Returns:
        0 to 1, rounded up by no more than the last bits.

    Raises:
        ValueError: for numbers out of range.
    """
    hits, count = integer("hits", hits, least=0), integer("count", count, least=0)
    if hits > count:
        raise ValueError(f"hits: expected at most the count {count}, got {hits}")
    chance = math.log(1 - _share("confidence", confidence))
    if hits == count:
        return 1.0
    if hits == 0:
        return -math.expm1(chance / count)
    ways = [_log_ways(count, i) for i in range(hits + 1)]
    terms, drawn = np.array(ways), np.arange(hits + 1)

    def tail(rate: float) -> float:
        """The logarithm of the probability of this many hits or fewer."""
        logs = terms + drawn * math.log(rate) + (count - drawn) * math.log1p(-rate)
        most = float(logs.max())
        return most + math.log(float(np.exp(logs - most).sum()))

    low, high = hits / count, 1.0
    while low < (middle := (low + high) / 2) < high:  # until there is no number in between
        if tail(middle) > chance:
            low = middle
        else:
            high = middle
    return high


def lower_bound(hits: int, count: int, confidence: float = CONFIDENCE) -> float:
    """The smallest rate at which as many hits as these still come about with probability 1 - confidence.

    Arguments and errors as of :func:`upper_bound`; of no samples the bound is 0.
    """
    hits, count = integer("hits", hits, least=0), integer("count", count, least=0)
    if hits > count:
        raise ValueError(f"hits: expected at most the count {count}, got {hits}")
    return 1 - upper_bound(count - hits, count, confidence)


def loss_bound(lost: int, gained: int, count: int, confidence: float = CONFIDENCE) -> float:
    """An upper bound of what accuracy falls by from one model to another, judged on the same samples.

    The fall is the rate of samples that only the first model gets right, minus the rate of those that only
    the second one does. An upper bound of the former and a lower bound of the latter, each at half the risk,
    bound the difference (Bonferroni), whatever ties the two.

    Args:
        lost: samples that only the first model gets right.
        gained: samples that only the second model gets right.
        count: how many samples there are in all.
        confidence: between 0 and 1.

    Returns:
        -1 to 1.

    Raises:
        ValueError: for numbers out of range.
    """
    if integer("lost", lost, least=0) + integer("gained", gained, least=0) > integer("count", count, 0):
        raise ValueError(
            f"lost, gained: expected at most the count {count} together, got {lost} and {gained}"
        )
    each = (1 + _share("confidence", confidence)) / 2
    return upper_bound(lost, count, each) - lower_bound(gained, count, each)


def _share(name: str, value: float) -> float:
    share = real(name, value)
    if not 0 < share < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")
    return share


def _log_ways(count: int, drawn: int) -> float:
    """The logarithm of the number of subsets of this size."""
    return math.lgamma(count + 1) - math.lgamma(drawn + 1) - math.lgamma(count - drawn + 1)
