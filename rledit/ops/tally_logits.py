"""``tally_logits``: count finished logits per candidate and group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .counts import INVALID_LOSS, MAX_GROUPS, Counts, check_wanted, empty_counts

SCHEMA = (
    "(Tensor logits, Tensor labels, Tensor groups, str[] wanted, int bins, float margin_limit) -> "
    "(Tensor correct, Tensor predicted, Tensor confusion, Tensor loss, Tensor histogram)"
)


def tally_logits_ref(
    logits: Tensor,  # [N, S, C] floating
    labels: Tensor,  # [S] int64 in 0..C-1
    groups: Tensor,  # [G, S] bool, G <= 64
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """Count predictions per group.

    The prediction is the first class with the largest logit. ``bins`` divide the margins in
    [-margin_limit, margin_limit] evenly; margins beyond fall into the outermost bins.

    Raises:
        ValueError: for shapes that do not fit, an unknown part, or a histogram of other than two classes.
    """
    check_logits(logits, labels, groups, wanted)
    classes = logits.shape[2]
    finite = logits.isfinite().all(-1)  # [N, S]
    predicted = F.one_hot(logits.argmax(-1), classes) * finite[..., None]  # [N, S, C]
    label = F.one_hot(labels, classes)  # [S, C]
    member = groups.to(torch.int64)  # [G, S]

    def wants(part: str) -> bool:
        return part in wanted

    nothing = labels.new_empty(0)
    correct = nothing
    if wants("correct"):
        correct = torch.einsum("nsc,sc,gs->ng", predicted, label, member)
    counted = torch.einsum("nsc,gs->ngc", predicted, member) if wants("predicted") else nothing
    confusion = torch.einsum("nsp,sl,gs->nglp", predicted, label, member) if wants("confusion") else nothing
    loss = nothing.to(torch.float64)
    if wants("loss"):
        entropy = logits.double().logsumexp(-1) - logits.double().gather(
            -1, labels.expand(logits.shape[0], -1)[..., None]
        ).squeeze(-1)  # [N, S]
        entropy = torch.where(finite, entropy, INVALID_LOSS)
        loss = torch.einsum("ns,gs->ng", entropy, member.double())
    histogram = nothing
    if wants("histogram"):
        margin = logits[..., 1] - logits[..., 0]  # [N, S]
        position = (margin.nan_to_num() + margin_limit) * (bins / (2 * margin_limit))
        index = position.clamp(0, bins - 1).to(torch.int64)
        binned = F.one_hot(index, bins) * finite[..., None]  # [N, S, bins]
        histogram = torch.einsum("nsb,sl,gs->nglb", binned, label, member)
    return Counts(correct, counted, confusion, loss, histogram)


def tally_logits(
    logits: Tensor,
    labels: Tensor,
    groups: Tensor,
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """The registered op: :func:`tally_logits_ref`, in C++ for float32 CPU tensors."""
    return Counts(*torch.ops.rledit.tally_logits(logits, labels, groups, wanted, bins, margin_limit))


def check_samples(labels: Tensor, groups: Tensor, samples: int) -> None:
    if labels.shape != (samples,) or labels.dtype != torch.int64:
        raise ValueError(f"labels: expected int64 [{samples}], got {labels.dtype} {list(labels.shape)}")
    if groups.dim() != 2 or groups.shape[1] != samples or groups.dtype != torch.bool:
        raise ValueError(f"groups: expected bool [G, {samples}], got {groups.dtype} {list(groups.shape)}")
    if groups.shape[0] > MAX_GROUPS:
        raise ValueError(f"groups: expected at most {MAX_GROUPS}, got {groups.shape[0]}")


def check_logits(logits: Tensor, labels: Tensor, groups: Tensor, wanted: list[str]) -> None:
    if logits.dim() != 3:
        raise ValueError(f"logits: expected shape [N, S, C], got {list(logits.shape)}")
    check_samples(labels, groups, logits.shape[1])
    check_wanted(wanted, logits.shape[2])


def _fake(
    logits: Tensor, labels: Tensor, groups: Tensor, wanted: list[str], bins: int, margin_limit: float
) -> Counts:
    check_logits(logits, labels, groups, wanted)
    return empty_counts(logits, logits.shape[0], groups.shape[0], logits.shape[2], wanted, bins)


torch.library.define("rledit::tally_logits", SCHEMA)
torch.library.impl("rledit::tally_logits", "CompositeExplicitAutograd")(tally_logits_ref)
torch.library.register_fake("rledit::tally_logits", _fake)
