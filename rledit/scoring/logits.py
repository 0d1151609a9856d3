"""What a network's logits are counted as."""

from __future__ import annotations

import torch
from torch import Tensor


def ruled_out(logits: Tensor) -> Tensor:
    """The logits with -inf, a class that the model rules out, replaced by a number below all others.

    The ops count a sample with a logit that is not finite as neither correct nor predicted, since that is
    what weights that blew up give. Where all logits of a sample are -inf no class is left, and they stay.
    """
    if logits.device.type == "cpu" and float(logits.min()) > -torch.inf:  # a GPU would have to be waited for
        return logits
    out = logits.isneginf()
    out &= ~out.all(-1, keepdim=True)
    return logits.masked_fill(out, torch.finfo(logits.dtype).min / 4)


def unsound(logits: Tensor) -> Tensor:
    """Which logits are unusable, bool in their shape: NaN, or overflowed to +inf; -inf rules a class out."""
    return logits.isnan() | logits.isposinf()
