"""``apply_lowrank_``: edit a batch of weight matrices in place by low-rank factors."""

from __future__ import annotations

import torch
from torch import Tensor

from .rules import EditRule, check_kind

SCHEMA = "(Tensor(a!) weight, Tensor left, Tensor right, str world, float scale) -> ()"


def apply_lowrank_ref(
    weight: Tensor,  # [N, O, I], changed in place
    left: Tensor,  # [N, O, R]
    right: Tensor,  # [N, R, I]
    world: str,
    scale: float,
) -> None:
    """Edit ``weight`` in place.

    The formulas are those of :data:`rledit.ops.rules.KINDS`. The factors are LoRA's B and A (Hu et al. 2021,
    arXiv:2106.09685, section 4.1).

    Raises:
        ValueError: for an unknown world, or shapes that do not fit.
    """
    rule = EditRule(check_kind(world), scale)
    check_factors(weight, left, right)
    rule.edit_(weight, left, right)


def apply_lowrank_(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
    """The registered op: :func:`apply_lowrank_ref`, in C++ for float32 CPU tensors."""
    torch.ops.rledit.apply_lowrank_(weight, left, right, world, scale)


def check_factors(weight: Tensor, left: Tensor, right: Tensor) -> None:
    """Raise ValueError unless the shapes are [N, O, I], [N, O, R] and [N, R, I]."""
    if weight.dim() != 3:
        raise ValueError(f"weight: expected shape [N, O, I], got {list(weight.shape)}")
    n, o, i = weight.shape
    if left.dim() != 3 or left.shape[0] != n or left.shape[1] != o:
        raise ValueError(f"left: expected shape [{n}, {o}, R], got {list(left.shape)}")
    if right.shape != (n, left.shape[2], i):
        raise ValueError(f"right: expected shape [{n}, {left.shape[2]}, {i}], got {list(right.shape)}")


def _fake(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
    check_kind(world)
    check_factors(weight, left, right)


torch.library.define("rledit::apply_lowrank_", SCHEMA)
torch.library.register_fake("rledit::apply_lowrank_", _fake)
