"""Multinomial logistic regression for many candidates at once, in a fixed number of steps.

The number is fixed so that equal features give equal weights, and so that gradients flow through: an edit is
differentiated by what a probe of its features comes to know.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 48
"""Of a probe that is counted: after so many it recalls, to a few in a hundred, what it would after thousands,
also where classes lie on top of each other."""

SMALLEST_SPREAD = 1e-6
"""Of a standardized feature: one that hardly varies stays as small as it is."""


def logistic_weights(features: Tensor, targets: Tensor, penalty: float, steps: int = STEPS) -> Tensor:
    """The weights that accelerated steps from zero come to, differentiable in the features.

    With features z (a constant one among them) and one-hot targets y of n samples, they minimize

        mean cross-entropy(W^T z, y) + penalty / 2 * |W|^2,    the constant's own weights unpenalized.

    Each step solves a system with one matrix that bounds the Hessian, half the moments of z (D. Böhning,
    "Multinomial logistic regression algorithm", Annals of the Institute of Statistical Mathematics 44, 1992).
    The steps are accelerated (Y. Nesterov 1983, in the form of A. Beck and M. Teboulle, SIAM J. Imaging
    Sciences 2, 2009, section 4). A smaller matrix would be faster where classes are told apart, and swing to
    and fro where they are not, which a search would find out.

    Args:
        features: [N, n, D + 1] floating, the last one constant; see :func:`standardized`.
        targets: [n, C] of the same dtype, one-hot.
        penalty: above 0.

    Returns:
        [N, D + 1, C]. NaN where the features are not finite, or the system is not positive definite.
    """
    samples, classes = targets.shape
    penalties = features.new_full((features.shape[2],), penalty)
    penalties[-1] = penalty / 1000  # enough to keep the system definite
    bound = features.mT @ features / (2 * samples) + penalties.diag()
    factor, failed = torch.linalg.cholesky_ex(bound)
    weights = torch.cholesky_solve(features.mT @ (targets - 1 / classes) / samples, factor)
    ahead, pace = weights, 1.0
    for _ in range(steps):
        wrong = targets - (features @ ahead).softmax(-1)
        slope = features.mT @ wrong / samples - penalties[:, None] * ahead
        stepped = ahead + torch.cholesky_solve(slope, factor)
        next_pace = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
        ahead = stepped + (pace - 1) / next_pace * (stepped - weights)
        weights, pace = stepped, next_pace
    return weights.masked_fill((failed != 0)[:, None, None], torch.nan)


def standardized(learned: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, n, D] and [N, J, D] less the mean of the first, in units of their standard deviation, with
    a constant one behind them."""
    mean = learned.mean(1, keepdim=True)
    spread = (learned - mean).square().mean(1, keepdim=True).clamp(min=SMALLEST_SPREAD**2).sqrt()

    def of(features: Tensor) -> Tensor:
        one = features.new_ones(*features.shape[:2], 1)
        return torch.cat([(features - mean) / spread, one], 2)

    return of(learned), of(judged)
