"""The weights that an edit reads and writes: found, checked, computed, and written all or none."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..ops import apply_lowrank_
from ..ops.rules import EditRule
from ..storage.fingerprint import dtype_name
from ..storage.tensors import StoredTensor
from ..targets import as_matrix, find_targets, is_editable, unwrapped

Weight: TypeAlias = Tensor | StoredTensor
"""[O, ...], in memory or in a file."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LOST = 0.5  # of an edit, to the rounding of a half type: beyond that, a warning
_BLOCK = 1 << 20  # values of a matrix that are computed at a time, so that a large one needs no copies of it

Pair: TypeAlias = tuple[Tensor, Tensor]
"""left [T, O, R] and right [T, R, I], or the same without T."""


def target_weights(model: nn.Module, targets: Sequence[str]) -> dict[str, Tensor]:
    """The weight parameters of the named modules, checked to be editable in place."""
    return {name: target.weight for name, target in find_targets(model, targets).items()}


def usable_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights of modules that could be edited, by the first name of the module."""
    weights = {
        name: module._parameters.get("weight")
        for name, module in unwrapped(model).named_modules()
        if is_editable(module)
    }
    return {
        name: weight
        for name, weight in weights.items()
        if weight is not None and not nn.parameter.is_lazy(weight) and not weight.is_meta
    }


def check_weight(name: str, weight: Weight, factors: Pair) -> None:
    """Raise unless the weight is finite, of a floating dtype and of the size that the factors edit."""
    rows, columns = factors[0].shape[-2], factors[1].shape[-1]
    if isinstance(weight, Tensor) and weight.is_meta:
        raise ValueError(f"target {name!r}: expected weights with values, got some on the meta device")
    if weight.dtype not in _DTYPES:
        raise TypeError(
            f"target {name!r}: expected weights of a floating dtype up to float64, got {weight.dtype}"
        )
    if len(weight.shape) < 2 or (weight.shape[0], math.prod(weight.shape[1:])) != (rows, columns):
        raise ValueError(
            f"target {name!r}: the edit expects a weight of {rows} x {columns}, got {tuple(weight.shape)}"
        )
    for part in _blocks(rows, columns):
        if not torch.isfinite(weight[part]).all():
            raise ValueError(f"target {name!r}: the weights hold NaN or infinity; expected finite weights")


def compose(weight: Weight, factors: Pair, rule: EditRule) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some rows of the matrix at a time, before and after the edit.

    Rows are float32 (float64 for float64 weights), before any rounding to a half type. Rules that the
    compiled cores know change every row by itself; any other rule may not, so it gets all rows at once.
    """
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    left, right = (f.reshape(-1, *f.shape[-2:]) for f in factors)
    rows, columns = left.shape[1], right.shape[2]
    for part in _blocks(rows, columns) if rule.fused else [slice(0, rows)]:
        before = as_matrix(weight[part].detach()).to(dtype)
        after = before.clone(memory_format=torch.contiguous_format)
        with torch.autocast(after.device.type, enabled=False):  # whatever the caller is in
            for t in range(len(left)):
                factors = left[None, t, part].to(after), right[None, t].to(after)
                apply_lowrank_(after[None], *factors, rule.kind, rule.scale)
        yield before, after


class Rounding:
    """How much of an edit the rounding to a half type takes away, summed over what is written."""

    def __init__(self) -> None:
        self._error = self._change = 0.0

    def add(self, before: Tensor, after: Tensor, rounded: Tensor) -> None:
        self._error += float((rounded.to(after.dtype) - after).square().sum(dtype=torch.float64))
        self._change += float((after - before).square().sum(dtype=torch.float64))

    @property
    def share(self) -> float:
        """|rounding error| / |change|, in Frobenius norms."""
        return math.sqrt(self._error / self._change) if self._change else 0.0


def edited_rows(
    name: str, weight: Weight, factors: Pair, rule: EditRule, warn: bool = False
) -> Iterator[Tensor]:
    """The new weight as a matrix in the dtype of the old one, some rows at a time.

    Args:
        name: name of the target, for errors.
        weight: [O, ...]; float16 and bfloat16 are computed in float32 and rounded once.
        factors, rule: the edit.
        warn: say so where rounding takes away half of the edit or more.

    Raises:
        ValueError: the edit would put NaN or infinity into the weight.
    """
    rounding = Rounding()
    for before, after in compose(weight, factors, rule):
        rounded = after.to(weight.dtype)
        if not torch.isfinite(rounded).all():
            raise ValueError(
                f"target {name!r}: the edit would put NaN or infinity into its {weight.dtype} weights"
            )
        if warn:
            rounding.add(before, after, rounded)
        yield rounded
    if warn and rounding.share >= _LOST:
        warnings.warn(
            f"target {name!r}: rounding to {dtype_name(weight.dtype)} changes the edit by "
            f"{rounding.share:.0%} of its size; it may do less than it did where it was learned",
            stacklevel=2,
        )


def from_rows(parts: Iterable[Tensor], like: Tensor) -> Tensor:
    """One contiguous tensor of the shape, dtype and device of ``like`` [O, ...], from a matrix some rows at a
    time."""
    new = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    matrix, row = as_matrix(new), 0
    for part in parts:
        matrix[row : row + len(part)] = part
        row += len(part)
    return new


def _blocks(rows: int, columns: int) -> list[slice]:
    size = max(1, _BLOCK // max(1, columns))
    return [slice(start, start + size) for start in range(0, rows, size)]


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
