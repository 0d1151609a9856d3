"""Linear targets at the cut: what they make of a cached value before it is edited does not depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..targets import Target, is_plain
from .population import Population
from .tracing import Cut

ROWS = 4096
"""Rows whose unedited outputs are made at a time."""


class FirstTargets:
    """Runs batches of a cut network under a shift without a product over all inputs of its first layers.

    Where a cached value is read by linear targets alone, their unedited outputs are made once, of all
    samples; and of the value itself only those columns are kept that right factors have. A bag of words has
    thousands of columns, the directions of an edit some hundred.

    Args:
        targets: what is edited, by name.
        cut: of the network.
        values: cached, [S, ...] each.
        columns: int64 [I'] by target: where its right factors may differ from zero. By default everywhere.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        cut: Cut,
        values: tuple[Tensor, ...],
        columns: Mapping[str, Tensor],
    ) -> None:
        self._values = list(values)
        self._unedited: dict[str, Tensor] = {}
        self._targets = targets
        self._columns: dict[str, Tensor] = {}
        self._read: dict[int, tuple[str, ...]] = {}
        for i, names in cut.readers().items():
            own = [targets[name] for name in names]
            linear = all(isinstance(target, nn.Linear) and is_plain(target) for target in own)
            if not linear or values[i].dim() != 2:
                continue
            self._read[i] = names
            for name, target in zip(names, own, strict=True):
                self._unedited[name] = _outputs(target, values[i])
            if all(name in columns for name in names):
                kept = torch.cat([columns[name] for name in names]).unique().to(values[i].device)
                self._values[i] = values[i][:, kept].contiguous()
                self._columns |= dict.fromkeys(names, kept)

    def batch(self, population: Population, rows: Tensor) -> tuple[tuple[Tensor, ...], Population] | None:
        """Values [s, ...] of some samples and the population that they go with; None where its candidates do
        not add products of low rank to unedited outputs."""
        corrects = (population.corrects(name, self._targets[name]) for name in self._unedited)
        if not self._unedited or not all(corrects):
            return None
        values = tuple(value[rows] for value in self._values)
        factors = dict(population.factors)
        for name, kept in self._columns.items():
            left, right = factors[name]
            factors[name] = left, right[:, :, kept]
        outputs = {
            name: [(values[i], self._unedited[name][rows])]
            for i, names in self._read.items()
            for name in names
        }
        return values, replace(population, factors=factors, outputs=outputs)


@torch.no_grad()
def _outputs(target: Target, value: Tensor) -> Tensor:
    """Of the unedited target, [S, O]."""
    return torch.cat([F.linear(part, target.weight, target.bias) for part in value.split(ROWS)])
