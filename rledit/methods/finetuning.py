"""Fine-tuning on what is to be retained: all layers, the last one, or all with an L1 penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import Data, device_of, group_data
from .descent import Descent, Settings, descend_each, sgd
from .layers import find_logits_layer, rows_of
from .tuning import Tuning, mode, trainable_copy

EPOCHS = 10
BATCH = 256
RATES = (1e-2, 1e-3, 1e-1)
"""Learning rates, the default first: Jia et al. 2023 search 1e-3..1e-1."""
PENALTIES = ((1e-2, 1e-4), (1e-1, 1e-4), (1e-2, 1e-3), (1e-1, 1e-3))
"""Learning rates and weights of the L1 norm, the default first: they search weights of 1e-6..1e-4, we add one
that is stronger."""


@method(
    "finetune",
    title="fine-tuning",
    source="Golatkar et al., CVPR 2020, arXiv:1911.04933; settings of Jia et al., arXiv:2304.04934",
    needs=("gradients", "retain data"),
)
def finetune(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Go on training all layers on the samples to retain, and hope that the others fade.

    The baseline of A. Golatkar, A. Achille, S. Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020,
    arXiv:1911.04933. Settings of J. Jia et al., "Model Sparsity Can Simplify Machine Unlearning",
    NeurIPS 2023, arXiv:2304.04934: 10 epochs of SGD, momentum 0.9, weight decay 5e-4, batches of
    256, rate 0.01 (searched in 1e-3..1e-1).
    """
    data = group_data(problem.model, problem.train, "retain")

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        descent = Descent(model, sgd(model.parameters(), _number(settings["rate"])), seed)

        def loss(batch: Tensor) -> Tensor:
            return F.cross_entropy(model(data.inputs[batch]), data.labels[batch])

        return descent, lambda _: descent.epoch(len(data), BATCH, loss)

    return descend_each(problem, [{"rate": rate} for rate in RATES], budget.epochs or EPOCHS, begin)


@method(
    "finetune_last",
    title="fine-tuning, last layer",
    source="Malik 2026, arXiv:2606.13461, its baseline",
    needs=("gradients", "retain data"),
)
def finetune_last(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Go on training the layer that makes the logits, on the samples to retain.

    The baseline of S. Malik, "Reinforcement Learning for Neural Model Editing", arXiv:2606.13461. The paper
    does not give its settings in full; these are :func:`finetune`'s, and also a rate of 1, since one
    layer takes larger steps. What the layer reads is computed once.

    Raises:
        ValueError: if no Linear makes the logits.
    """
    name = find_logits_layer(problem.model, problem.reward.head(2).to(device_of(problem.model)))
    if name is None:
        raise ValueError("model: expected an nn.Linear that makes the logits, found none")
    data = group_data(problem.model, problem.train, "retain")
    features = _features(problem.model, name, data)
    tuning = Tuning(problem)
    epochs = budget.epochs or EPOCHS
    for rate in (*RATES, 1.0):
        model = trainable_copy(problem)
        head = model.get_submodule(name)
        descent = Descent(head, sgd(head.parameters(), rate), seed)

        def loss(batch: Tensor, head: nn.Module = head) -> Tensor:
            return F.cross_entropy(head(features[batch]), data.labels[batch])

        for epoch in range(1, epochs + 1):
            descent.epoch(len(data), BATCH, loss)
            published = rate == RATES[0] and epoch == epochs
            tuning.offer(model, {"layer": name, "rate": rate, "epochs": epoch}, published=published)
            if descent.diverged:
                break
        tuning.steps += descent.steps
    return tuning.result()


@method(
    "l1_sparse",
    title="L1-sparse",
    source="Jia et al., NeurIPS 2023, arXiv:2304.04934",
    needs=("gradients", "retain data"),
)
def l1_sparse(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Fine-tuning on the samples to retain with an L1 penalty on all weights.

    J. Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv:2304.04934:
    cross-entropy on retain plus ``gamma * |theta|_1``, gamma falling linearly to zero over the epochs (their
    best schedule). Defaults as :func:`finetune`, gamma 1e-4 (searched in 1e-6..1e-4).
    """
    data = group_data(problem.model, problem.train, "retain")
    epochs = budget.epochs or EPOCHS

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        parameters = list(model.parameters())
        descent = Descent(model, sgd(parameters, _number(settings["rate"])), seed)

        def epoch(number: int) -> None:
            gamma = _number(settings["gamma"]) * (1 - number / epochs)

            def loss(batch: Tensor) -> Tensor:
                norm = torch.stack([parameter.abs().sum() for parameter in parameters]).sum()
                return F.cross_entropy(model(data.inputs[batch]), data.labels[batch]) + gamma * norm

            descent.epoch(len(data), BATCH, loss)

        return descent, epoch

    grid = [{"rate": rate, "gamma": gamma} for rate, gamma in PENALTIES]
    return descend_each(problem, grid, epochs, begin)


def _features(model: nn.Module, name: str, data: Data) -> Tensor:
    """What the Linear reads in its last call, [S, I]."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    read: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        read.append(rows_of(layer, (*given, *named.values())[0]))

    handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
    parts = []
    try:
        with torch.no_grad(), mode(model, training=False):
            for part in data.inputs.split(250):
                read.clear()
                model(part)
                parts.append(read[-1].flatten(1))
    finally:
        handle.remove()
    return torch.cat(parts)


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value
