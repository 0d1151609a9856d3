"""Device functions: a tile of edited weights, products of tiles, and the nonlinearities."""

from __future__ import annotations

import triton
import triton.language as tl

from .launch import INTERPRETED

# Triton's interpreter stores bfloat16 as integers, and would multiply those.
WIDENED = tl.constexpr(INTERPRETED)

# Nonlinearities by their numbers in rledit.kernels.score_tail.FUNCTIONS.
IDENTITY = tl.constexpr(0)
RELU = tl.constexpr(1)
GELU = tl.constexpr(2)
GELU_TANH = tl.constexpr(3)
TANH = tl.constexpr(4)
SILU = tl.constexpr(5)


@triton.jit
def edited_tile(
    weight,  # [O, I] of this candidate
    left,  # [O, R]
    right,  # [R, I]
    rows,  # [BO] which outputs
    columns,  # [BI] which inputs
    scale,
    O: tl.constexpr,
    I: tl.constexpr,
    R: tl.constexpr,  # 0: no edit
    BR: tl.constexpr,
    IS_MASK: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    """Float32 [BO, BI] of W + s (left @ right), or W * (1 + s (left @ right)); zeros outside."""
    inside = (rows < O)[:, None] & (columns < I)[None, :]
    tile = tl.load(weight + rows[:, None].to(tl.int64) * I + columns[None, :], mask=inside, other=0.0)
    tile = tile.to(tl.float32)
    if R > 0:
        delta = tl.zeros(tile.shape, tl.float32)
        for start in tl.range(0, R, BR):
            ranks = start + tl.arange(0, BR)
            a = tl.load(
                left + rows[:, None] * R + ranks[None, :],
                mask=(rows < O)[:, None] & (ranks < R)[None, :],
                other=0.0,
            )
            b = tl.load(
                right + ranks[:, None].to(tl.int64) * I + columns[None, :],
                mask=(ranks < R)[:, None] & (columns < I)[None, :],
                other=0.0,
            )
            delta += tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision=PRODUCTS)
        if IS_MASK:
            tile = tile * (1.0 + scale * delta)
        else:
            tile = tile + scale * delta
    return tile


@triton.jit
def product(a, b, OPERAND: tl.constexpr, PRODUCTS: tl.constexpr):
    """Float32 [M, N] = a [M, K] @ b [K, N], both rounded to OPERAND; tensor cores multiply 16-bit operands,
    and PRODUCTS says how float32 is multiplied."""
    a = a.to(OPERAND)
    b = b.to(OPERAND)
    if WIDENED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRODUCTS)


@triton.jit
def tanh(x):
    """By exp of a number that is never positive, so that it cannot overflow."""
    e = tl.exp(-2.0 * tl.abs(x))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -t, tl.where(x == x, t, x))


@triton.jit
def activate(x, FUNCTION: tl.constexpr):
    if FUNCTION == RELU:
        return tl.where(x <= 0, 0.0, x)  # keeps NaN
    if FUNCTION == GELU:
        return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
    if FUNCTION == GELU_TANH:
        return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    if FUNCTION == TANH:
        return tanh(x)
    if FUNCTION == SILU:
        return x / (1.0 + tl.exp(-x))
    return x
