"""The weights that an edit reads and writes: found in a model, seen as matrices, written all or none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def target_weights(model: nn.Module, targets: list[str]) -> dict[str, Tensor]:
    """The weight parameters of the named modules, checked to be editable in place."""
    modules = dict(model.named_modules())
    weights: dict[str, Tensor] = {}
    for name in targets:
        if name not in modules:
            known = [n for n, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)]
            raise ValueError(f"target {name!r}: the model has no such module; candidates: {listed(known)}")
        module = modules[name]
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise TypeError(f"target {name!r}: expected nn.Linear or nn.Conv2d, got {type(module).__name__}")
        weight = module._parameters.get("weight")
        if weight is None:  # weight_norm and parametrizations compute it anew, a write would be lost
            raise TypeError(
                f"target {name!r}: its weight is not a plain parameter; remove the parametrization first"
            )
        if nn.parameter.is_lazy(weight) or weight.is_meta:
            raise TypeError(f"target {name!r}: its weight has no values yet")
        if any(weight is other for other in weights.values()):
            raise ValueError(f"target {name!r}: shares its weight with another target; name only one of them")
        weights[name] = weight
    return weights


def as_matrix(name: str, weight: Tensor, rows: int, columns: int) -> Tensor:
    """The weight as [rows, columns] in the dtype of the arithmetic; may share memory with it."""
    if weight.dtype not in _DTYPES:
        raise TypeError(
            f"target {name!r}: expected weights of a floating dtype up to float64, got {weight.dtype}"
        )
    matrix = weight.flatten(1)
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


def listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
