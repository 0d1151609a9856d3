"""What a fresh linear classifier still recalls from a network's last features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..heads import last_features
from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from ..runtime import plain_modes
from .base import AuditData
from .probing import check_labels, probe, standardized

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
        groups: groups that are judged; by default all that the test samples have.
        batch_size: samples per forward pass.
        layers: also probe what each edited layer makes: ``<layer>_<group>_probe_accuracy``.
    """

    groups: tuple[str, ...] = ()
    batch_size: int = 250
    layers: bool = False

    note: ClassVar[str] = (
        "The probe accuracy is what a fresh linear classifier on the last features still recalls of the "
        "forgotten class: compare it with the network retrained without the class."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        options = {"groups": self.groups, "layers": self.layers, "batch_size": self.batch_size}
        return probe("probe", logistic_regression, model, data, **options)  # type: ignore[arg-type]


def linear_probe(
    model: nn.Module,
    train_inputs: Tensor,
    train_labels: Tensor,
    test_inputs: Tensor,
    test_labels: Tensor,
    classes: int,
    *,
    batch_size: int = 250,
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
        test_labels: labels of the test inputs, int64 [T].
        classes: C.
        batch_size: samples per forward pass.

    Returns:
        Recall of each class on the test inputs, float64 [C]; NaN for a class without samples.

    Raises:
        ValueError: if no Linear makes the model's logits, its features are not finite, or labels do not fit
            the inputs or the classes.
    """
    check_labels("train_labels", train_labels, len(train_inputs), classes)
    check_labels("test_labels", test_labels, len(test_inputs), classes)
    train = last_features(model, train_inputs, batch_size)
    test = last_features(model, test_inputs, batch_size)
    if not bool(train.isfinite().all() and test.isfinite().all()):
        raise ValueError("model: its features are not finite")
    predicted = logistic_regression(train, train_labels, test, classes).to(test_labels.device)
    hits = torch.bincount(test_labels[predicted == test_labels], minlength=classes)
    return hits.double() / torch.bincount(test_labels, minlength=classes).double()


def logistic_regression(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """The classes that multinomial logistic regression on standardized features predicts.

    Args:
        train: float64 [S, D], finite.
        labels: int64 [S].
        test: float64 [T, D], on the same device.
        classes: C.

    Returns:
        Int64 [T].

    Raises:
        ValueError: for fewer than 2 samples to learn from.
    """
    if len(train) < 2:
        raise ValueError(f"train_inputs: expected at least 2 samples, got {len(train)}")
    with plain_modes():
        train, test = standardized(train, test)
        weights = _fit(train, labels.to(train.device), classes)
        return (test @ weights[:-1] + weights[-1]).argmax(1)


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
