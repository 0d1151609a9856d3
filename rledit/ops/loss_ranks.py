"""Whose loss is lower: cross-entropy in bins, and pairs of samples of two groups ranked by it.

The loss attack of membership inference (S. Yeom et al., "Privacy risk in machine learning", CSF 2018,
arXiv:1709.01604) takes a sample of low loss for one that the network was trained on. How well it tells two
groups apart is an AUC of their losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOSS_BINS = 4096
"""Bins of the odds against the label, t = sum over j != y of exp(z_j - z_y), from which the cross-entropy
follows as log(1 + t). It rises with t, and unlike the loss itself t is as precise for a sample that the
network is sure of as for any other. 64 bins an octave, evenly by t, for t of 2^-40 (a loss of 9e-13) to 2^24
(16.6); the outermost take the rest."""

HISTOGRAM_BYTES = 256 << 20
"""Bytes of histograms, and what is made of them, held at a time (or those of one candidate)."""

BINS_PER_OCTAVE = 64
LOWEST_OCTAVE = -40

_SHIFT = 23 - 6  # of float32's 23 bits of mantissa the upper 6 stay
_LOWEST = (127 + LOWEST_OCTAVE) * BINS_PER_OCTAVE  # 127: float32's bias of the exponent


def loss_bins(logits: Tensor, labels: Tensor) -> Tensor:
    """The bin of each sample's loss, int64 [N, S] in 0..:data:`LOSS_BINS` - 1, higher for a higher loss.

    A sample with a logit that is not finite is in the last.

    Args:
        logits: [N, S, C] floating.
        labels: int64 [S] in 0..C-1.
    """
    z = logits.double()
    index = labels.expand(z.shape[:2])[..., None]
    behind = (z - z.gather(-1, index)).exp().scatter(-1, index, 0.0)
    bits = behind.sum(-1).float().view(torch.int32).long() >> _SHIFT  # of a positive float they rise with it
    bins = (bits - _LOWEST).clamp(0, LOSS_BINS - 1)
    return torch.where(z.isfinite().all(-1), bins, LOSS_BINS - 1)


def lower_loss_pairs(bins: Tensor, groups: Tensor) -> Tensor:
    """How often a sample of one group has a lower loss than one of another.

    Twice a U statistic, as :func:`rledit.ops.concordant_pairs` is: over pairs of a sample of the first group
    and one of the second, 2 where the first's loss is in a lower bin and 1 where it is in the same. Divided
    by twice the number of pairs it is an AUC.

    Args:
        bins: int64 [N, S] of :func:`loss_bins`.
        groups: bool [G, S].

    Returns:
        int64 [N, G, G].
    """
    each = 5 * 8 * LOSS_BINS * max(1, len(groups))  # three tables of 8 bytes, and two in float64
    return torch.cat([_pairs(some, groups) for some in bins.split(max(1, HISTOGRAM_BYTES // each))])


def _pairs(bins: Tensor, groups: Tensor) -> Tensor:
    n, count = len(bins), len(groups)
    histogram = bins.new_zeros(n, count, LOSS_BINS)
    member = groups.to(torch.int64).expand(n, -1, -1)
    histogram.scatter_add_(2, bins[:, None].expand(member.shape), member)
    above = 2 * (histogram.flip(-1).cumsum(-1).flip(-1) - histogram) + histogram
    return torch.einsum("nab,ncb->nac", histogram.double(), above.double()).to(torch.int64)
