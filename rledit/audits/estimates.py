"""Figures with their confidence intervals, all two-sided at 95%."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CONFIDENCE = 0.95
NORMAL = 1.959963984540054  # the normal quantile of CONFIDENCE
_HALVINGS = 60


class Estimate(float):
    """A figure with the ends of its interval; a float wherever one is expected.

    Attributes:
        low, high: ends of the 95% interval; NaN where there is none.
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float = math.nan, high: float = math.nan) -> Estimate:
        made = super().__new__(cls, value)
        made.low, made.high = float(low), float(high)
        return made

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float, float]]:
        return type(self), (float(self), self.low, self.high)  # copies and pickles keep the interval

    @property
    def interval(self) -> list[float] | None:
        """``[low, high]``, or None where there is none."""
        return [self.low, self.high] if math.isfinite(self.low) and math.isfinite(self.high) else None


UNKNOWN = Estimate(math.nan)


def share(hits: Tensor) -> Estimate:
    """The share of true entries of a bool tensor, with the exact interval; NaN for no entries."""
    return proportion(int(hits.sum()), hits.numel())


def proportion(successes: int, trials: int) -> Estimate:
    """A share with the exact interval of C. Clopper, E. Pearson, "The Use of Confidence or Fiducial Limits
    Illustrated in the Case of the Binomial", Biometrika 26, 1934: never too narrow. NaN for no trials.

    Raises:
        ValueError: if successes are not in 0..trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: expected 0..{trials}, got {successes}")
    if trials == 0:
        return UNKNOWN
    return Estimate(
        successes / trials,
        _lower_limit(successes, trials),
        1 - _lower_limit(trials - successes, trials),
    )


def _lower_limit(successes: int, trials: int) -> float:
    """The p at which this many successes or more have a probability of 2.5%."""
    if successes == 0:
        return 0.0
    count = torch.arange(successes, trials + 1, dtype=torch.float64)
    ways = math.lgamma(trials + 1) - torch.lgamma(count + 1) - torch.lgamma(trials - count + 1)

    def tail(p: float) -> float:
        return float(torch.logsumexp(ways + count * math.log(p) + (trials - count) * math.log1p(-p), 0))

    wanted = math.log((1 - CONFIDENCE) / 2)
    return _bisect(lambda p: tail(p) < wanted, 0.0, successes / trials)


def mean(values: Tensor, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """The mean of independent values [n], with Student's interval, cut to what is possible.

    NaN for no values; no interval for one.
    """
    values = values.double().flatten()
    n = len(values)
    if n == 0:
        return UNKNOWN
    value = float(values.mean())
    if n == 1:
        return Estimate(value)
    half = _student(n - 1) * float(values.std()) / math.sqrt(n)
    return Estimate(value, max(least, value - half), min(most, value + half))


def balanced(first: Estimate, second: Estimate) -> Estimate:
    """The mean of two independent shares. The interval squares and adds how far each one's reaches, as
    R. Newcombe does for differences (Statistics in Medicine 17, 1998, method 10)."""
    value = (float(first) + float(second)) / 2
    below = math.hypot(first - first.low, second - second.low) / 2
    above = math.hypot(first.high - first, second.high - second) / 2
    return Estimate(value, value - below, value + above)


def _student(freedom: int) -> float:
    """The two-sided quantile of Student's t; the normal one from 1,000 degrees of freedom on.

    With t = sqrt(freedom) tan(angle) the density of the angle is proportional to cos(angle)^(freedom - 1).
    """
    if freedom >= 1000:
        return NORMAL
    angle = torch.linspace(0, math.pi / 2, 200_001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(torch.cos(angle) ** (freedom - 1), angle)
    at = int(torch.searchsorted(mass, CONFIDENCE * mass[-1]))
    return math.sqrt(freedom) * math.tan(float(angle[at + 1]))


def auc(positives: Tensor, negatives: Tensor) -> Estimate:
    """How often a positive scores above a negative, ties counted half.

    The interval is method 5 of R. Newcombe, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic. Part 2", Statistics in Medicine 25, 2006: the areas that are not rejected by the
    variance of J. Hanley, B. McNeil, Radiology 143, 1982. Unlike a variance at the figure itself it does not
    vanish where all pairs are ranked alike.

    Args:
        positives: scores [m]; infinities are allowed, NaN is not.
        negatives: scores [n].

    Returns:
        NaN without positives or negatives.

    Raises:
        ValueError: for NaN.
    """
    positives, negatives = positives.double().flatten(), negatives.double().flatten()
    if bool(positives.isnan().any() | negatives.isnan().any()):
        raise ValueError("scores: expected numbers to rank, got NaN")
    m, n = len(positives), len(negatives)
    if m == 0 or n == 0:
        return UNKNOWN
    ranked = negatives.sort().values
    below = torch.searchsorted(ranked, positives, right=False).double()
    not_above = torch.searchsorted(ranked, positives, right=True).double()
    area = float((below + not_above).mean()) / (2 * n)

    def rejected(candidate: float) -> bool:
        weight = (m + n) / 2 - 1
        spread = 1 + weight * (1 - candidate) / (2 - candidate) + weight * candidate / (1 + candidate)
        variance = candidate * (1 - candidate) * spread / (m * n)
        return abs(area - candidate) > NORMAL * math.sqrt(variance)

    low = _bisect(rejected, 0.0, area) if area > 0 else 0.0
    high = 1 - _bisect(lambda p: rejected(1 - p), 0.0, 1 - area) if area < 1 else 1.0
    return Estimate(area, low, high)


def hit_rate(positives: Tensor, negatives: Tensor, false_positives: float) -> Estimate:
    """The share of positives above a threshold that at most ``false_positives`` of the negatives pass.

    The interval is that of the share for this threshold. NaN without positives or negatives.
    """
    if len(positives) == 0 or len(negatives) == 0:
        return UNKNOWN
    allowed = math.floor(false_positives * len(negatives) + 1e-9)
    threshold = negatives.sort(descending=True).values[min(allowed, len(negatives) - 1)]
    return share(positives > threshold)


def _bisect(too_low: Callable[[float], bool], low: float, high: float) -> float:
    """The point between ``low`` and ``high`` where ``too_low`` turns from true to false."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return low
