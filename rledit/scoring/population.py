"""A population: the candidates that are run together, and what a target computes for all of them.

A value that depends on the candidate is *folded*: [n*s, ...], candidate-major. A value that does not is
*shared*: [s, ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.backends import Backend
from ..ops.rules import EditRule
from ..targets import Target, as_matrix, is_plain
from .blocks import BLOCK_BYTES, bias_rows, by_blocks, convolve, row_blocks


@dataclass(frozen=True)
class Population:
    """n candidates.

    Attributes:
        factors: per target (left [n, O, R], right [n, R, I]); a target may be missing.
        weights: per target [n, O, I], where each candidate has weights of its own already.
        whole: candidates of the population that this one is a part of; 0 stands for its own size.
        block_bytes: bytes of edited weights that are formed at a time on the CPU, for some candidates or some
            rows.
        outputs: unedited outputs of targets for shared values, kept while parts of a population run on the
            same samples.
    """

    size: int
    factors: Mapping[str, tuple[Tensor, Tensor]]
    weights: Mapping[str, Tensor]
    rule: EditRule
    backend: Backend
    precision: str
    whole: int = 0
    block_bytes: int = 4 * BLOCK_BYTES
    outputs: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.whole == 0:
            object.__setattr__(self, "whole", self.size)

    def afresh(self) -> Population:
        """The same candidates, for other samples."""
        return replace(self, outputs={})

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
        if not is_plain(target):
            return self._called(name, target, x, shared)
        if shared and self.corrects(name, target):
            if isinstance(target, nn.Linear) and self.backend.population_linear is not None:
                return self._corrected_linear(name, target, x).flatten(0, 1)
            out = self._unedited(name, target, x) + self._correction(name, target, self._operand(x))
            return out.flatten(0, 1)
        x = self._operand(x)
        if isinstance(target, nn.Linear):
            return self._linear(name, target, x, shared)
        return self._conv(name, target, x, shared)

    def _operand(self, x: Tensor) -> Tensor:
        rounded = self.precision == "bfloat16" and x.is_floating_point()
        return x.bfloat16().to(x.dtype) if rounded else x

    def edited(self, name: str, unedited: Tensor, rows: slice = slice(None)) -> Tensor:
        """The candidates' weights [n, O, I], or some of their rows, of a target whose own is ``unedited``
        [O, I]."""
        if name in self.weights:
            weight = self.weights[name][:, rows]
            if name in self.factors:
                weight = weight.clone(memory_format=torch.contiguous_format)
        else:
            # repeat copies also where it repeats once: the model's own weight must not be edited
            weight = unedited[rows].repeat(self.size, 1, 1)
        if name in self.factors:
            left, right = self.factors[name]
            self.backend.edit_(weight, left[:, rows].contiguous(), right, self.rule)
        return self._operand(weight)

    def _blocks(self, name: str, weight: Tensor) -> list[slice]:
        """Rows of an edited weight that are formed at a time."""
        if self.rule.fused or name not in self.factors:
            return row_blocks(weight, self.block_bytes)
        return [slice(0, weight.shape[0])]  # any other rule may look at the whole matrix

    def _at_once(self, weight: Tensor) -> int:
        """Candidates whose edited weights are formed together."""
        if weight.device.type != "cpu":
            return self.size
        return max(1, self.block_bytes // (weight.numel() * weight.element_size()))

    def _edited(self, name: str, target: Target, rows: slice = slice(None)) -> Tensor:
        return self.edited(name, as_matrix(target.weight).detach(), rows)

    def _called(self, name: str, target: Target, x: Tensor, shared: bool) -> Tensor:
        """Output of a target that is not a plain Linear or Conv2d, called with each candidate's weight."""
        if self.size > (some := self._at_once(target.weight)):
            return self._parts(some, "_called", name, target, x, shared)
        weights = self._edited(name, target).view(self.size, *target.weight.shape)
        x = self._operand(x)
        own = [x] * self.size if shared else x.chunk(self.size)
        return torch.cat([_with_weight(target, w)(part) for w, part in zip(weights, own, strict=True)])

    def corrects(self, name: str, target: Target) -> bool:
        """Whether the unedited output, made once, and rank-R corrections cost less than edited weights."""
        if self.rule.kind != "shift" or name in self.weights or self.whole == 1:
            return False
        if isinstance(target, nn.Conv2d) and target.groups != 1:
            return False
        outputs, inputs = as_matrix(target.weight).shape
        rank = self.factors[name][0].shape[2]
        return outputs * inputs + self.whole * rank * (outputs + inputs) < self.whole * outputs * inputs

    def _unedited(self, name: str, target: Target, x: Tensor) -> Tensor:
        """The output with the unedited weights, computed once for all parts of the population."""
        for known, unedited in self.outputs.get(name, []):
            if known is x:
                return unedited
        weight = self._operand(target.weight)
        output: Tensor
        if isinstance(target, nn.Linear):
            output = F.linear(self._operand(x), weight, target.bias)
        else:
            output = self._convolve(target, self._operand(x), weight, target.bias)
        self.outputs.setdefault(name, []).append((x, output))
        return output

    def _corrected_linear(self, name: str, target: nn.Linear, x: Tensor) -> Tensor:
        """The backend's own way: unedited output and corrections in one pass, [n, s, ..., O]."""
        assert self.backend.population_linear is not None
        left, right = self.factors[name]
        unedited = self._unedited(name, target, x)
        reduced = F.linear(self._operand(x), self._operand(right).flatten(0, 1))  # [s, ..., n*R]
        out: Tensor = self.backend.population_linear(
            unedited.flatten(0, -2),
            reduced.reshape(-1, *right.shape[:2]),
            left,
            self.rule.scale,
            self.precision,
        )
        folded: Tensor = out.unflatten(1, unedited.shape[:-1])
        return folded

    def _correction(self, name: str, target: Target, x: Tensor) -> Tensor:
        """scale * (x right^T) left^T for every candidate: [n, s, ...] with the shape of the output."""
        left, right = (self._operand(factor) for factor in self.factors[name])  # [n, O, R], [n, R, I]
        lefts = (self.rule.scale * left).transpose(1, 2)  # [n, R, O]
        n, rank = right.shape[:2]
        out: Tensor
        if isinstance(target, nn.Linear):
            reduced = F.linear(x, right.flatten(0, 1)).unflatten(-1, (n, rank)).movedim(-2, 0)
            out = (self._operand(reduced).flatten(1, -2) @ lefts).unflatten(1, x.shape[:-1])
            return out
        kernels = right.reshape(n * rank, *target.weight.shape[1:])
        maps = self._convolve(target, x, kernels, None)  # [s, n*R, h, w]
        if maps.is_contiguous(memory_format=torch.channels_last):
            reduced = maps.permute(0, 2, 3, 1).unflatten(3, (n, rank)).movedim(3, 0)  # [n, s, h, w, R]
            flat = self._operand(reduced).flatten(1, 3) @ lefts  # [n, s*h*w, O]
            out = flat.unflatten(1, reduced.shape[1:4]).movedim(4, 2)
        else:
            reduced = maps.unflatten(1, (n, rank)).transpose(0, 1)  # [n, s, R, h, w]
            flat = lefts.transpose(1, 2)[:, None] @ self._operand(reduced).flatten(3)  # [n, s, O, h*w]
            out = flat.unflatten(3, maps.shape[2:])
        return out

    def _linear(self, name: str, target: nn.Linear, x: Tensor, shared: bool) -> Tensor:
        # x: [s, ..., I] shared, or [n*s, ..., I] -> [n*s, ..., O]
        if self.size > (some := self._at_once(target.weight)):
            return self._parts(some, "_linear", name, target, x, shared)
        n, bias = self.size, target.bias
        inputs = x.flatten(0, -2).expand(n, -1, -1) if shared else x.reshape(n, -1, x.shape[-1])

        def outputs(rows: slice) -> Tensor:
            weight = self._edited(name, target, rows).transpose(1, 2)
            return inputs @ weight if bias is None else torch.baddbmm(bias[rows], inputs, weight)

        out = by_blocks(self._blocks(name, target.weight), -1, outputs)
        return out.reshape(-1, *x.shape[1:-1], target.out_features)

    def _parts(self, size: int, way: str, name: str, target: Target, x: Tensor, shared: bool) -> Tensor:
        """What the method of this name gives, for ``size`` candidates at a time."""
        samples = len(x) if shared else len(x) // self.size
        outs = []
        for start in range(0, self.size, size):
            part = self.part(start, min(start + size, self.size))
            own = x if shared else x[start * samples : (start + part.size) * samples]
            outs.append(getattr(part, way)(name, target, own, shared))
        return torch.cat(outs)

    def _conv(self, name: str, target: nn.Conv2d, x: Tensor, shared: bool) -> Tensor:
        # x: [s, C, h, w] shared, or [n*s, C, h, w] -> [n*s, O, h', w']
        if self.size > (some := self._at_once(target.weight)):
            return self._parts(some, "_conv", name, target, x, shared)
        n = self.size
        own = [x] * n if shared else x.chunk(n)

        def outputs(rows: slice) -> Tensor:
            weight = self._edited(name, target, rows).unflatten(2, target.weight.shape[1:])
            bias = bias_rows(target.bias, rows)
            parts = [target._conv_forward(own[i], weight[i], bias) for i in range(n)]
            return parts[0] if n == 1 else torch.cat(parts)

        blocks = self._blocks(name, target.weight) if target.groups == 1 else [slice(0, target.out_channels)]
        return by_blocks(blocks, 1, outputs)

    def _convolve(self, target: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # By blocks, since torch copies weights into other layouts.
        return convolve(target, x, weight, bias, weight.__getitem__)


def _with_weight(target: Target, weight: Tensor) -> Target:
    """The same module but for its weight; worlds score on threads, so the target itself is left alone."""
    twin = object.__new__(type(target))
    twin.__dict__.update(target.__dict__)
    twin.__dict__["_parameters"] = {**target._parameters, "weight": weight}
    return twin
