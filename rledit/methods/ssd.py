"""Selective Synaptic Dampening: weights that matter far more to forget than to all are made smaller."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import group_data, joined
from .importance import batch_importance, sample_importance
from .tuning import Tuning, trainable_copy

BATCH = 64
SELECTIONS = (10.0, 0.5, 1.0, 2.0, 5.0, 25.0, 50.0, 100.0)
"""alpha, the default first; the paper searches 0.1..100."""
DAMPENINGS = (1.0, 0.1)
"""lambda, the default first."""


@method(
    "ssd",
    title="SSD",
    source="Foster et al., AAAI 2024, arXiv:2308.07707",
    needs=("gradients", "forget data", "retain data"),
)
def ssd(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Compare Fisher's diagonal on the samples to forget with that on all, and dampen where it is larger.

    J. Foster, S. Schoepf, A. Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
    Dampening", AAAI 2024, arXiv:2308.07707: :func:`dampened`. Their ResNet has alpha 10 and
    lambda 1. The paper squares gradients of samples, its code those of batches, of 64 by default: the latter
    is our default, the former is tried as well. Nothing is random; the seed is not read.
    """
    forget = group_data(problem.model, problem.train, "forget")
    everything = joined(forget, group_data(problem.model, problem.train, "retain"))
    base = trainable_copy(problem)
    tuning = Tuning(problem)
    for batch in (BATCH, 1):
        if batch == 1:
            matters, usual = sample_importance(base, forget), sample_importance(base, everything)
        else:
            matters = batch_importance(base, forget, batch)
            usual = batch_importance(base, everything, batch)
        tuning.steps += -(-len(forget) // batch) - (-len(everything) // batch)
        for dampening in DAMPENINGS:
            for selection in SELECTIONS:
                model = trainable_copy(problem)
                with torch.no_grad():
                    for name, weight in model.named_parameters():
                        if name in matters:
                            weight.copy_(dampened(weight, matters[name], usual[name], selection, dampening))
                published = (batch, selection, dampening) == (BATCH, SELECTIONS[0], DAMPENINGS[0])
                settings = {"alpha": selection, "lambda": dampening, "batch": batch}
                tuning.offer(model, settings, published=published)
    return tuning.result()


def dampened(weight: Tensor, matters: Tensor, usual: Tensor, selection: float, dampening: float) -> Tensor:
    """``beta * weight`` where ``matters > selection * usual``, else the weight.

    ``beta = min(1, dampening * usual / matters)``.

    Args:
        weight: weight of a layer.
        matters: its importance to the samples to forget, in its shape.
        usual: its importance to all samples.
        selection: alpha.
        dampening: lambda.
    """
    beta = (dampening * usual / matters).clamp(max=1)
    return torch.where(matters > selection * usual, beta * weight, weight)
