"""A population: the candidates that are run together, and what a target computes for all of them.

A value that depends on the candidate is *folded*: [n*s, ...], candidate-major. A value that does not is
*shared*: [s, ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.backends import Backend

Target = nn.Linear | nn.Conv2d


def as_matrix(weight: Tensor) -> Tensor:
    """A weight [O, ...] as a matrix [O, I]; for Conv2d, I = in_channels * kh * kw (per group)."""
    return weight.flatten(1)


@dataclass(frozen=True)
class Population:
    """n candidates.

    Attributes:
        factors: per target (left [n, O, R], right [n, R, I]); a target may be missing.
        weights: per target [n, O, I], where each candidate has weights of its own already.
    """

    size: int
    factors: Mapping[str, tuple[Tensor, Tensor]]
    weights: Mapping[str, Tensor]
    world: str
    scale: float
    backend: Backend
    precision: str

    def part(self, start: int, stop: int) -> Population:
        """Candidates start..stop-1."""
        return replace(
            self,
            size=stop - start,
            factors={
                name: (left[start:stop], right[start:stop]) for name, (left, right) in self.factors.items()
            },
            weights={name: weight[start:stop] for name, weight in self.weights.items()},
        )

    def touches(self, name: str) -> bool:
        return name in self.factors or name in self.weights

    def run(self, name: str, target: Target, x: Tensor, shared: bool) -> Tensor:
        """The target's output for every candidate, folded; ``x`` is shared or folded."""
        x = self._operand(x)
        if isinstance(target, nn.Linear):
            flat = x.reshape(-1, x.shape[-1]) if shared else x.reshape(self.size, -1, x.shape[-1])
            out = self._linear(name, target, flat, shared)
            rows = x.shape[0] * self.size if shared else x.shape[0]
            return out.reshape(rows, *x.shape[1:-1], target.out_features)
        return self._conv(name, target, x, shared)

    def _operand(self, x: Tensor) -> Tensor:
        return x.bfloat16().to(x.dtype) if self.precision == "bfloat16" else x

    def _edited(self, name: str, target: Target) -> Tensor:
        """The candidates' weights [n, O, I]."""
        if name in self.weights:
            weight = self.weights[name]
            if name in self.factors:
                weight = weight.clone()
        else:
            weight = as_matrix(target.weight).detach().expand(self.size, -1, -1).contiguous()
        if name in self.factors:
            left, right = self.factors[name]
            self.backend.apply_lowrank_(weight, left, right, self.world, self.scale)
        return self._operand(weight)

    def _corrects(self, name: str, target: Target) -> bool:
        """Whether the unedited product and a rank-R correction are cheaper than edited weights."""
        if self.world != "shift" or name in self.weights or name not in self.factors:
            return False
        if isinstance(target, nn.Conv2d) and target.groups != 1:
            return False
        outputs, inputs = as_matrix(target.weight).shape
        rank = self.factors[name][0].shape[2]
        return rank * (outputs + inputs) < outputs * inputs

    def _linear(self, name: str, target: nn.Linear, x: Tensor, shared: bool) -> Tensor:
        # x: [m, I] shared, or [n, m, I] -> [n, m, O]
        if self._corrects(name, target):
            left, right = (self._operand(factor) for factor in self.factors[name])
            product = F.linear(x, self._operand(target.weight), target.bias)
            if shared:
                rank = right.shape[1]
                reduced = (x @ right.flatten(0, 1).T).view(len(x), self.size, rank).transpose(0, 1)
                product = product.expand(self.size, -1, -1)
            else:
                reduced = x @ right.transpose(1, 2)
            return torch.baddbmm(product, self._operand(reduced), left.transpose(1, 2), alpha=self.scale)
        weight = self._edited(name, target).transpose(1, 2)
        x = x.expand(self.size, -1, -1)
        return x @ weight if target.bias is None else torch.baddbmm(target.bias, x, weight)

    def _conv(self, name: str, target: nn.Conv2d, x: Tensor, shared: bool) -> Tensor:
        # x: [s, C, h, w] shared, or [n*s, C, h, w] -> [n*s, O, h', w']
        n = self.size
        if self._corrects(name, target):
            left, right = (self._operand(factor) for factor in self.factors[name])  # [n, O, R], [n, R, I]
            rank = right.shape[1]
            product = self._convolve(target, x, target.weight, target.bias)
            if shared:
                kernels = right.reshape(n * rank, *target.weight.shape[1:])
                reduced = self._convolve(target, x, kernels, None)  # [s, n*R, h', w']
                reduced = reduced.view(len(x), n, rank, -1).transpose(0, 1)  # [n, s, R, h'w']
            else:
                parts = [
                    self._convolve(target, part, kernel.view(rank, *target.weight.shape[1:]), None)
                    for part, kernel in zip(x.chunk(n), right, strict=True)
                ]
                reduced = torch.stack(parts).flatten(3)
            correction = self.scale * (left[:, None] @ self._operand(reduced))  # [n, s, O, h'w']
            correction = correction.view(n, -1, *product.shape[1:])
            product = product if shared else product.view(n, -1, *product.shape[1:])
            return correction.add_(product).flatten(0, 1)
        weight = self._edited(name, target).view(n, *target.weight.shape)
        parts = [
            self._convolve(target, x if shared else x.chunk(n)[i], weight[i], target.bias) for i in range(n)
        ]
        return torch.cat(parts)

    def _convolve(self, target: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # _conv_forward knows the padding modes.
        out: Tensor = target._conv_forward(x, self._operand(weight), bias)
        return out
