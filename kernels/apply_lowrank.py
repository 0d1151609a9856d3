"""``apply_lowrank_``: expansion and application in one pass over the weights."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rledit.ops.rules import EditRule

from .edited import edited_tile
from .launch import RANKS, float32_products, tuned

CONFIGS = [
    triton.Config({"BO": 32, "BI": 64}, num_warps=4),
    triton.Config({"BO": 16, "BI": 128}, num_warps=4),
    triton.Config({"BO": 64, "BI": 64}, num_warps=8),
]


@tuned(key=["O", "I", "R"], configs=CONFIGS, interpreted={"BO": 32, "BI": 128}, restore_value=["weight"])
@triton.jit
def apply_lowrank_kernel(
    weight,  # [N, O, I], changed in place
    left,  # [N, O, R]
    right,  # [N, R, I]
    scale,
    O: tl.constexpr,
    I: tl.constexpr,
    R: tl.constexpr,
    IS_MASK: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BR: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
):
    """One tile of one candidate per program. Every tile is read once and written once."""
    across: tl.constexpr = (I + BI - 1) // BI
    tiles: tl.constexpr = (O + BO - 1) // BO * across
    n = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    rows = (tile // across) * BO + tl.arange(0, BO)
    columns = (tile % across) * BI + tl.arange(0, BI)
    weight += n * (O * I)
    edited = edited_tile(
        weight,
        left + n * (O * R),
        right + n * (R * I),
        rows,
        columns,
        scale,
        O,
        I,
        R,
        BR,
        IS_MASK,
        PRODUCTS,
    )
    at = weight + rows[:, None].to(tl.int64) * I + columns[None, :]
    tl.store(at, edited.to(weight.dtype.element_ty), mask=(rows < O)[:, None] & (columns < I)[None, :])


def apply_lowrank_(weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
    """See :func:`rledit.ops.apply_lowrank_ref`. The caller has checked shapes and made tensors contiguous."""
    n, o, i = weight.shape
    if weight.numel() == 0:
        return

    def grid(block: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(o, block["BO"]) * triton.cdiv(i, block["BI"]) * n,)

    apply_lowrank_kernel[grid](
        weight, left, right, rule.scale, o, i, left.shape[2], rule.kind == "mask", float32_products(), RANKS
    )
