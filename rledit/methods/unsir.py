"""UNSIR: noise that stands for the class impairs the network, retained samples repair it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import Data, group_data, joined
from .descent import Descent
from .tuning import Tuning, mode, trainable_copy

BATCH = 256
NOISE_STEPS = 40
COPIES = 20
PER_CLASS = 1000
RATES = ((0.02, 0.01), (0.01, 0.005), (0.002, 0.001), (0.0005, 0.0005))
"""Learning rates of impair and repair, the default first."""


@method(
    "unsir",
    title="UNSIR",
    source="Tarun et al., TNNLS 2023, arXiv:2111.08947",
    needs=("gradients", "retain data", "forget classes"),
)
def unsir(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Learn noise that maximizes the loss of the classes, train on it in their names, then on retain alone.

    A. K. Tarun et al., "Fast Yet Effective Machine Unlearning", TNNLS 2023, arXiv:2111.08947, algorithm 1.
    Settings of their code: noise of a batch of 256 for each class, 40 steps of Adam at 0.1 on
    ``-CE + 0.1 * mean |noise|^2``; impair with 20 copies of it and 1,000 samples of each class
    to retain, one epoch of Adam at 0.02; repair with those samples, one epoch at 0.01; batches of 256.
    Smaller rates are tried, too.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = _some_of_each(problem, generator)
    noise, steps = _noise(problem, kept, generator)
    impairing = joined(*[noise] * COPIES, kept)
    tuning = Tuning(problem)
    tuning.steps = steps
    epochs = budget.epochs or 1
    for impair, repair in RATES:
        model = trainable_copy(problem)
        settings: dict[str, Any] = {"impair": impair, "repair": repair}
        for rate, data, name in ((impair, impairing, "impaired"), (repair, kept, "repaired")):
            descent = Descent(model, torch.optim.Adam(model.parameters(), lr=rate), seed)

            def loss(batch: Tensor, data: Data = data, model: torch.nn.Module = model) -> Tensor:
                return F.cross_entropy(model(data.inputs[batch]), data.labels[batch])

            for _ in range(epochs):
                descent.epoch(len(data), BATCH, loss)
            tuning.steps += descent.steps
            if name == "repaired":
                published = (impair, repair) == RATES[0]
                tuning.offer(model, {**settings, "epochs": epochs}, published=published)
    return tuning.result()


def _some_of_each(problem: UnlearningProblem, generator: torch.Generator) -> Data:
    """At most 1,000 samples of each class to retain."""
    data = group_data(problem.model, problem.train, "retain")
    order = torch.randperm(len(data), generator=generator).to(data.labels.device)
    picked = [order[data.labels[order] == label][:PER_CLASS] for label in data.labels.unique().tolist()]
    return data.take(torch.cat(picked))


def _noise(problem: UnlearningProblem, like: Data, generator: torch.Generator) -> tuple[Data, int]:
    """A batch of noise for each class, and the steps it took."""
    model = trainable_copy(problem)
    parts, steps = [], 0
    for label in problem.forget:
        shape = (BATCH, *like.inputs.shape[1:])
        start = torch.randn(shape, generator=generator).to(like.inputs.device, like.inputs.dtype)
        noise = start.requires_grad_()
        labels = torch.full((BATCH,), label, device=like.labels.device)
        optimizer = torch.optim.Adam([noise], lr=0.1)
        with mode(model, training=False):
            for _ in range(NOISE_STEPS):
                size = noise.square().flatten(1).sum(1).mean()
                loss = -F.cross_entropy(model(noise), labels) + 0.1 * size
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps += 1
        parts.append(Data(noise.detach(), labels))
    return joined(*parts), steps
