"""The retained class that fares worst, which a mean over all retained classes hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import RETAIN, AuditData
from .estimates import UNKNOWN, Estimate, mean, share

METRIC_DISPLAYS.update(
    worst_retained_accuracy=MetricDisplay(
        "accuracy of the worst retained class", "worst class", percent=True, digits=2, direction=1
    ),
    worst_retained_change=MetricDisplay(
        "largest loss of a retained class", "largest loss", percent=True, digits=2, direction=1
    ),
)


@dataclass(frozen=True)
class RetainedClasses:
    """Figures of the worst retained class on the test samples.

    ``worst_retained_accuracy`` is its accuracy; ``worst_retained_change`` the most negative change of a
    retained class against the unedited model, as a share (-0.02: two points lost), NaN without that model.
    Intervals are those of a class named beforehand: that it is the worst of several is not accounted for.
    """

    note: ClassVar[str] = (
        "The worst retained class, and the largest change of one against the unedited network, show what the "
        "mean over all retained classes hides."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        hits = _hits(model, data)
        before = None if data.unedited is None else _hits(data.unedited, data)
        accuracies: list[Estimate] = []
        changes: list[Estimate] = []
        retained = data.group(RETAIN)
        for label in data.test.labels[retained].unique().tolist():
            own = retained & (data.test.labels == label)
            accuracies.append(share(hits[own]))
            if before is not None:
                changes.append(mean(hits[own].double() - before[own].double(), least=-1, most=1))
        return {
            "worst_retained_accuracy": min(accuracies, default=UNKNOWN),
            "worst_retained_change": min(changes, default=UNKNOWN),
        }


def _hits(model: nn.Module, data: AuditData) -> Tensor:
    return data.read(model, data.test).predicted == data.test.labels
