"""What a fresh linear classifier still recalls from a network's last features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from ..runtime import plain_modes
from ..samples import Samples
from .base import AuditData
from .features import last_features

WEIGHT_DECAY = 1e-4
STEPS = 100

METRIC_DISPLAYS.update(
    forget_probe_accuracy=MetricDisplay("probe accuracy", "probe", percent=True, digits=2, direction=-1),
    retain_probe_accuracy=MetricDisplay(
        "probe accuracy on retained classes", "probe, retain", percent=True, digits=2, direction=1
    ),
)


@dataclass(frozen=True)
class LinearProbe:
    """:func:`linear_probe` as an audit: ``<group>_probe_accuracy``, over the group's test samples.

    Args:
        groups: which; by default all that the test samples have.
        batch_size: samples per forward pass.
    """

    groups: tuple[str, ...] = ()
    batch_size: int = 1000

    note: ClassVar[str] = (
        "The probe accuracy is what a fresh linear classifier on the last features still recalls of the "
        "forgotten class: compare it with the network retrained without the class."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        labels = data.test.labels
        hits = labels == _predict(
            model, data.train, data.train.labels, data.test, labels, data.classes, self.batch_size
        )
        masks = data.test.groups
        return {
            f"{group}_probe_accuracy": float(hits[masks[group]].double().mean())
            if group in masks
            else math.nan
            for group in self.groups or masks
        }


def linear_probe(
    model: nn.Module,
    train_inputs: Tensor,
    train_labels: Tensor,
    test_inputs: Tensor,
    test_labels: Tensor,
    classes: int,
    *,
    batch_size: int = 1000,
) -> Tensor:
    """How well a fresh linear classifier recalls each class from the model's last features.

    Multinomial logistic regression on what the model's head reads (:func:`last_features`), trained with all
    classes (G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes",
    arXiv:1610.01644). A forgotten class that the probe still recalls has lost its name, not its trace;
    compare with a network that was trained without the class.

    Args:
        model: put in eval mode meanwhile.
        train_inputs: [S, ...], what the probe learns from.
        train_labels: int64 [S], in 0..C-1.
        test_inputs: what it is judged on.
        test_labels: theirs.
        classes: C.
        batch_size: samples per forward pass.

    Returns:
        Recall of each class on the test inputs, float64 [C]; NaN for a class without samples.

    Raises:
        ValueError: if no Linear makes the model's logits, its features are not finite, or labels do not fit
            the inputs or the classes.
    """
    predicted = _predict(model, train_inputs, train_labels, test_inputs, test_labels, classes, batch_size).to(
        test_labels.device
    )
    hits = torch.bincount(test_labels[predicted == test_labels], minlength=classes)
    return hits.double() / torch.bincount(test_labels, minlength=classes).double()


def _predict(
    model: nn.Module,
    train_inputs: Tensor | Samples,
    train_labels: Tensor,
    test_inputs: Tensor | Samples,
    test_labels: Tensor,
    classes: int,
    batch_size: int,
) -> Tensor:
    """The classes that the probe predicts, int64 [S] on the CPU."""
    _check_labels("train_labels", train_labels, len(train_inputs), classes)
    _check_labels("test_labels", test_labels, len(test_inputs), classes)
    if len(train_inputs) < 2:
        raise ValueError(f"train_inputs: expected at least 2 samples, got {len(train_inputs)}")
    train = last_features(model, train_inputs, batch_size)
    test = last_features(model, test_inputs, batch_size)
    if not bool(train.isfinite().all() and test.isfinite().all()):
        raise ValueError("model: its features are not finite")
    with plain_modes():
        mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
        probe = _fit((train - mean) / std, train_labels.to(train.device), classes)
        return ((test - mean) / std @ probe[:-1] + probe[-1]).argmax(1).cpu()


def _check_labels(name: str, labels: Tensor, count: int, classes: int) -> None:
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected shape [{count}], one per input, got {list(labels.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"{name}: expected int64, got {labels.dtype}")
    if len(unknown := labels[(labels < 0) | (labels >= classes)]):
        raise ValueError(f"{name}: expected classes 0..{classes - 1}, got {int(unknown[0])}")


def _fit(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Weights [D + 1, C], the last row the bias, by L-BFGS from zero: convex, so nothing is random."""
    with plain_modes(grad=True):
        shape = (features.shape[1] + 1, classes)
        weights = torch.zeros(shape, dtype=features.dtype, device=features.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(features @ weights[:-1] + weights[-1], labels)
            value = value + WEIGHT_DECAY * weights[:-1].square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return weights.detach()
