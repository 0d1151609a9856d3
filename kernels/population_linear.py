"""What a suffix computes at a shifted Linear layer for a whole population: one shared product plus a rank-R
correction per candidate, with the candidates folded into the batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .edited import product
from .launch import OPERANDS, RANKS, float32_products, tuned

CONFIGS = [
    triton.Config({"BS": 32, "BO": 64}, num_warps=4),
    triton.Config({"BS": 64, "BO": 64}, num_warps=4),
    triton.Config({"BS": 64, "BO": 128}, num_warps=8),
]


@tuned(key=["O", "R"], configs=CONFIGS, interpreted={"BS": 32, "BO": 64})
@triton.jit
def population_linear_kernel(
    shared,  # [S, O], what the unedited layer gives
    reduced,  # [S, N, R], x right^T of all candidates
    left,  # [N, O, R]
    out,  # [N, S, O]
    samples,
    candidates,
    scale,
    O: tl.constexpr,
    R: tl.constexpr,
    PRODUCTS: tl.constexpr,
    OPERAND: tl.constexpr,
    BR: tl.constexpr,
    BS: tl.constexpr,
    BO: tl.constexpr,
):
    """One tile of one candidate per program: a load, a small product and a store."""
    across: tl.constexpr = (O + BO - 1) // BO
    tiles = (samples + BS - 1) // BS * across
    n = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    rows = (tile // across) * BS + tl.arange(0, BS)
    columns = (tile % across) * BO + tl.arange(0, BO)
    inside = (rows < samples)[:, None] & (columns < O)[None, :]
    sums = tl.zeros((BS, BO), tl.float32)
    for start in tl.range(0, R, BR):
        ranks = start + tl.arange(0, BR)
        u = tl.load(
            reduced + (rows[:, None].to(tl.int64) * candidates + n) * R + ranks[None, :],
            mask=(rows < samples)[:, None] & (ranks < R)[None, :],
            other=0.0,
        )
        v = tl.load(
            left + (n * O + columns[None, :]) * R + ranks[:, None],
            mask=(columns < O)[None, :] & (ranks < R)[:, None],
            other=0.0,
        )
        sums += product(u, v, OPERAND, PRODUCTS)
    at = rows[:, None].to(tl.int64) * O + columns[None, :]
    base = tl.load(shared + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + n * samples * O + at, (base + scale * sums).to(out.dtype.element_ty), mask=inside)


def population_linear(
    shared: Tensor, reduced: Tensor, left: Tensor, scale: float, precision: str = "float32"
) -> Tensor:
    """``shared[s] + scale * reduced[s, n] @ left[n]^T``.

    Args:
        shared: [S, O], contiguous.
        reduced: [S, N, R], contiguous.
        left: [N, O, R], contiguous.

    Returns:
        [N, S, O] in the dtype of ``shared``.
    """
    samples, outputs = shared.shape
    candidates, rank = reduced.shape[1:]
    out = shared.new_empty(candidates, samples, outputs)
    if out.numel() == 0:
        return out

    def grid(block: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(samples, block["BS"]) * triton.cdiv(outputs, block["BO"]) * candidates,)

    population_linear_kernel[grid](
        shared, reduced, left, out, samples, candidates, scale, outputs, rank, float32_products(),
        OPERANDS[torch.bfloat16 if precision == "bfloat16" else shared.dtype], RANKS,
    )  # fmt: skip
    return out
