"""The weights that an edit reads and writes: found in a model, seen as matrices, written all or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..targets import as_matrix, find_targets

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def target_weights(model: nn.Module, targets: Sequence[str]) -> dict[str, Tensor]:
    """The weight parameters of the named modules, checked to be editable in place."""
    return {name: target.weight for name, target in find_targets(model, targets).items()}


def matrix_of(name: str, weight: Tensor, rows: int, columns: int) -> Tensor:
    """The weight as [rows, columns] in the dtype of the arithmetic; may share memory with it."""
    if weight.dtype not in _DTYPES:
        raise TypeError(
            f"target {name!r}: expected weights of a floating dtype up to float64, got {weight.dtype}"
        )
    matrix = as_matrix(weight)
    if tuple(matrix.shape) != (rows, columns):
        raise ValueError(
            f"target {name!r}: the edit expects a weight of {rows} x {columns}, got {tuple(weight.shape)}"
        )
    return matrix if weight.dtype == torch.float64 else matrix.to(torch.float32)


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
