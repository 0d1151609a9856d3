"""The float64 truth, and which counts are as good as it.

Every opponent rounds in its own order, so a sample whose two largest logits nearly tie may be counted
either way. How near is measured, not assumed: the largest deviation of the plain network's logits in the
precision from those in float64, over a few candidates. Two logits deviate, and another order of rounding
may do twice as badly, so the samples within four such deviations of a tie are allowed to go either way. All
others must be counted right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .shapes import Problem, logits_of

SAFETY = 4.0
MEASURED = 4  # candidates that the deviation is taken from


@dataclass(frozen=True)
class Truth:
    """What float64 says of every sample of every candidate."""

    masks: Tensor  # [S, G] float32
    right: Tensor  # [N, S] bool: predicted right
    margin: Tensor  # [N, S] float32: the largest logit less the next one

    @property
    def counts(self) -> Tensor:
        """[N, G] int64."""
        return _count(self.right, self.masks)

    def band(self, tolerance: float) -> float:
        """The share of samples that a tolerance leaves open."""
        return float((self.margin <= tolerance).float().mean())

    def check(self, who: str, counts: Tensor, tolerance: float) -> None:
        """Raise SystemExit if the counts cannot be explained by samples within ``tolerance`` of a tie."""
        sure = self.margin[: len(counts)] > tolerance
        least = _count(self.right[: len(counts)] & sure, self.masks)
        most = least + _count(~sure, self.masks)
        wrong = ((counts < least) | (counts > most)).any(1)
        if bool(wrong.any()):
            n = int(wrong.nonzero()[0])
            raise SystemExit(
                f"{who}: the counts of {int(wrong.sum())} of {len(counts)} candidates are wrong, first of "
                f"candidate {n}: {counts[n].tolist()}, expected {least[n].tolist()} to {most[n].tolist()}"
            )


def truth(problem: Problem) -> Truth:
    """Score every candidate in float64."""
    shape = problem.shape
    right = torch.empty(shape.candidates, shape.samples, dtype=torch.bool)
    margin = torch.empty(shape.candidates, shape.samples)
    with torch.inference_mode():
        for n in range(shape.candidates):
            logits = logits_of(problem, n, torch.float64)
            top = logits.topk(2, 1)
            right[n] = top.indices[:, 0] == problem.labels
            margin[n] = top.values[:, 0] - top.values[:, 1]
    return Truth(problem.masks, right, margin)


def tolerance(problem: Problem, precision: str) -> float:
    """How near to a tie a sample may be counted either way in this precision."""
    last = problem.shape.candidates - 1
    some = sorted({round(last * i / (MEASURED - 1)) for i in range(MEASURED)})
    with torch.inference_mode():
        deviation = max(
            float((logits_of(problem, n, getattr(torch, precision)).double()
                   - logits_of(problem, n, torch.float64)).abs().max())
            for n in some
        )  # fmt: skip
    return SAFETY * deviation


def _count(hits: Tensor, masks: Tensor) -> Tensor:
    return (hits.float() @ masks).long()
