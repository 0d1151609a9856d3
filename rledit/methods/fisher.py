"""Fisher forgetting: noise where the retained samples would not feel it."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import group_data
from .importance import expected_importance
from .tuning import Tuning, trainable_copy

SAMPLES = 4096
STRENGTHS = (3e-6, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Noise strengths alpha, the default first."""


@method(
    "fisher",
    title="Fisher forgetting",
    source="Golatkar et al., CVPR 2020, arXiv:1911.04933",
    needs=("gradients", "retain data"),
)
def fisher(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Add Gaussian noise to each weight, the more the less the samples to retain say about it.

    A. Golatkar, A. Achille, S. Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep
    Networks", CVPR 2020, arXiv:1911.04933, as their code has it, see :func:`noise_of`; alpha 3e-6
    for a class. Fisher's diagonal is taken on at most 4,096 samples to retain, drawn at random, and expected
    over the model's own labels; their code reads all.
    """
    generator = torch.Generator().manual_seed(seed)
    data = group_data(problem.model, problem.train, "retain").some(SAMPLES, generator)
    base = trainable_copy(problem)
    importance = expected_importance(base, data, problem.classes)
    tuning = Tuning(problem)
    tuning.steps = len(data) * problem.classes
    for alpha in STRENGTHS:
        model = trainable_copy(problem)
        generator.manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name not in importance:
                    continue
                mean, variance = noise_of(weight, importance[name], alpha, problem.classes, problem.forget)
                draw = torch.randn(weight.shape, generator=generator).to(weight.device, weight.dtype)
                weight.copy_(mean + variance.sqrt() * draw)
        tuning.offer(model, {"alpha": alpha}, published=alpha == STRENGTHS[0])
    return tuning.result()


def noise_of(
    weight: Tensor, importance: Tensor, alpha: float, classes: int, forget: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a parameter after forgetting, both in its shape.

    The variance is ``alpha / F`` with F the importance, 1 / F at most 1e3 (1e2 for the last layer), averaged
    over a weight's inputs (its second dimension), and tenfold for the last layer and for vectors. The last
    layer is whatever has as many rows as there are classes: there, rows of the classes to forget get mean 0
    and variance 1e-4, tenfold as well. The mean of everything else is the weight itself.
    """
    last = len(weight) == classes if weight.dim() else False
    variance = alpha * (1 / (importance + 1e-8)).clamp(max=1e2 if last else 1e3)
    if weight.dim() > 1:
        variance = variance.mean(1, keepdim=True).expand_as(weight).clone()
    mean = weight.detach().clone()
    if last and forget:
        mean[list(forget)] = 0
        variance[list(forget)] = 1e-4
    if last or weight.dim() <= 1:
        variance = variance * 10
    return mean, variance
