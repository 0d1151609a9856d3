"""Which classes the forgotten samples are called instead."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import FORGET, AuditData
from .estimates import NORMAL, UNKNOWN, Estimate, proportion

METRIC_DISPLAYS.update(
    leak_rate=MetricDisplay("forgotten samples in one other class", "leak", percent=True, digits=2),
    leak_entropy=MetricDisplay("entropy of what forgotten samples are called", "spread", digits=3),
)


@dataclass(frozen=True)
class Leakage:
    """Leakage into neighboring classes, over the forgotten test samples.

    Figures: ``leak_rate``, the largest share of them that gets one and the same wrong class; and
    ``leak_entropy``, that of the distribution of predicted classes, in nats: 0 where all get one class, log C
    where they are spread evenly. Compare both with the retrained network.
    """

    note: ClassVar[str] = (
        "The share of forgotten samples in one other class, and the entropy of what they are called, show "
        "where they went: the retrained network shows where they belong without their class."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        forgotten = data.group(FORGET)
        predicted, labels = data.read(model, data.test).predicted[forgotten], data.test.labels[forgotten]
        if len(labels) == 0:
            return {"leak_rate": UNKNOWN, "leak_entropy": UNKNOWN}
        wrong = torch.bincount(predicted[predicted != labels], minlength=1)
        # Which class is chosen by the same samples, so the interval is that of a class named beforehand.
        rate = proportion(int(wrong.max()), len(labels))
        return {"leak_rate": rate, "leak_entropy": entropy(torch.bincount(predicted))}


def entropy(counts: torch.Tensor) -> Estimate:
    """Entropy of the distribution with these counts, nats, with the normal interval of the delta method (G.
    Miller, "Note on the bias of information estimates", 1955, without his correction)."""
    total = int(counts.sum())
    shares = counts.double()[counts > 0] / total
    surprise = -shares.log()
    value = float((shares * surprise).sum())
    variance = max(float((shares * surprise.square()).sum()) - value**2, 0.0) / total
    half = NORMAL * math.sqrt(variance)
    return Estimate(value, max(value - half, 0.0), value + half)
