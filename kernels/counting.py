"""Device functions: count a tile of logits, as rledit.ops.tally_logits_ref does, and store the sums."""

from __future__ import annotations

import triton
import triton.language as tl

INVALID_LOSS = tl.constexpr(3.4028234663852886e38)


@triton.jit
def store_sums(correct, loss, hits, losses, item, G: tl.constexpr, GP: tl.constexpr):
    """Store what a program has counted for an item (int64): one part of one candidate's samples."""
    groups = tl.arange(0, GP)
    out = item * G + groups
    tl.store(correct + out, hits, mask=groups < G)
    tl.store(loss + out, losses, mask=groups < G)


@triton.jit
def count_tile(
    logits,  # float32 [BS, BC]
    rows,  # [BS] which samples
    valid,  # [BS] whether there is such a sample
    labels_at,  # int64 [S]
    members_at,  # int64 [S], bit g: the sample is in group g
    predicted,  # int32 [G, C] of this candidate, added to
    confusion,  # int32 [G, C, C]
    histogram,  # int32 [G, 2, BINS]
    correct,  # int32 [GP], so far
    loss,  # float64 [GP], so far
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
):
    """Returns ``correct`` and ``loss`` with these samples added."""
    classes = tl.arange(0, BC)
    known = (classes < C)[None, :]
    number = tl.abs(logits) < float("inf")  # NaN is not below anything
    finite = (tl.min(tl.where(known, number.to(tl.int32), 1), axis=1) == 1) & valid
    logits = tl.where(finite[:, None], logits, 0.0)
    ranked = tl.where(known, logits, float("-inf"))
    prediction = tl.argmax(ranked, axis=1, tie_break_left=True)
    label = tl.load(labels_at + rows, mask=valid, other=0).to(tl.int32)
    bits = tl.load(members_at + rows, mask=valid, other=0)
    groups = tl.arange(0, GP)
    member = (((bits[:, None] >> groups[None, :].to(tl.int64)) & 1) == 1) & (groups < G)[None, :]
    counted = member & finite[:, None]
    correct += tl.sum((counted & (prediction == label)[:, None]).to(tl.int32), axis=0)
    if LOSS:
        # Float32 within the tile, where sums are short; float64 from there on.
        most = tl.max(ranked, axis=1)
        total = tl.sum(tl.exp(ranked - most[:, None]), axis=1)
        own = tl.sum(tl.where(classes[None, :] == label[:, None], logits, 0.0), axis=1)
        entropy = tl.log(total) + (most - own)
        loss += tl.sum(tl.where(counted, entropy[:, None], 0.0), axis=0).to(tl.float64)
        broken = (member & (valid & (finite == 0))[:, None]).to(tl.float64)
        loss += INVALID_LOSS * tl.sum(broken, axis=0)
    if PREDICTED:
        tl.atomic_add(predicted + groups[None, :] * C + prediction[:, None], 1, mask=counted, sem="relaxed")
    if CONFUSION:
        cell = groups[None, :] * (C * C) + (label * C + prediction)[:, None]
        tl.atomic_add(confusion + cell, 1, mask=counted, sem="relaxed")
    if HISTOGRAM:
        # Sums of one number and zeros: exact.
        margin = tl.sum(tl.where(classes[None, :] == 1, logits, 0.0), axis=1) - tl.sum(
            tl.where(classes[None, :] == 0, logits, 0.0), axis=1
        )
        place = (margin + margin_limit) * bins_per_unit
        place = tl.minimum(tl.maximum(place, 0.0), BINS - 1.0).to(tl.int32)
        cell = groups[None, :] * (2 * BINS) + (label * BINS + place)[:, None]
        tl.atomic_add(histogram + cell, 1, mask=counted, sem="relaxed")
    return correct, loss
