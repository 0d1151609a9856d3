"""Is the class gone, or only its name? Audits that look behind the accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHT_DECAY = 1e-4
STEPS = 100


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

    Multinomial logistic regression on what the model's last ``nn.Linear`` reads, trained with all classes
    (G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes",
    arXiv:1610.01644). A forgotten class that the probe still recalls has lost its name, not its trace;
    compare with a network that was trained without the class.

    Args:
        model: put in eval mode meanwhile.
        train_inputs, train_labels: what the probe learns from, [S, ...] and int64 [S].
        test_inputs, test_labels: what it is judged on.
        classes: C.

    Returns:
        Recall of each class on the test inputs, float64 [C]; NaN for a class without samples.

    Raises:
        ValueError: if the model has no Linear layer, or its features are not finite.
    """
    train = last_features(model, train_inputs, batch_size)
    test = last_features(model, test_inputs, batch_size)
    if not bool(train.isfinite().all() and test.isfinite().all()):
        raise ValueError("model: its features are not finite")
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    probe = _fit((train - mean) / std, train_labels, classes)
    with torch.no_grad():
        predicted = ((test - mean) / std @ probe[:-1] + probe[-1]).argmax(1)
    hits = torch.bincount(test_labels[predicted == test_labels], minlength=classes)
    return hits.double() / torch.bincount(test_labels, minlength=classes).double()


@torch.no_grad()
def last_features(model: nn.Module, inputs: Tensor, batch_size: int = 1000) -> Tensor:
    """What the last ``nn.Linear`` of the model reads, float64 [S, D]."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise ValueError("model: expected an nn.Linear whose input can be probed, found none")
    features: list[Tensor] = []
    handle = linears[-1].register_forward_pre_hook(lambda _, x: features.append(x[0].double().flatten(1)))
    try:
        with _eval_mode(model):
            for part in inputs.split(batch_size):
                model(part)
    finally:
        handle.remove()
    return torch.cat(features)


def _fit(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Weights [D + 1, C], the last row the bias, by L-BFGS from zero: convex, so nothing is random."""
    weights = torch.zeros(features.shape[1] + 1, classes, dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weights[:-1] + weights[-1], labels)
        value = value + WEIGHT_DECAY * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
