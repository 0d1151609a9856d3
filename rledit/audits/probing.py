"""What all probes share: they learn from features of the training samples, and are judged on the test's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import AuditData
from .estimates import UNKNOWN, share

Predict = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""A function from features [S, D], labels [S], features [T, D] to judge and C to the classes predicted, int64
[T]."""


def probe(
    name: str,
    predict: Predict,
    model: nn.Module,
    data: AuditData,
    *,
    groups: tuple[str, ...] = (),
    layers: bool = False,
    batch_size: int = 250,
) -> dict[str, float]:
    """``<group>_<name>_accuracy``: the accuracy of a probe on the features that the model's head reads, and
    with ``layers`` ``<layer>_<group>_<name>_accuracy``, on what each edited layer makes."""
    check_labels("train_labels", data.train.labels, len(data.train), data.classes)
    check_labels("test_labels", data.test.labels, len(data.test), data.classes)
    train = data.read(model, data.train, batch_size)
    test = data.read(model, data.test, batch_size)
    figures: dict[str, float] = {}
    for layer in (None, *data.layers) if layers else (None,):
        predicted = predict(train.features(layer), data.train.labels, test.features(layer), data.classes)
        hits = predicted.cpu() == data.test.labels
        for group in groups or data.test.groups:
            key = f"{group}_{name}_accuracy" if layer is None else f"{layer}_{group}_{name}_accuracy"
            figures[key] = share(hits[data.test.groups[group]]) if group in data.test.groups else UNKNOWN
    return figures


def standardized(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both matrices standardized by column, with the mean and standard deviation of the first."""
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    return (train - mean) / std, (test - mean) / std


def check_labels(name: str, labels: Tensor, count: int, classes: int) -> None:
    """Raise ValueError for labels that do not fit the inputs or the classes."""
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected shape [{count}], one per input, got {list(labels.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"{name}: expected int64, got {labels.dtype}")
    if len(unknown := labels[(labels < 0) | (labels >= classes)]):
        raise ValueError(f"{name}: expected classes 0..{classes - 1}, got {int(unknown[0])}")
