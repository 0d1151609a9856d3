"""Linear targets at the cut: what they make of a cached value before it is edited does not depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

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
        self._targets = targets
        self._values = values
        self._columns = columns
        self._read = {
            i: names
            for i, names in cut.readers().items()
            if values[i].dim() == 2 and all(_is_linear(targets[name]) for name in names)
        }
        self._names = tuple(name for names in self._read.values() for name in names)

    def batch(self, population: Population, rows: Tensor) -> tuple[tuple[Tensor, ...], Population] | None:
        """Values [s, ...] of some samples and the population that they go with; None where its candidates do
        not add products of low rank to unedited outputs."""
        corrects = (population.corrects(name, self._targets[name]) for name in self._names)
        if not self._names or not all(corrects):
            return None
        values = tuple(value[rows] for value in self._narrowed)
        factors, outputs = dict(population.factors), {}
        for i, names in self._read.items():
            for name in names:
                outputs[name] = [(values[i], self._unedited[name][rows])]
                if i in self._kept:
                    left, right = factors[name]
                    factors[name] = left, right[:, :, self._kept[i]]
        return values, replace(population, factors=factors, outputs=outputs)

    @cached_property  # as all below: masks and single candidates never ask
    def _kept(self) -> dict[int, Tensor]:
        """The columns that are kept of a value, where not all are."""
        return {
            i: torch.cat([self._columns[name] for name in names]).unique().to(self._values[i].device)
            for i, names in self._read.items()
            if all(name in self._columns for name in names)
        }

    @cached_property
    def _narrowed(self) -> list[Tensor]:
        """The values, of these columns alone."""
        kept = self._kept
        return [value[:, kept[i]] if i in kept else value for i, value in enumerate(self._values)]

    @cached_property
    def _unedited(self) -> dict[str, Tensor]:
        """Outputs of the unedited targets, [S, O]."""
        return {
            name: _outputs(self._targets[name], self._values[i])
            for i, names in self._read.items()
            for name in names
        }


def _is_linear(target: Target) -> bool:
    return isinstance(target, nn.Linear) and is_plain(target)


@torch.no_grad()
def _outputs(target: Target, value: Tensor) -> Tensor:
    """Of the unedited target, [S, O]."""
    return torch.cat([F.linear(part, target.weight, target.bias) for part in value.split(ROWS)])
