"""Readouts: how what a model gives becomes logits, one row per sample.

A readout is a module from a model's output and its inputs, tensors by name (a single one is called ""), to
logits [S, C]. What it computes is scored with
the network, so one that picks a position or a few classes spares all that is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .heads import logits_of
from .seen import ADDED

MASKS = ("attention_mask", "decoder_attention_mask")
"""Names of inputs that say which positions are real."""


class Readout(nn.Module):
    """The logits in what a model gives: a tensor, an object or a mapping with ``logits``, or a tuple that
    begins with them. Derive from it and override :meth:`forward` for another.
    """

    def forward(self, output: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits [S, C] of a model's output for some inputs."""
        return logits_of(output)


class OneLogit(Readout):
    """One logit z per sample, [S] or [S, 1], as the logits [0, z] of two classes: the same decisions, ranks
    and sigmoid. The zero comes from a Linear with fixed weights, so what can be scored as a tail still is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.0], [1.0]]))

    def forward(self, output: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        logits = logits_of(output)
        two: Tensor = self.linear(logits.unsqueeze(-1) if logits.dim() == 1 else logits)
        return two


class NextToken(Readout):
    """What a language model says next: its logits [S, T, V] at the last real position of each sample, of the
    tokens that answers may be.

    Labels are places in ``tokens``. Samples may be padded on either side.

    Args:
        tokens: the answers' tokens, C numbers; by default all V.
        mask: the name of the input that is 1 where a position is real, [S, T]; by default
            ``attention_mask``. Without such an input the last position is taken.

    Raises:
        ValueError: for fewer than two tokens, one twice, or a negative one.
    """

    def __init__(self, tokens: Sequence[int] | None = None, mask: str = MASKS[0]) -> None:
        super().__init__()
        self.mask = mask
        if tokens is not None:
            chosen = [int(token) for token in tokens]
            if len(chosen) < 2 or len(set(chosen)) != len(chosen) or min(chosen) < 0:
                raise ValueError(f"tokens: expected two or more different ones, got {chosen}")
            self.register_buffer("tokens", torch.tensor(chosen), persistent=False)
        else:
            self.tokens = None

    def forward(self, output: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        logits = logits_of(output)
        if self.mask in inputs:
            mask = inputs[self.mask]
            last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
            logits = logits[torch.arange(len(mask), device=mask.device), last]
        else:
            logits = logits[:, -1]
        return logits if self.tokens is None else logits[:, self.tokens]


def readout_for(output: Any) -> Readout | None:
    """The readout of an output that explains itself; None for plain logits [S, C].

    Raises:
        ValueError: for an output without logits, or logits that are neither [S, C], [S] nor [S, 1].
    """
    logits = logits_of(output)
    if logits.dim() == 1 or (logits.dim() == 2 and logits.shape[1] == 1):
        return OneLogit()
    return None if isinstance(output, Tensor) else Readout()


NAME = f"{ADDED}readout"
"""The name of the readout among a model's modules."""
