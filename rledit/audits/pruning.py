"""Whether an edit survives removing the smallest weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from .altered import altered_accuracies, enter_displays, weights_of
from .base import AuditData

PERCENTAGES = (30, 50)

for _percentage in PERCENTAGES:
    enter_displays(f"pruned_{_percentage}", f"pruning {_percentage}%", f"pruned {_percentage}%")


@dataclass(frozen=True)
class Pruning:
    """Accuracies after magnitude pruning: ``pruned_<percentage>_<group>_accuracy``, over test samples.

    In every Linear and Conv layer the given percentage of the weights, those of smallest magnitude, is set to
    zero, without training afterwards (S. Han et al., "Learning both Weights and Connections for Efficient
    Neural Networks", NeurIPS 2015, by layer).

    Raises:
        ValueError: for a percentage outside 0..99.
    """

    percentages: tuple[int, ...] = PERCENTAGES

    note: ClassVar[str] = "Pruning the smallest weights must not bring the class back either."

    def __post_init__(self) -> None:
        if wrong := [percentage for percentage in self.percentages if not 0 <= percentage <= 99]:
            raise ValueError(f"percentages: expected numbers in 0..99, got {wrong[0]}")

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        figures: dict[str, float] = {}
        for percentage in self.percentages:
            name = f"pruned_{percentage}"
            figures |= altered_accuracies(name, partial(prune_, portion=percentage / 100), model, data)
        return figures


@torch.no_grad()
def prune_(model: nn.Module, portion: float) -> None:
    """Set the portion of smallest magnitude of each layer's weights to zero, in place, rounded down."""
    for weight in weights_of(model):
        pruned = weight.detach().flatten().clone()
        pruned[pruned.abs().argsort()[: int(portion * len(pruned))]] = 0
        weight.copy_(pruned.view_as(weight))
