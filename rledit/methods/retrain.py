"""What an edit is compared with: the network that never saw the forgotten classes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict

import torch
from torch import Tensor, nn

from ..runtime import seeded
from ..zoo.training import Progress, train_classifier
from .base import Budget, MethodResult, UnlearningProblem, method
from .data import group_data


def retrain(
    build_model: Callable[[], nn.Module],
    inputs: Tensor,
    labels: Tensor,
    forget_classes: Collection[int],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    weight_decay: float = 0.01,
    max_shift: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """Train the same architecture from scratch without the samples of the forgotten classes.

    This is the gold standard of unlearning, since nothing of those samples can be in the weights: exact
    unlearning as Y. Cao, J. Yang, "Towards Making Systems Forget with Machine Unlearning", IEEE S&P 2015,
    define it and L. Bourtoule et al., "Machine Unlearning", IEEE S&P 2021, section III, make it cheaper.
    The network keeps its logits for the forgotten classes; they are only ever trained to be low.

    Args:
        build_model: makes a new network with random weights, e.g. ``MnistCNN``; called once, with torch's
            global generator seeded with ``seed``, whose state is restored afterwards.
        inputs: float [S, ...], the whole training set; the model is moved to its device.
        labels: int64 [S].
        forget_classes: the classes to leave out; may be empty, which gives the model to compare with.
        epochs, batch_size, learning_rate, seed, weight_decay, max_shift, progress: as
            :func:`rledit.zoo.training.train_classifier` has them. Use those of the original training.

    Returns:
        The trained network in eval mode.

    Raises:
        ValueError: a forgotten class is not among the labels, or nothing is left to train on.
        TypeError, ValueError, FloatingPointError: as ``train_classifier``.
    """
    present = set(torch.unique(labels).tolist())
    absent = sorted(set(forget_classes) - present)
    if absent:
        raise ValueError(f"forget_classes: expected classes among the labels {sorted(present)}, got {absent}")
    if present <= set(forget_classes):
        raise ValueError("forget_classes: expected at least one class to remain, got all of them")
    forgotten = torch.tensor(sorted(set(forget_classes)), dtype=torch.int64, device=labels.device)
    retained = ~torch.isin(labels, forgotten)

    model = _new(build_model, inputs.device, seed)
    train_classifier(
        model,
        inputs[retained],
        labels[retained],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        weight_decay=weight_decay,
        max_shift=max_shift,
        progress=progress,
    )
    return model.eval()


@method(
    "retrain",
    title="retraining",
    source="Bourtoule et al., S&P 2021, arXiv:1912.03817",
    needs=("gradients", "retain data", "training"),
)
def retraining(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Train the same architecture from scratch on the samples to retain: :func:`retrain`, of any forget set.

    Settings are those of the original training; nothing is chosen.
    """
    assert problem.build is not None
    assert problem.training is not None
    data = group_data(problem.model, problem.train, "retain")
    hyperparameters = asdict(problem.training)
    if budget.epochs is not None:
        hyperparameters["epochs"] = budget.epochs
    model = _new(problem.build, data.inputs.device, seed)
    trained = train_classifier(model, data.inputs, data.labels, seed=seed, **hyperparameters)
    return MethodResult(model.eval(), steps=trained.steps, settings=hyperparameters)


def _new(build: Callable[[], nn.Module], device: torch.device, seed: int) -> nn.Module:
    with seeded(seed, device):
        return build().to(device)
