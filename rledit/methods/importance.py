"""How much parameters matter: mean squares of gradients of the log-likelihood, Fisher's diagonal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from .data import Data
from .tuning import mode

Importance: TypeAlias = dict[str, Tensor]
"""Importance of each parameter, in its shape."""

CHUNK = 128
"""Samples whose gradients are held at once."""


def batch_importance(model: nn.Module, data: Data, batch_size: int) -> Importance:
    """The mean over batches of the squared gradient of a batch's mean cross-entropy; in eval mode."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    batches = 0
    with mode(model, training=False):
        for start in range(0, len(data), batch_size):
            part = slice(start, start + batch_size)
            loss = F.cross_entropy(model(data.inputs[part]), data.labels[part])
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.square()
            batches += 1
    return {name: value / batches for name, value in total.items()}


def sample_importance(model: nn.Module, data: Data) -> Importance:
    """The mean over samples of the squared gradient of a sample's cross-entropy with its label, in eval
    mode."""

    def squares(weights: Importance, inputs: Tensor, label: Tensor, _: Tensor) -> Importance:
        def loss(weights: Importance) -> Tensor:
            return F.cross_entropy(functional_call(model, weights, (inputs[None],)), label[None])

        return {name: gradient.square() for name, gradient in grad(loss)(weights).items()}

    return _mean(model, data, squares)


def expected_importance(model: nn.Module, data: Data, classes: int) -> Importance:
    """The mean over samples of what :func:`sample_importance` gives, expected over labels drawn from the
    model's own probabilities: the diagonal of Fisher's information matrix. Labels of the data are not read.

    With J the gradient of the logits, the square of CE's gradient is expected to be the variance of J over
    the classes.
    """

    def squares(weights: Importance, inputs: Tensor, _: Tensor, probabilities: Tensor) -> Importance:
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for label in range(classes):

            def loss(weights: Importance, label: int = label) -> Tensor:
                return -F.log_softmax(functional_call(model, weights, (inputs[None],))[0], 0)[label]

            for name, gradient in grad(loss)(weights).items():
                total[name] = total[name] + probabilities[label] * gradient.square()
        return total

    return _mean(model, data, squares)


def _mean(
    model: nn.Module, data: Data, squares: Callable[[Importance, Tensor, Tensor, Tensor], Importance]
) -> Importance:
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    each = vmap(squares, in_dims=(None, 0, 0, 0), randomness="error")
    with mode(model, training=False):
        for start in range(0, len(data), CHUNK):
            part = slice(start, start + CHUNK)
            with torch.no_grad():
                probabilities = model(data.inputs[part]).softmax(1)
            try:
                found = each(weights, data.inputs[part], data.labels[part], probabilities)
            except RuntimeError as error:
                raise ValueError(
                    f"model: expected a forward that torch.func.vmap can run on single samples; {error}"
                ) from error
            for name, value in found.items():
                total[name] += value.sum(0)
    return {name: value / len(data) for name, value in total.items()}
