"""The weights that an edit reads and writes: found, checked, computed, and written all or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..ops import apply_lowrank_
from ..ops.rules import EditRule
from ..targets import as_matrix, find_targets

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BLOCK = 1 << 20  # values of a matrix that are computed at a time, so that a large one needs no copies of it

Pair = tuple[Tensor, Tensor]
"""left [T, O, R] and right [T, R, I], or the same without T."""


def target_weights(model: nn.Module, targets: Sequence[str]) -> dict[str, Tensor]:
    """The weight parameters of the named modules, checked to be editable in place."""
    return {name: target.weight for name, target in find_targets(model, targets).items()}


def check_weight(name: str, weight: Tensor, factors: Pair) -> None:
    """Raise unless the weight is finite, of a floating dtype and of the size that the factors edit."""
    rows, columns = factors[0].shape[-2], factors[1].shape[-1]
    if weight.is_meta:
        raise ValueError(f"target {name!r}: expected weights with values, got some on the meta device")
    if weight.dtype not in _DTYPES:
        raise TypeError(
            f"target {name!r}: expected weights of a floating dtype up to float64, got {weight.dtype}"
        )
    if weight.dim() < 2 or (len(weight), math.prod(weight.shape[1:])) != (rows, columns):
        raise ValueError(
            f"target {name!r}: the edit expects a weight of {rows} x {columns}, got {tuple(weight.shape)}"
        )
    for part in weight.detach().split(max(1, _BLOCK // max(1, columns))):
        if not torch.isfinite(part).all():
            raise ValueError(f"target {name!r}: the weights hold NaN or infinity; expected finite weights")


def compose(weight: Tensor, factors: Pair, rule: EditRule) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows at a time: which, and the matrix before and after the edit.

    In float32 (float64 for float64 weights), before any rounding to a half type. Rules that the compiled
    cores know change every row by itself; of any other rule that is not known, so it gets all rows at once.
    """
    matrix = as_matrix(weight.detach())
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    left, right = (f.to(matrix.device, dtype).reshape(-1, *f.shape[-2:]) for f in factors)
    size = max(1, _BLOCK // max(1, matrix.shape[1])) if rule.fused else len(matrix)
    for start in range(0, len(matrix), size):
        rows = slice(start, start + size)
        before = matrix[rows].to(dtype)
        after = before.clone(memory_format=torch.contiguous_format)
        for t in range(len(left)):
            apply_lowrank_(after[None], left[None, t, rows], right[None, t], rule.kind, rule.scale)
        yield rows, before, after


def edited_weight(
    name: str, weight: Tensor, factors: Pair, rule: EditRule, out: Tensor | None = None
) -> tuple[Tensor, float]:
    """The new weight, and how much of the edit its dtype's rounding takes away.

    Args:
        name: of the target, for errors.
        weight: [O, ...]; float16 and bfloat16 are computed in float32 and rounded once.
        factors, rule: the edit.
        out: where the new weight goes, contiguous and of the same shape and dtype; may be `weight`.

    Returns:
        The weight in the shape and dtype of the old one, and |rounding error| / |change| (Frobenius norms).

    Raises:
        ValueError: the edit would put NaN or infinity into the weight; `out` is then partly written.
    """
    if out is None:
        out = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    target = out.view(len(out), -1)
    error = change = 0.0
    for rows, before, after in compose(weight, factors, rule):
        rounded = after.to(weight.dtype)
        if not torch.isfinite(rounded).all():
            raise ValueError(
                f"target {name!r}: the edit would put NaN or infinity into its {weight.dtype} weights"
            )
        if rounded.dtype != after.dtype:
            error += float((rounded.to(after.dtype) - after).square().sum(dtype=torch.float64))
            change += float((after - before).square().sum(dtype=torch.float64))
        target[rows] = rounded
    return out, math.sqrt(error / change) if change else 0.0


def write_weights(weights: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies all or nothing (an error in between puts the old bits back); returns the old values."""
    old = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        try:
            for name, weight in weights.items():
                weight.copy_(new[name])
        except BaseException:
            for name, weight in weights.items():
                weight.copy_(old[name])
            raise
    return old
