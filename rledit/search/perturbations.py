"""What an evolution strategy's noise is added to: the factors, or the product of the factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..engine import ActionLayout, Engine


@dataclass(frozen=True)
class Part:
    """Where one target's factors lie in an action [A].

    Attributes:
        outputs, width: O, and I or the K coefficients that take its place: left is [O, R], right [R, width].
        start, middle, end: left lies in start..middle, right in middle..end.
    """

    name: str
    outputs: int
    width: int
    start: int
    middle: int
    end: int


def parts_of(layout: ActionLayout) -> list[Part]:
    """The parts of every target, in the order of the action."""
    parts = []
    start = 0
    for name, (outputs, inputs) in layout.shapes.items():
        width = len(layout.directions[name]) if name in layout.directions else inputs
        middle = start + outputs * layout.rank
        end = middle + layout.rank * width
        parts.append(Part(name, outputs, width, start, middle, end))
        start = end
    return parts


class Perturbation(ABC):
    """Mirrored candidates around a center that is learned.

    Attributes:
        size: entries of the center.
    """

    size: int

    @abstractmethod
    def draw(self, pairs: int, generator: torch.Generator) -> Any:
        """Noise of this many mirrored pairs."""

    @abstractmethod
    def vectors(self, center: Tensor, noise: Any, sigma: float) -> tuple[Tensor, Tensor]:
        """Vectors [pairs, D] of the candidates with the noise added to the center [size], and with it taken
        away."""

    @abstractmethod
    def weighted(self, noise: Any, weights: Tensor) -> Tensor:
        """The sum of the pairs' noise, weighted by float32 [pairs], in the space of the center: [size]."""

    @abstractmethod
    def middle(self, center: Tensor) -> Tensor:
        """The center's own vector, [D]."""


class FactorNoise(Perturbation):
    """Independent noise on every entry of the factors; the center is a vector itself."""

    def __init__(self, dimensions: int) -> None:
        self.size = dimensions

    def draw(self, pairs: int, generator: torch.Generator) -> Tensor:
        return torch.randn(
            (pairs, self.size), generator=generator, device=generator.device, dtype=torch.float32
        )

    def vectors(self, center: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return center + sigma * noise, center - sigma * noise

    def weighted(self, noise: Tensor, weights: Tensor) -> Tensor:
        return weights @ noise

    def middle(self, center: Tensor) -> Tensor:
        return center


class LowRankNoise(Perturbation):
    """Noise of rank r on the product left @ right, in ranks of its own, apart from those of the center.

    The noise of B. Sarkar et al. (arXiv:2511.16652): A @ B / sqrt(r) with A [O, r] and B [r, I] standard
    normal, whose entries have unit variance. The center is the product itself, [O, I] of every target and
    step, all numbers; what is scored is the nearest matrix of rank R - r (its largest singular values), the
    noise filling the other r ranks. In Sarkar et al. the network has the whole center; an edit has R ranks.

    Raises:
        ValueError: unless 1 <= r < R.
    """

    def __init__(self, engine: Engine, rank: int) -> None:
        if not 1 <= rank < engine.rank:
            raise ValueError(
                f"low_rank: expected 0, or 1..{engine.rank - 1}: the edit's rank is {engine.rank}, and the "
                f"mean needs some of it; got {rank}"
            )
        self.rank = rank
        self.kept = engine.rank - rank
        self.steps = engine.episode_length
        self.parts = parts_of(engine.layout)
        self.size = self.steps * sum(part.outputs * part.width for part in self.parts)

    def draw(self, pairs: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """Per step and target A [pairs, O, r] and B [pairs, r, width]."""

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)

        return [
            (normal(pairs, part.outputs, self.rank), normal(pairs, self.rank, part.width))
            for _ in range(self.steps)
            for part in self.parts
        ]

    def vectors(
        self, center: Tensor, noise: list[tuple[Tensor, Tensor]], sigma: float
    ) -> tuple[Tensor, Tensor]:
        size = sigma**0.5 * self.rank**-0.25  # of either factor, so that both are alike
        plus, minus = [], []
        for (left, right), (a, b) in zip(self._factors(center), noise, strict=True):
            pairs = len(a)
            lefts, rights = left.expand(pairs, -1, -1), right.expand(pairs, -1, -1)
            behind = torch.cat([rights, size * b], 1).flatten(1)
            plus += [torch.cat([lefts, size * a], 2).flatten(1), behind]
            minus += [torch.cat([lefts, -size * a], 2).flatten(1), behind]
        return torch.cat(plus, 1), torch.cat(minus, 1)

    def weighted(self, noise: list[tuple[Tensor, Tensor]], weights: Tensor) -> Tensor:
        scaled = weights / self.rank**0.5
        return torch.cat(
            [
                (
                    (scaled[:, None, None] * a).permute(1, 0, 2).flatten(1) @ b.flatten(0, 1)
                ).flatten()  # [O, pairs * r] @ [pairs * r, width]
                for a, b in noise
            ]
        )

    def middle(self, center: Tensor) -> Tensor:
        whole = []
        for left, right in self._factors(center):
            whole += [
                torch.cat([left, left.new_zeros(len(left), self.rank)], 1).flatten(),
                torch.cat([right, right.new_zeros(self.rank, right.shape[1])]).flatten(),
            ]
        return torch.cat(whole)

    def _factors(self, center: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per step and target the best left [O, R - r] and right [R - r, width], of similar size."""
        sizes = [part.outputs * part.width for part in self.parts]
        factors = []
        for i, flat in enumerate(center.split(sizes * self.steps)):
            part = self.parts[i % len(self.parts)]
            u, s, v = torch.linalg.svd(flat.view(part.outputs, part.width), full_matrices=False)
            root = s[: self.kept].sqrt()
            factors.append((u[:, : self.kept] * root, root[:, None] * v[: self.kept]))
        return factors
