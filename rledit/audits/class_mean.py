"""What the means of the classes' features still reveal about a forgotten class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import AuditData
from .probing import probe

METRIC_DISPLAYS.update(
    forget_class_mean_accuracy=MetricDisplay(
        "nearest class mean accuracy", "class mean", percent=True, digits=2, direction=-1
    ),
    retain_class_mean_accuracy=MetricDisplay(
        "nearest class mean accuracy on retained classes",
        "class mean, retain",
        percent=True,
        digits=2,
        direction=1,
    ),
)


@dataclass(frozen=True)
class ClassMean:
    """The nearest class mean as an audit: ``<group>_class_mean_accuracy``, over the group's test samples.

    T. Mensink et al., "Distance-Based Image Classification: Generalizing to New Classes at Near-Zero Cost",
    IEEE TPAMI 35, 2013, with Euclidean distances: the weakest of probes, which nothing has to be trained for.

    Args:
        groups: groups that are judged; by default all that the test samples have.
        layers: also on what each edited layer makes: ``<layer>_<group>_class_mean_accuracy``.
        batch_size: samples per forward pass.
    """

    groups: tuple[str, ...] = ()
    layers: bool = False
    batch_size: int = 250

    note: ClassVar[str] = (
        "The nearest class mean needs no training: a sample gets the class whose mean features are nearest."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        return probe(
            "class_mean",
            nearest_mean,
            model,
            data,
            groups=self.groups,
            layers=self.layers,
            batch_size=self.batch_size,
        )


def nearest_mean(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """The class whose mean is nearest, of those that have samples to learn from.

    Args:
        train: [S, D].
        labels: int64 [S], in 0..classes-1.
        test: [T, D].
        classes: C.

    Returns:
        Int64 [T].
    """
    count = torch.bincount(labels, minlength=classes).to(train)
    sums = train.new_zeros(classes, train.shape[1]).index_add_(0, labels, train)
    means = sums / count.clamp(min=1)[:, None]
    # |t - m|^2 without |t|^2, which is the same for all classes
    distance = means.square().sum(1) - 2 * test @ means.T
    distance[:, count == 0] = torch.inf
    return distance.argmin(1)
