"""The factors of an edit: left and right of each target, checked."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

Factors: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Module name -> (left [O, R], right [R, I]), or both with T first."""


def checked_pair(name: str, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Private contiguous copies of left and right, or an error that names what is wrong."""
    if not name:
        raise ValueError("factors: expected module names, got an empty name")
    left, right = pair
    for side, factor in (("left", left), ("right", right)):
        if not isinstance(factor, Tensor) or factor.dtype != torch.float32:
            got = factor.dtype if isinstance(factor, Tensor) else type(factor).__name__
            raise TypeError(f"factors[{name!r}].{side}: expected a float32 tensor, got {got}")
        if factor.dim() not in (2, 3):
            raise ValueError(
                f"factors[{name!r}].{side}: expected 2 or 3 dimensions, got {tuple(factor.shape)}"
            )
        if not torch.isfinite(factor).all():
            raise ValueError(f"factors[{name!r}].{side}: expected finite values, got NaN or infinity")
    shapes = f"left {tuple(left.shape)} and right {tuple(right.shape)}"
    rank = left.shape[-1]
    if left.dim() != right.dim() or left.shape[:-2] != right.shape[:-2] or right.shape[-2] != rank:
        raise ValueError(
            f"factors[{name!r}]: expected left [O, R] and right [R, I], or both with T first; got {shapes}"
        )
    if not 1 <= rank <= min(left.shape[-2], right.shape[-1]) or left.shape[0] == 0:
        raise ValueError(
            f"factors[{name!r}]: expected 1 <= rank <= min(O, I) and at least one step, got {shapes}"
        )
    copies = [f.detach().cpu().clone(memory_format=torch.contiguous_format) for f in (left, right)]
    return copies[0], copies[1]
