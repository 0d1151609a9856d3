"""Gradient steps over batches in random order: what most methods of unlearning are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..runtime import seeded
from ..storage.files import Json
from .base import MethodResult, UnlearningProblem
from .data import device_of
from .tuning import Tuning, mode, trainable_copy

Settings: TypeAlias = Mapping[str, Json]
Loss: TypeAlias = Callable[[Tensor], Tensor]
"""A function from the indices of a batch, int64 [B] on the model's device, to its loss, a scalar."""


def sgd(parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 and weight decay 5e-4, as Jia et al. 2023, Fan et al. 2024 and Kurmanji et al.
    2023 all have it."""
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=5e-4)


class Descent:
    """Training of a model in place, an epoch at a time.

    Within an epoch the model is in train mode, so that batch norm learns new statistics, as the published
    implementations have it. torch's global random state, which dropout draws from, is seeded meanwhile.

    Args:
        model: the method's own copy.
        optimizer: optimizer of its parameters.
        seed: seed of the order of samples and of the model's own noise.
        masks: parameter -> which of its entries may change; the others keep their bits.

    Attributes:
        steps: made so far.
        diverged: a loss was not finite; nothing was stepped since.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        seed: int,
        masks: Mapping[Tensor, Tensor] | None = None,
    ) -> None:
        self.steps = 0
        self.diverged = False
        self.generator = torch.Generator().manual_seed(seed)
        self._model = model
        self._optimizer = optimizer
        self._masks = masks or {}

    def rate(self, rate: float) -> None:
        """Set the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def epoch(self, count: int, batch_size: int, loss: Loss) -> None:
        """One pass over ``count`` samples. Ends early where a loss is not finite.

        The last batch may be smaller. A single sample is left out unless it is the only one: batch norm
        cannot train on it.
        """
        device = device_of(self._model)
        order = torch.randperm(count, generator=self.generator).to(device)
        noise = int(torch.randint(2**31, (), generator=self.generator))
        with seeded(noise, device), mode(self._model, training=True):
            for batch in order.split(batch_size):
                if self.diverged or (len(batch) == 1 and count > 1):
                    return
                self._step(loss(batch))

    def _step(self, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            self.diverged = True
            return
        before = {parameter: parameter.detach().clone() for parameter in self._masks}
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.steps += 1
        with torch.no_grad():  # weight decay and momentum change entries without a gradient, too
            for parameter, mask in self._masks.items():
                parameter.copy_(torch.where(mask, parameter, before[parameter]))


Begin: TypeAlias = Callable[[nn.Module, Settings], tuple[Descent, Callable[[int], None]]]
"""A function from a copy of the model and settings to a descent, and what an epoch (counted from 0) does with
it."""


def descend_each(
    problem: UnlearningProblem, grid: Sequence[Settings], epochs: int, begin: Begin
) -> MethodResult:
    """Train with each setting; what there is after every epoch is offered to the validation split.

    Args:
        grid: the published default first.
        epochs: epochs for each setting; the published default is what the first setting gives after the last
            one.
    """
    tuning = Tuning(problem)
    for settings in grid:
        model = trainable_copy(problem)
        descent, epoch = begin(model, settings)
        for number in range(epochs):
            epoch(number)
            last = number == epochs - 1
            tuning.offer(model, {**settings, "epochs": number + 1}, published=settings is grid[0] and last)
            if descent.diverged:
                break
        tuning.steps += descent.steps
    return tuning.result()
