"""How few images bring a forgotten class back: a head of class means, made from 1 to 10 of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import FORGET, AuditData
from .class_mean import nearest_mean
from .estimates import UNKNOWN, mean

SHOTS = (1, 2, 5, 10)

METRIC_DISPLAYS.update(
    {
        f"forget_{shots}_shot_accuracy": MetricDisplay(
            f"accuracy after {shots} image{'s' if shots > 1 else ''} per class",
            f"{shots}-shot",
            percent=True,
            digits=2,
            direction=-1,
        )
        for shots in SHOTS
    }
)


@dataclass(frozen=True)
class FewShot:
    """Relearning from k images of each class: ``forget_<k>_shot_accuracy``, on the forgotten test samples.

    The head is replaced by the classes' mean features over k training samples each, the classes to forget
    among them: J. Snell, K. Swersky, R. Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017,
    equation 1. The figure is the mean over draws of the images, its interval that of this mean.

    Args:
        shots: numbers k of images.
        draws: how many times the images are drawn, from the data's seed.

    Raises:
        ValueError: for a number below 1.
    """

    shots: tuple[int, ...] = SHOTS
    draws: int = 20

    note: ClassVar[str] = (
        "The accuracy after k images per class is what a head of class means recalls of the forgotten class "
        "when it was made from that few images, the class among them: relearning without any training."
    )

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or self.draws < 1:
            raise ValueError(
                f"shots, draws: expected numbers of at least 1, got {list(self.shots)} and {self.draws}"
            )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        forgotten = data.group(FORGET)
        labels = data.test.labels[forgotten]
        figures: dict[str, float] = {f"forget_{shots}_shot_accuracy": UNKNOWN for shots in self.shots}
        if len(labels) == 0:
            return figures
        train = data.read(model, data.train).features()
        test = data.read(model, data.test).features()[forgotten]
        count = torch.bincount(data.train.labels, minlength=data.classes)
        generator = torch.Generator().manual_seed(data.seed)
        for shots in self.shots:
            if int(count[labels].min()) < shots:
                continue  # unknown
            recalls = []
            for _ in range(self.draws):
                drawn = _draw(data.train.labels, shots, generator)
                found = nearest_mean(train[drawn], data.train.labels[drawn], test, data.classes)
                recalls.append((found == labels).double().mean())
            figures[f"forget_{shots}_shot_accuracy"] = mean(torch.stack(recalls), least=0, most=1)
        return figures


def _draw(labels: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """Indices of ``shots`` random samples of each class that has as many."""
    order = torch.randperm(len(labels), generator=generator)
    drawn = []
    for label in labels.unique().tolist():
        own = order[labels[order] == label]
        if len(own) >= shots:
            drawn.append(own[:shots])
    return torch.cat(drawn)
