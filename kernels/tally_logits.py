"""``tally_logits``: count finished logits."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rledit.ops.counts import Counts, Wanted

from .counting import count_tile, store_sums
from .launch import PROGRAMS, Outputs, power_of_two, programs, tuned

CONFIGS = [
    triton.Config({"BS": 64}, num_warps=4),
    triton.Config({"BS": 32}, num_warps=4),
    triton.Config({"BS": 128}, num_warps=8),
    triton.Config({"BS": 4}, num_warps=8),  # for a thousand classes
]


@tuned(
    key=["C", "G"],
    configs=CONFIGS,
    interpreted={"BS": 64},
    reset_to_zero=["predicted", "confusion", "histogram"],
)
@triton.jit
def tally_logits_kernel(
    logits,  # [N, S, C]
    labels,  # int64 [S]
    members,  # int64 [S]
    correct,  # int32 [N, P, G]
    loss,  # float64 [N, P, G]
    predicted,
    confusion,
    histogram,
    samples,
    candidates,
    parts,  # P
    margin_limit,
    bins_per_unit,
    C: tl.constexpr,
    G: tl.constexpr,
    GP: tl.constexpr,
    BC: tl.constexpr,
    BINS: tl.constexpr,
    LOSS: tl.constexpr,
    PREDICTED: tl.constexpr,
    CONFUSION: tl.constexpr,
    HISTOGRAM: tl.constexpr,
    BS: tl.constexpr,
):
    """One candidate at a time and every P-th tile of its samples."""
    classes = tl.arange(0, BC)
    for item in range(tl.program_id(0), candidates * parts, tl.num_programs(0)):
        part = item % parts
        n = (item // parts).to(tl.int64)
        hits = tl.zeros((GP,), tl.int32)
        losses = tl.zeros((GP,), tl.float64)
        for start in range(part * BS, samples, parts * BS):
            rows = start + tl.arange(0, BS)
            valid = rows < samples
            at = logits + (n * samples + rows)[:, None] * C + classes[None, :]
            tile = tl.load(at, mask=valid[:, None] & (classes < C)[None, :], other=0.0).to(tl.float32)
            hits, losses = count_tile(
                tile, rows, valid, labels, members,
                predicted + n * (G * C), confusion + n * (G * C * C), histogram + n * (2 * G * BINS),
                hits, losses, margin_limit, bins_per_unit,
                C, G, GP, BC, BINS, LOSS, PREDICTED, CONFUSION, HISTOGRAM,
            )  # fmt: skip
        store_sums(correct, loss, hits, losses, n * parts + part, G, GP)


def tally_logits(logits: Tensor, labels: Tensor, members: Tensor, groups: int, wanted: Wanted) -> Counts:
    """See :func:`rledit.ops.tally_logits_ref`. The caller has checked arguments and made tensors
    contiguous."""
    n, samples, classes = logits.shape
    parts = programs(samples, n)
    outputs = Outputs(n, parts, groups, classes, wanted, logits.device)
    if n and samples and groups:
        tally_logits_kernel[(min(n * parts, PROGRAMS),)](
            logits, labels, members, outputs.correct, outputs.loss, outputs.predicted,
            outputs.confusion, outputs.histogram, samples, n, parts, wanted.margin_limit,
            wanted.bins / (2 * wanted.margin_limit), classes, groups, power_of_two(groups, 1),
            power_of_two(classes, 2), wanted.bins, **outputs.flags,
        )  # fmt: skip
    else:
        outputs.nothing()
    return outputs.counts()
