"""How far a model is from the one that never saw the forgotten class, sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import FORGET, RETAIN, AuditData
from .estimates import UNKNOWN, mean, share

METRIC_DISPLAYS.update(
    forget_agreement_rate=MetricDisplay(
        "agreement with the retrained network, forgotten", "agreement", percent=True, digits=2, direction=1
    ),
    retain_agreement_rate=MetricDisplay(
        "agreement with the retrained network, retained",
        "agreement, retain",
        percent=True,
        digits=2,
        direction=1,
    ),
    forget_divergence=MetricDisplay(
        "divergence from the retrained network, forgotten", "divergence", direction=-1
    ),
    retain_divergence=MetricDisplay(
        "divergence from the retrained network, retained", "divergence, retain", direction=-1
    ),
)


@dataclass(frozen=True)
class Agreement:
    """Agreement with the retrained network, over the forgotten and over the retained test samples.

    Figures: ``<group>_agreement_rate``, the share that gets the same class from both; and
    ``<group>_divergence``, the mean Jensen-Shannon divergence of what both say, in nats, 0 to log 2 (J. Lin,
    "Divergence Measures Based on the Shannon Entropy", IEEE Transactions on Information Theory 37, 1991).
    NaN without a retrained network.
    """

    note: ClassVar[str] = (
        "Agreement and divergence compare with the network retrained from the same seed; two retrained "
        "networks of different seeds do not agree on all samples either."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        figures: dict[str, float] = {}
        for group in (FORGET, RETAIN):
            mask = data.group(group)
            if data.retrained is None or not bool(mask.any()):
                figures |= {f"{group}_agreement_rate": UNKNOWN, f"{group}_divergence": UNKNOWN}
                continue
            ours = data.read(model, data.test)
            theirs = data.read(data.retrained, data.test)
            if ours.logits.shape != theirs.logits.shape:
                raise ValueError(
                    f"retrained: expected a model with {ours.logits.shape[1]} logits, got "
                    f"{theirs.logits.shape[1]}"
                )
            figures[f"{group}_agreement_rate"] = share(ours.predicted[mask] == theirs.predicted[mask])
            divergence = jensen_shannon(ours.logits[mask], theirs.logits[mask])
            figures[f"{group}_divergence"] = mean(divergence, least=0, most=math.log(2))
        return figures


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of two softmaxes [S, C] of logits, nats, float64 [S]."""
    p, q = first.double().softmax(1), second.double().softmax(1)
    middle = (p + q) / 2

    def entropy(values: Tensor) -> Tensor:
        surprise: Tensor = -torch.special.xlogy(values, values)
        return surprise.sum(1)

    divergence = entropy(middle) - (entropy(p) + entropy(q)) / 2
    return divergence.clamp(min=0)  # rounding
