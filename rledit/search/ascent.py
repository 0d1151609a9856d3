"""Steps along a gradient: Adam, and SGD with momentum.

As torch.optim has them, on one tensor. Constructing an optimizer of torch imports its compiler, which takes
seconds: longer than a whole search by evolution strategies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor


class Ascent(ABC):
    """Moves a tensor along gradients, upwards.

    Attributes:
        rate: step size.
        moments: float32 tensors of the shape of what is moved, by name.
        steps: taken so far.
    """

    names: tuple[str, ...]

    def __init__(self, like: Tensor, rate: float) -> None:
        self.rate = rate
        self.moments = {name: torch.zeros_like(like) for name in self.names}
        self.steps = 0

    @abstractmethod
    def step_(self, center: Tensor, gradient: Tensor) -> None:
        """Move the center in place."""

    def kept(self) -> dict[str, Tensor]:
        """Copies of the moments, as checkpoints name them."""
        return {f"moment.{name}": moment.clone() for name, moment in self.moments.items()}

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Take on what :meth:`kept` gave, copied, and the steps of then.

        Raises:
            KeyError, RuntimeError: if they are of something else.
        """
        for name, moment in self.moments.items():
            moment.copy_(tensors[f"moment.{name}"].view_as(moment))
        self.steps = steps


class Adam(Ascent):
    """D. P. Kingma and J. Ba, "Adam" (arXiv:1412.6980, algorithm 1), with its published constants."""

    names = ("mean", "square")
    betas = (0.9, 0.999)
    epsilon = 1e-8

    def step_(self, center: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        mean, square = self.moments["mean"], self.moments["square"]
        first, second = self.betas
        mean.mul_(first).add_(gradient, alpha=1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (square / (1 - second**self.steps)).sqrt_().add_(self.epsilon)
        center.addcdiv_(mean, root, value=self.rate / (1 - first**self.steps))


class Momentum(Ascent):
    """SGD with momentum as torch has it: what is carried over is the sum of gradients, not of steps."""

    names = ("sum",)

    def __init__(self, like: Tensor, rate: float, momentum: float) -> None:
        super().__init__(like, rate)
        self.momentum = momentum

    def step_(self, center: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        total = self.moments["sum"].mul_(self.momentum).add_(gradient)
        center.add_(total, alpha=self.rate)
