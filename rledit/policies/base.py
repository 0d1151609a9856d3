"""What every policy is: features in, a distribution over actions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn


class Distribution(Protocol):
    """A distribution over actions, for features of one row or of N."""

    @property
    def mean(self) -> Tensor:
        """The mean action, float32 [1 or N, A]."""
        ...

    def sample(self, candidates: int, generator: torch.Generator) -> Tensor:
        """Actions of N candidates, float32 [N, A], on the generator's device."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density of actions [N, A], float32 [N]."""
        ...

    def entropy(self) -> Tensor:
        """Entropy in nats, the mean over the rows, a scalar."""
        ...


class Policy(nn.Module, ABC):
    """What learners learn.

    A policy must be the identity edit, or near it, when it is fresh: learning starts from the unedited model.
    One-step episodes are a bandit: every candidate sees the same features, so what the policy makes of others
    does not matter. Features matter in longer episodes, and to policies that several models share.
    """

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Features float32 [1 or N, D] -> the distribution of actions [1 or N, A]."""

    def constrain_(self) -> None:
        """Called after each optimizer step, to keep parameters within limits."""
