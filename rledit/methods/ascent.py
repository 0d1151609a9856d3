"""Ascent on what is to be forgotten, alone or along with descent on the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import group_data
from .descent import Descent, Settings, descend_each, sgd

BETAS = (0.95, 0.99, 0.999)
"""Weights of retain in NegGrad+, the default first."""


@method(
    "gradient_ascent",
    title="gradient ascent",
    source="Golatkar et al., CVPR 2020, arXiv:1911.04933; settings of Jia et al., arXiv:2304.04934",
    needs=("gradients", "forget data"),
)
def gradient_ascent(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Climb the cross-entropy of the samples to forget.

    "Negative gradient" of A. Golatkar et al., CVPR 2020, arXiv:1911.04933; also A. Thudi et al.,
    "Unrolling SGD", EuroS&P 2022, arXiv:2109.13398. Settings of J. Jia et al., arXiv:2304.04934:
    5 epochs, rate 1e-4 (searched in 1e-5..1e-3), batches of 256. We add rates of 3e-3 and 1e-2 for small
    networks.
    """
    data = group_data(problem.model, problem.train, "forget")

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        descent = Descent(model, sgd(model.parameters(), cast(float, settings["rate"])), seed)

        def loss(batch: Tensor) -> Tensor:
            return -F.cross_entropy(model(data.inputs[batch]), data.labels[batch])

        return descent, lambda _: descent.epoch(len(data), 256, loss)

    grid = [{"rate": rate} for rate in (1e-4, 1e-5, 1e-3, 3e-3, 1e-2)]
    return descend_each(problem, grid, budget.epochs or 5, begin)


@method(
    "neggrad_plus",
    title="NegGrad+",
    source="Kurmanji et al., NeurIPS 2023, arXiv:2302.09880",
    needs=("gradients", "forget data", "retain data"),
)
def neggrad_plus(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Descend on the samples to retain and climb on those to forget, in the same steps.

    The stronger baseline of M. Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023,
    arXiv:2302.09880, and of their code: ``beta * CE(retain) - (1 - beta) * CE(forget)``, a batch of
    each, the forget set being gone through again and again. They tune beta close to one by data set; here it
    is 0.95, 0.99 or 0.999, with 5 epochs of SGD at 0.01, momentum 0.9, weight decay 5e-4, batches of 128.
    """
    retain = group_data(problem.model, problem.train, "retain")
    forget = group_data(problem.model, problem.train, "forget")

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        beta = cast(float, settings["beta"])
        descent = Descent(model, sgd(model.parameters(), 1e-2), seed)
        drawn = torch.zeros(0, dtype=torch.int64)

        def loss(batch: Tensor) -> Tensor:
            nonlocal drawn
            while len(drawn) < len(batch):
                drawn = torch.cat([drawn, torch.randperm(len(forget), generator=descent.generator)])
            other, drawn = drawn[: len(batch)].to(batch.device), drawn[len(batch) :]
            kept = F.cross_entropy(model(retain.inputs[batch]), retain.labels[batch])
            lost = F.cross_entropy(model(forget.inputs[other]), forget.labels[other])
            return beta * kept - (1 - beta) * lost

        return descent, lambda _: descent.epoch(len(retain), 128, loss)

    grid = [{"beta": beta, "rate": 1e-2} for beta in BETAS]
    return descend_each(problem, grid, budget.epochs or 5, begin)
