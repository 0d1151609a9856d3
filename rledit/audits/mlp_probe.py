"""A stronger probe, which no reward uses: a hidden layer on the features that the head reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from ..runtime import plain_modes, seeded
from .base import AuditData
from .probing import probe, standardized

METRIC_DISPLAYS.update(
    forget_mlp_probe_accuracy=MetricDisplay(
        "MLP probe accuracy", "MLP probe", percent=True, digits=2, direction=-1
    ),
    retain_mlp_probe_accuracy=MetricDisplay(
        "MLP probe accuracy on retained classes", "MLP probe, retain", percent=True, digits=2, direction=1
    ),
)


@dataclass(frozen=True)
class MLPProbe:
    """A network of one hidden layer on the features: ``<group>_mlp_probe_accuracy``.

    It finds what a linear probe cannot, such as classes that an edit has folded onto each other's rays; and
    since nothing is rewarded for deceiving it, it tells an edit that hides the class from one that was taught
    to deceive the linear probe. Standardized features, ReLU, Adam with a cosine schedule and weight decay.

    Args:
        groups: groups that are judged; by default all that the test samples have.
        hidden: units of the hidden layer.
        epochs: passes over the training samples.
        batch_size: samples per step.
        learning_rate: at the start.
        layers: also on what each edited layer makes: ``<layer>_<group>_mlp_probe_accuracy``.
    """

    groups: tuple[str, ...] = ()
    hidden: int = 256
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 2e-3
    layers: bool = False

    note: ClassVar[str] = (
        "The MLP probe has a hidden layer, and no edit is ever rewarded for deceiving it: what it recalls "
        "beyond the retrained network's is still there."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        predict = partial(_predict, self, data.seed)
        return probe("mlp_probe", predict, model, data, groups=self.groups, layers=self.layers)


def _predict(how: MLPProbe, seed: int, train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    with plain_modes(grad=True), seeded(seed, torch.device("cpu")):
        train, test = (part.float() for part in standardized(train, test))
        network = nn.Sequential(
            nn.Linear(train.shape[1], how.hidden), nn.ReLU(), nn.Linear(how.hidden, classes)
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=how.learning_rate, weight_decay=1e-3)
        batches = -(-len(train) // how.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.epochs * batches)
        for _ in range(how.epochs):
            for rows in torch.randperm(len(train)).split(how.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(network(train[rows]), labels[rows]).backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            predicted: Tensor = network(test).argmax(1)
        return predicted
