"""Multinomial logistic regression for many candidates at once, in a fixed number of steps.

The number is fixed so that equal features give equal weights, and so that gradients flow through: an edit is
differentiated by what a probe of its features comes to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

STEPS = 48
"""Steps of a probe that is counted: after these its recall is, to a few in a hundred, that after thousands,
even where classes lie on top of each other."""

SMALLEST_SPREAD = 1e-6
"""The least spread of a standardized feature: one that varies less stays as small as it is."""


def logistic_weights(features: Tensor, targets: Tensor, penalty: float, steps: int = STEPS) -> Tensor:
    """The weights that accelerated steps from zero come to, differentiable in the features.

    With features z (a constant one among them) and one-hot targets y of n samples, they minimize

        mean cross-entropy(W^T z, y) + penalty / 2 * |W|^2,    the constant's own weights unpenalized.

    Each step solves a system with one matrix that bounds the Hessian, half the moments of z (D. Böhning,
    "Multinomial logistic regression algorithm", Annals of the Institute of Statistical Mathematics 44, 1992).
    The steps are accelerated (Y. Nesterov 1983, in the form of A. Beck and M. Teboulle, SIAM J. Imaging
    Sciences 2, 2009, section 4). A smaller matrix would be faster where classes are told apart, and
    oscillate where they are not, which a search would exploit.

    Args:
        features: [N, n, D + 1] floating, the last one constant; see :func:`standardized`.
        targets: [n, C] of the same dtype, one-hot.
        penalty: above 0.

    Returns:
        [N, D + 1, C]. NaN where the features are not finite, or the system is not positive definite.
        Differentiable once.
    """
    weights: Tensor = _LogisticWeights.apply(features, targets, penalty, steps)  # type: ignore[no-untyped-call]
    return weights


class _LogisticWeights(torch.autograd.Function):
    """The steps, and their adjoint by hand, in about half the time of autograd's, which adds up a gradient of
    the features after each of several operations of each step. Here these are one product in the end.

    Scores lie class by class, [N, C, n], so that a softmax runs over samples side by side.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, targets: Tensor, penalty: float, steps: int) -> Tensor:
        samples, classes = targets.shape
        across, wanted = features.mT.contiguous(), targets.T.contiguous()  # [N, D + 1, n], [C, n]
        penalties = features.new_full((features.shape[2], 1), penalty)
        penalties[-1] = penalty / 1000  # enough to keep the system definite
        bound = across @ features / (2 * samples) + penalties[:, 0].diag()
        factor, failed = torch.linalg.cholesky_ex(bound)
        weights = torch.cholesky_solve(across @ (targets - 1 / classes) / samples, factor)
        start, ahead = weights, weights
        taped: list[tuple[Tensor, Tensor, Tensor]] = []  # where a step began, its probabilities, and itself
        for pull in _pulls(steps):
            probabilities = (ahead.mT @ across).softmax(1)
            slope = across @ (wanted - probabilities).mT / samples - penalties * ahead
            step = torch.cholesky_solve(slope, factor)
            if ctx.needs_input_grad[0]:
                taped.append((ahead, probabilities, step))
            stepped = ahead + step
            ahead = stepped + pull * (stepped - weights)
            weights = stepped
        failures = (failed != 0)[:, None, None]
        ctx.save_for_backward(across, wanted, factor, penalties, start, failures)
        ctx.taped, ctx.steps = taped, steps
        return weights.masked_fill(failures, torch.nan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, None, None, None]:
        across, wanted, factor, penalties, start, failures = ctx.saved_tensors
        classes, samples = wanted.shape
        of_weights = slope.masked_fill(failures, 0.0)  # of those that a step has come to
        of_ahead = torch.zeros_like(slope)
        lefts, rights, solved = [], [], []  # the features' gradient is the sum of left^T @ right^T
        for pull, (ahead, probabilities, step) in zip(
            reversed(list(_pulls(ctx.steps))), reversed(ctx.taped), strict=True
        ):
            of_stepped = of_weights + (1 + pull) * of_ahead
            of_weights = -pull * of_ahead
            moved = torch.cholesky_solve(of_stepped, factor)
            of_wrong = moved.mT @ across / samples  # [N, C, n]
            mean = (probabilities * of_wrong).sum(1, keepdim=True)
            of_scores = probabilities * (mean - of_wrong)
            lefts += [(wanted - probabilities) / samples, of_scores]
            rights += [moved, ahead]
            solved.append((moved, step))
            of_ahead = of_stepped - penalties * moved + across @ of_scores.mT
        first = torch.cholesky_solve(of_weights + of_ahead, factor)
        solved.append((first, start))
        lefts.append(((wanted - 1 / classes) / samples).expand(len(across), -1, -1))
        rights.append(first)
        moved, step = (torch.cat(parts, 2) for parts in zip(*solved, strict=True))
        of_bound = -moved @ step.mT
        gradient = torch.cat(lefts, 1).mT @ torch.cat(rights, 2).mT
        gradient += across.mT @ (of_bound + of_bound.mT) / (2 * samples)
        return gradient.masked_fill(failures, torch.nan), None, None, None


def _pulls(steps: int) -> Iterator[float]:
    """How far each step is carried on in the direction that the weights have moved."""
    pace = 1.0
    for _ in range(steps):
        following = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
        yield (pace - 1) / following
        pace = following


def standardized(learned: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, n, D] and [N, J, D] less the mean of the first, in units of their standard deviation, with
    a constant one behind them."""
    mean = learned.mean(1, keepdim=True)
    spread = (learned - mean).square().mean(1, keepdim=True).clamp(min=SMALLEST_SPREAD**2).sqrt()

    def of(features: Tensor) -> Tensor:
        one = features.new_ones(*features.shape[:2], 1)
        return torch.cat([(features - mean) / spread, one], 2)

    return of(learned), of(judged)
