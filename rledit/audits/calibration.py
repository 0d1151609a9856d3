"""Whether a model is as sure as it is right, on what it should retain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import RETAIN, AuditData
from .estimates import NORMAL, UNKNOWN, Estimate

METRIC_DISPLAYS.update(
    retain_calibration_error=MetricDisplay(
        "calibration error on retained classes", "calibration error", percent=True, digits=2, direction=-1
    ),
)


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error on the retained test samples: ``retain_calibration_error``.

    Args:
        bins: how many bins of equal width divide the confidence.
        resamples: bootstrap samples for the interval, drawn from the data's seed.

    Raises:
        ValueError: for no bins or fewer than 2 resamples.
    """

    bins: int = 15
    resamples: int = 200

    note: ClassVar[str] = (
        "The calibration error is the mean distance of confidence and accuracy on retained samples, in 15 "
        "bins of the confidence."
    )

    def __post_init__(self) -> None:
        if self.bins < 1 or self.resamples < 2:
            raise ValueError(
                f"bins, resamples: expected at least 1 and 2, got {self.bins} and {self.resamples}"
            )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        mask = data.group(RETAIN)
        if not bool(mask.any()):
            return {"retain_calibration_error": UNKNOWN}
        reading = data.read(model, data.test)
        confidence = reading.logits[mask].softmax(1).max(1).values
        right = reading.predicted[mask] == data.test.labels[mask]
        error = calibration_error(confidence, right, self.bins)
        generator = torch.Generator().manual_seed(data.seed)
        draws = []
        for _ in range(self.resamples):
            rows = torch.randint(len(right), (len(right),), generator=generator)
            draws.append(calibration_error(confidence[rows], right[rows], self.bins))
        # Resampled errors are too large on average, so their spread is taken and not their quantiles.
        half = NORMAL * float(torch.tensor(draws, dtype=torch.float64).std())
        return {"retain_calibration_error": Estimate(error, max(0.0, error - half), min(1.0, error + half))}


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    """The expected calibration error, 0..1: C. Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017, equation 3.

    Args:
        confidence: the largest probability of each sample [S], 0..1.
        right: bool [S], whether the prediction is right.
        bins: M, of equal width; a bin holds its upper end.

    Raises:
        ValueError: for no samples, or confidences outside 0..1.
    """
    if confidence.shape != right.shape or confidence.numel() == 0:
        raise ValueError(
            f"confidence, right: expected one of each per sample, got {list(confidence.shape)} and "
            f"{list(right.shape)}"
        )
    if not bool(((confidence >= 0) & (confidence <= 1 + 1e-9)).all()):
        raise ValueError("confidence: expected values in 0..1")
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    gap = confidence.double() - right.double()
    return float(torch.bincount(place, gap, minlength=bins).abs().sum()) / len(gap)
