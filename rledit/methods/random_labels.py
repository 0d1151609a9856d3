"""What is to be forgotten is learned anew with labels drawn at random, by all weights or by salient ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import Data, group_data, joined
from .descent import Descent, Settings, descend_each, sgd
from .tuning import mode

EPOCHS = 10
BATCH = 256


@method(
    "random_labels",
    title="random labels",
    source="Graves et al., AAAI 2021, arXiv:2010.10981; settings of Fan et al., arXiv:2310.12508",
    needs=("gradients", "forget data", "retain data"),
)
def random_labels(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Train on all samples, those to forget with wrong labels that are drawn anew in every epoch.

    L. Graves, V. Nagisetty, V. Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv:2010.10981, section
    "Unlearning". Settings of C. Fan et al., arXiv:2310.12508: 10 epochs of SGD, batches of 256,
    rate 0.01 (searched in 1e-3..1e-1).
    """
    grid = [{"rate": rate} for rate in (1e-2, 1e-3, 1e-1)]
    return _relabel(problem, budget, seed, grid)


@method(
    "salun",
    title="SalUn",
    source="Fan et al., ICLR 2024, arXiv:2310.12508",
    needs=("gradients", "forget data", "retain data"),
)
def salun(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """:func:`random_labels` on the half of the weights that matter most for what is to be forgotten.

    C. Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency", ICLR 2024,
    arXiv:2310.12508: salient are the weights whose gradient of the forget loss at the original model is
    largest in size (equation 3, threshold at the median, so 50%), the rest keeps its value (equation 4);
    random labels on forget and the right ones on retain (equation 5 with alpha 1). Their settings: 10 epochs,
    batches of 256, rate searched in 5e-4..5e-2, 0.01 here first.
    """
    forget = group_data(problem.model, problem.train, "forget")

    def masks(model: nn.Module) -> tuple[Mapping[Tensor, Tensor], int]:
        return _salient(model, forget, 0.5)

    grid = [{"rate": rate, "share": 0.5} for rate in (1e-2, 5e-4, 5e-2)]
    return _relabel(problem, budget, seed, grid, masks)


def wrong_labels(labels: Tensor, classes: int, forget: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Labels drawn evenly from the classes to retain, or from all but a sample's own where no class is to be
    forgotten; int64 [S] on the device of ``labels``."""
    if forget:
        kept = torch.tensor([label for label in range(classes) if label not in forget])
        drawn = kept[torch.randint(len(kept), (len(labels),), generator=generator)]
        return drawn.to(labels.device)
    shift = torch.randint(1, classes, (len(labels),), generator=generator)
    return (labels + shift.to(labels.device)) % classes


def _relabel(
    problem: UnlearningProblem,
    budget: Budget,
    seed: int,
    grid: list[dict[str, float]],
    masks: Callable[[nn.Module], tuple[Mapping[Tensor, Tensor], int]] | None = None,
) -> MethodResult:
    forget = group_data(problem.model, problem.train, "forget")
    data = joined(forget, group_data(problem.model, problem.train, "retain"))

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        salient, gradients = masks(model) if masks else ({}, 0)
        optimizer = sgd(model.parameters(), cast(float, settings["rate"]))
        descent = Descent(model, optimizer, seed, salient)
        descent.steps += gradients

        def epoch(_: int) -> None:
            drawn = wrong_labels(forget.labels, problem.classes, problem.forget, descent.generator)
            labels = torch.cat([drawn, data.labels[len(forget) :]])
            descent.epoch(
                len(data), BATCH, lambda batch: F.cross_entropy(model(data.inputs[batch]), labels[batch])
            )

        return descent, epoch

    return descend_each(problem, grid, budget.epochs or EPOCHS, begin)


def _salient(model: nn.Module, forget: Data, share: float) -> tuple[Mapping[Tensor, Tensor], int]:
    """Parameter -> bool mask of its entries among the share with the largest gradients, over the whole model;
    and the number of batches that were asked."""
    batches = 0
    model.zero_grad()
    with mode(model, training=False):
        for start in range(0, len(forget), BATCH):
            part = slice(start, start + BATCH)
            loss = F.cross_entropy(model(forget.inputs[part]), forget.labels[part], reduction="sum")
            loss.backward()
            batches += 1
    sizes = {p: p.grad.abs() for p in model.parameters() if p.grad is not None}
    model.zero_grad()
    flat = torch.cat([size.flatten() for size in sizes.values()])
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.topk(max(1, int(share * len(flat)))).indices] = True
    cut = chosen.split([size.numel() for size in sizes.values()])
    return {p: part.view_as(p) for p, part in zip(sizes, cut, strict=True)}, batches
