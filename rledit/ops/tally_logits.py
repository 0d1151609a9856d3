"""``tally_logits``: count finished logits per candidate and group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .counts import (
    INVALID_LOSS,
    Counts,
    Wanted,
    check_labels,
    check_samples,
    concordant_pairs,
    empty_counts,
)
from .loss_ranks import loss_bins, lower_loss_pairs
from .probe import PROBE_PARTS

SCHEMA = (
    "(Tensor logits, Tensor labels, Tensor groups, str[] wanted, int bins, float margin_limit) -> "
    "(Tensor correct, Tensor predicted, Tensor confusion, Tensor loss, Tensor histogram, "
    "Tensor concordant, Tensor recalled, Tensor nearest, Tensor lower_loss)"
)


def tally_logits_ref(
    logits: Tensor,  # [N, S, C] floating
    labels: Tensor,  # [S] int64 in 0..C-1
    groups: Tensor,  # [G, S] bool, G <= 64
    wanted: Sequence[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """Count predictions per group.

    The prediction is the first class with the largest logit. See :class:`rledit.ops.Wanted` for what is
    wanted, ``bins`` and ``margin_limit``.

    Raises:
        ValueError: for shapes that do not fit, labels out of range, an unknown part, margins of other than
            two classes, what needs features, or bins and a margin_limit that are not positive.
    """
    check_logits(logits, labels, groups, Wanted(wanted, bins, margin_limit))
    n, samples, classes = logits.shape
    check_labels(labels, classes)
    finite = logits.isfinite().all(-1)  # [N, S]
    predicted = logits.argmax(-1)  # [N, S]
    counted = finite[:, None] & groups  # [N, G, S]

    def count(key: Tensor, keys: int) -> Tensor:
        """How often each group has each key of 0..keys-1: [N, S] -> [N, G, keys]."""
        zeros = labels.new_zeros(n, len(groups), keys)
        return zeros.scatter_add_(2, key[:, None].expand(counted.shape), counted.to(torch.int64))

    correct = predictions = confusion = histogram = concordant = labels.new_empty(0)
    loss = correct.double()
    if "correct" in wanted:
        correct = (counted & (predicted == labels)[:, None]).sum(-1)
    if "predicted" in wanted:
        predictions = count(predicted, classes)
    if "confusion" in wanted:
        confusion = count(labels * classes + predicted, classes * classes).unflatten(2, (classes, classes))
    if "loss" in wanted:
        own = logits.double().gather(-1, labels.expand(n, samples)[..., None]).squeeze(-1)
        entropy = torch.where(finite, logits.double().logsumexp(-1) - own, INVALID_LOSS)  # [N, S]
        loss = entropy @ groups.double().T
    if "histogram" in wanted or "concordant" in wanted:
        margin = torch.where(finite, logits[..., 1] - logits[..., 0], 0)  # [N, S]
        place = bins_of(margin, bins, margin_limit)
        binned = count(labels * bins + place, 2 * bins).unflatten(2, (2, bins))
        if "histogram" in wanted:
            histogram = binned
        if "concordant" in wanted:
            concordant = concordant_pairs(binned)
    # A tensor each: outputs of an op must not share memory.
    recalled, nearest, lower_loss = (labels.new_empty(0) for _ in range(3))
    if "lower_loss" in wanted:
        lower_loss = lower_loss_pairs(loss_bins(logits, labels), groups)
    return Counts(correct, predictions, confusion, loss, histogram, concordant, recalled, nearest, lower_loss)


def bins_of(margins: Tensor, bins: int, margin_limit: float) -> Tensor:
    """The bin of each margin, int64 of the same shape; of NaN any. See :class:`rledit.ops.Wanted`."""
    position = (margins + margin_limit) * (bins / (2 * margin_limit))
    return position.nan_to_num().clamp(0, bins - 1).to(torch.int64)


def tally_logits(
    logits: Tensor,
    labels: Tensor,
    groups: Tensor,
    wanted: Sequence[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """The registered op: :func:`tally_logits_ref`, in C++ for float32 CPU tensors."""
    return Counts(*torch.ops.rledit.tally_logits(logits, labels, groups, wanted, bins, margin_limit))


def check_logits(logits: Tensor, labels: Tensor, groups: Tensor, wanted: Wanted) -> None:
    """Raise ValueError for shapes that do not fit, or parts that cannot be counted. Reads no values."""
    if logits.dim() != 3:
        raise ValueError(f"logits: expected shape [N, S, C], got {list(logits.shape)}")
    check_samples(labels, groups, logits.shape[1])
    if logits.shape[2] < 1:
        raise ValueError(f"logits: expected at least one class, got shape {list(logits.shape)}")
    wanted.check(logits.shape[2])
    if wanted.probes:
        part = next(part for part in wanted.parts if part in PROBE_PARTS)
        raise ValueError(f"wanted: {part} needs features, which tally_logits is not given")


def _fake(
    logits: Tensor, labels: Tensor, groups: Tensor, wanted: Sequence[str], bins: int, margin_limit: float
) -> Counts:
    asked = Wanted(wanted, bins, margin_limit)
    check_logits(logits, labels, groups, asked)
    return empty_counts(logits, logits.shape[0], groups.shape[0], logits.shape[2], asked)


torch.library.define("rledit::tally_logits", SCHEMA)
torch.library.register_fake("rledit::tally_logits", _fake)
