"""``score_tail``: edit, run and count the last layers of a network in one pass.

A program handles one candidate and some tiles of samples. The last two layers never leave registers: a tile
of the hidden layer is computed, activated and immediately multiplied by its part of the last layer's weights,
so that only the logits of the tile's samples are kept. Layers before those two, if any, go through the
program's scratch buffer, as wide as the widest of them, which stays in the L2 cache. Nothing of size
[N, S, *] exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from rledit.ops.counts import Counts, Wanted
from rledit.ops.tail import Candidates, TailProblem

from .counting import count_tile, store_sums
from .edited import activate, edited_tile, product
from .launch import (
    MOST_SAMPLES,
    OPERANDS,
    PROGRAMS,
    RANKS,
    Outputs,
    float32_products,
    power_of_two,
    programs,
    tuned,
)

FUNCTIONS = {"identity": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "tanh": 4, "silu": 5}

CONFIGS = [
    triton.Config({"BS": 32, "BO": 32, "BI": 32}, num_warps=4),
    triton.Config({"BS": 64, "BO": 32, "BI": 32}, num_warps=8),
    triton.Config({"BS": 128, "BO": 32, "BI": 16}, num_warps=8),
    triton.Config({"BS": 16, "BO": 16, "BI": 16}, num_warps=8),  # for a thousand classes
]


@triton.jit
def layer_tile(
    x,  # [S, I] activations, or [BS, I] scratch
    x_rows,  # [BS] rows of it
    valid,  # [BS]
    weight,
    bias,
    left,
    right,
    columns,  # [BO] which outputs
    scale,
    O: tl.constexpr,
    I: tl.constexpr,
    R: tl.constexpr,
    BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    IS_MASK: tl.constexpr,
    PRODUCTS: tl.constexpr,
    OPERAND: tl.constexpr,
    BR: tl.constexpr,
    BS: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
):
    """Float32 [BS, BO] of function(x @ W'^T + bias); outputs beyond O are function(0)."""
    sums = tl.zeros((BS, BO), tl.float32)
    for start in tl.range(0, I, BI):
        inputs = start + tl.arange(0, BI)
        at = x + x_rows[:, None].to(tl.int64) * I + inputs[None, :]
        tile = tl.load(at, mask=valid[:, None] & (inputs < I)[None, :], other=0.0)
        edited = edited_tile(weight, left, right, columns, inputs, scale, O, I, R, BR, IS_MASK, PRODUCTS)
        sums += product(tile, tl.trans(edited), OPERAND, PRODUCTS)
    if BIAS:
        sums += tl.load(bias + columns, mask=columns < O, other=0.0).to(tl.float32)[None, :]
    return activate(sums, FUNCTION)


@tuned(
    key=["SIZES", "RANKS_OF", "G", "OPERAND"],
    configs=CONFIGS,
    interpreted={"BS": 64, "BO": 64, "BI": 128},
    reset_to_zero=["predicted", "confusion", "histogram"],
)
@triton.jit
def score_tail_kernel(
    activations,  # [S, SIZES[0]]
    labels,  # int64 [S]
    members,  # int64 [S]
    weights,  # per layer [O, I], or [N, O, I]
    strides,  # per layer: from one candidate's weights to the next one's, or 0
    biases,  # per layer [O], or anything
    lefts,  # per layer [N, O, R], or anything
    rights,  # per layer [N, R, I], or anything
    scratch,  # float32 [programs, 2, BS, WIDEST]
    correct,  # int32 [N, P, G]
    loss,  # float64 [N, P, G]
    predicted,
    confusion,
    histogram,
    samples,
    candidates,
    parts,  # P
    scale,
    margin_limit,
    bins_per_unit,
    SIZES: tl.constexpr,  # I of the first layer, then O of each
    RANKS_OF: tl.constexpr,  # per layer, 0: not edited
    BIASES: tl.constexpr,  # per layer: whether there is one
    FUNCTIONS_OF: tl.constexpr,  # per layer
    WIDEST: tl.constexpr,
    IS_MASK: tl.constexpr,
    PRODUCTS: tl.constexpr,
    OPERAND: tl.constexpr,
    G: tl.constexpr,
    GP: tl.constexpr,
    BC: tl.constexpr,
    BINS: tl.constexpr,
    LOSS: tl.constexpr,
    PREDICTED: tl.constexpr,
    CONFUSION: tl.constexpr,
    HISTOGRAM: tl.constexpr,
    BR: tl.constexpr,
    BS: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
):
    """One candidate at a time and every P-th tile of the samples."""
    LAYERS: tl.constexpr = len(RANKS_OF)
    C: tl.constexpr = SIZES[LAYERS]
    own = scratch + tl.program_id(0).to(tl.int64) * (2 * BS * WIDEST)
    classes = tl.arange(0, BC)
    for item in range(tl.program_id(0), candidates * parts, tl.num_programs(0)):
        part = item % parts
        n = (item // parts).to(tl.int64)
        hits = tl.zeros((GP,), tl.int32)
        losses = tl.zeros((GP,), tl.float64)
        for first in range(part * BS, samples, parts * BS):
            rows = first + tl.arange(0, BS)
            valid = rows < samples
            # What goes through scratch: all but the last two.
            x = activations
            x_rows = rows
            for k in tl.static_range(0, LAYERS - 2):
                to = own + (k % 2) * (BS * WIDEST)
                for start in tl.range(0, SIZES[k + 1], BO):
                    columns = start + tl.arange(0, BO)
                    tile = layer_tile(
                        x, x_rows, valid, weights[k] + n * strides[k], biases[k],
                        lefts[k] + n * (SIZES[k + 1] * RANKS_OF[k]), rights[k] + n * (RANKS_OF[k] * SIZES[k]),
                        columns, scale, SIZES[k + 1], SIZES[k], RANKS_OF[k], BIASES[k], FUNCTIONS_OF[k],
                        IS_MASK, PRODUCTS, OPERAND, BR, BS, BO, BI,
                    )  # fmt: skip
                    at = to + tl.arange(0, BS)[:, None] * SIZES[k + 1] + columns[None, :]
                    tl.store(at, tile, mask=(columns < SIZES[k + 1])[None, :] & valid[:, None])
                tl.debug_barrier()  # the next layer's threads read what these have written
                x = to
                x_rows = tl.arange(0, BS)
            K: tl.constexpr = LAYERS - 1
            weight = weights[K] + n * strides[K]
            left = lefts[K] + n * (C * RANKS_OF[K])
            right = rights[K] + n * (RANKS_OF[K] * SIZES[K])
            if LAYERS == 1:
                logits = layer_tile(
                    x, x_rows, valid, weight, biases[K], left, right, classes, scale, C, SIZES[K],
                    RANKS_OF[K], BIASES[K], FUNCTIONS_OF[K], IS_MASK, PRODUCTS, OPERAND, BR, BS, BC, BI,
                )  # fmt: skip
            else:
                H: tl.constexpr = LAYERS - 2
                logits = tl.zeros((BS, BC), tl.float32)
                for start in tl.range(0, SIZES[K], BO):
                    columns = start + tl.arange(0, BO)
                    hidden = layer_tile(
                        x, x_rows, valid, weights[H] + n * strides[H], biases[H],
                        lefts[H] + n * (SIZES[K] * RANKS_OF[H]), rights[H] + n * (RANKS_OF[H] * SIZES[H]),
                        columns, scale, SIZES[K], SIZES[H], RANKS_OF[H], BIASES[H], FUNCTIONS_OF[H],
                        IS_MASK, PRODUCTS, OPERAND, BR, BS, BO, BI,
                    )  # fmt: skip
                    hidden = tl.where((columns < SIZES[K])[None, :], hidden, 0.0)
                    edited = edited_tile(
                        weight, left, right, classes, columns, scale, C, SIZES[K], RANKS_OF[K], BR,
                        IS_MASK, PRODUCTS,
                    )  # fmt: skip
                    logits += product(hidden, tl.trans(edited), OPERAND, PRODUCTS)
                if BIASES[K]:
                    logits += tl.load(biases[K] + classes, mask=classes < C, other=0.0).to(tl.float32)[
                        None, :
                    ]
                logits = activate(logits, FUNCTIONS_OF[K])
            hits, losses = count_tile(
                logits, rows, valid, labels, members,
                predicted + n * (G * C), confusion + n * (G * C * C), histogram + n * (2 * G * BINS),
                hits, losses, margin_limit, bins_per_unit,
                C, G, GP, BC, BINS, LOSS, PREDICTED, CONFUSION, HISTOGRAM,
            )  # fmt: skip
            if LAYERS > 2:
                tl.debug_barrier()  # before the next tile overwrites what slower threads still read
        store_sums(correct, loss, hits, losses, n * parts + part, G, GP)


def score_tail(problem: TailProblem, members: Tensor, candidates: Candidates, wanted: Wanted) -> Counts:
    """See :func:`rledit.ops.score_tail_ref`. The caller has checked arguments and made tensors contiguous.

    Args:
        members: the groups as bits, see :func:`rledit.ops.gpu.member_bits`.
    """
    x, rule = problem.activations, candidates.rule
    samples, groups, classes = len(x), len(problem.groups), problem.classes
    weights = candidates.weights_in(problem.layers)
    sizes = (x.shape[1], *(weight.shape[-2] for weight in weights))
    parts = programs(samples, candidates.size)
    outputs = Outputs(candidates.size, parts, groups, classes, wanted, x.device)
    if not (candidates.size and samples and groups):
        outputs.nothing()
        return outputs.counts()
    widest = max(sizes[1:-2], default=0)
    started = min(candidates.size * parts, PROGRAMS)
    scratch = torch.empty(started * 2 * MOST_SAMPLES * widest, dtype=torch.float32, device=x.device)
    operands = OPERANDS[torch.bfloat16 if problem.precision == "bfloat16" else x.dtype]

    def or_any(tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        return tuple(x if tensor is None else tensor for tensor in tensors)

    score_tail_kernel[(started,)](
        x, problem.labels, members, tuple(weights),
        tuple(0 if weight.dim() == 2 else weight.stride(0) for weight in weights),
        or_any(problem.biases), or_any(candidates.lefts), or_any(candidates.rights), scratch,
        outputs.correct, outputs.loss, outputs.predicted, outputs.confusion, outputs.histogram,
        samples, candidates.size, parts, rule.scale, wanted.margin_limit,
        wanted.bins / (2 * wanted.margin_limit),
        sizes, tuple(0 if left is None else left.shape[2] for left in candidates.lefts),
        tuple(bias is not None for bias in problem.biases),
        tuple(FUNCTIONS[name] for name in problem.nonlinearities), widest, rule.kind == "mask",
        float32_products(), operands, groups, power_of_two(groups, 1), power_of_two(classes), wanted.bins,
        **outputs.flags, BR=RANKS,
    )  # fmt: skip
    return outputs.counts()
