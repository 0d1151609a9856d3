"""Gaussian policies: a multilayer perceptron over the features, or a plain parameter vector."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .base import Policy

LOG_STD_LIMITS = (-8.0, 2.0)
"""Limits of the logarithm of standard deviations: 0.0003, where a policy is as good as deterministic, to
7.4, where nearly every action is at its bound and the reward no longer depends on them."""


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions over the action's entries.

    Actions are clipped to the bounds by the engine; densities are those of the unclipped action (detail 8 of
    the continuous ones in Huang et al. 2022).
    """

    mean: Tensor  # [1 or N, A]
    log_std: Tensor  # [A]

    def sample(self, candidates: int, generator: torch.Generator) -> Tensor:
        """Actions of N candidates, float32 [N, A]."""
        noise = torch.randn(
            candidates, self.mean.shape[1], generator=generator, device=generator.device, dtype=torch.float32
        )
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density of actions [N, A], float32 [N]."""
        z = (actions - self.mean) * (-self.log_std).exp()
        constant = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * actions.shape[1]
        return -0.5 * z.square().sum(1) - constant

    def entropy(self) -> Tensor:
        """Entropy in nats, the same for every row."""
        return self.log_std.sum() + 0.5 * math.log(2 * math.pi * math.e) * len(self.log_std)


class _Gaussian(Policy):
    """A Gaussian whose standard deviations do not depend on features (detail 4 of the continuous ones).

    All are made of the same arguments, those of :class:`GaussianPolicy`.
    """

    def __init__(
        self,
        features: int,
        right: Tensor,
        *,
        hidden: int,
        initial_std: float,
        initial_right: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        actions = len(right)
        self.log_std = nn.Parameter(torch.full((actions,), math.log(initial_std)))
        center = self._make_mean(features, actions, hidden, generator)
        with torch.no_grad():
            start = initial_right * torch.randn(actions, generator=generator)
            center.copy_(torch.where(right, start, 0.0))

    @abstractmethod
    def _make_mean(self, features: int, actions: int, hidden: int, generator: torch.Generator) -> Tensor:
        """Make what the mean comes from; returns the parameter [A] that it is, or is near, in a fresh policy.
        Its values are then filled in."""

    @torch.no_grad()
    def constrain_(self) -> None:
        # Not part of the forward pass, where it would stop the gradient for good.
        self.log_std.clamp_(*LOG_STD_LIMITS)


class GaussianPolicy(_Gaussian):
    """A Gaussian whose mean comes from an MLP over the features.

    Args:
        features: D.
        right: bool [A], which entries belong to right factors. Their means start at random, the left ones at
            zero: as in LoRA (arXiv:2106.09685, section 4.1) the first edit is the identity, but the reward
            has a slope. With both factors at zero its gradient vanishes by symmetry.
        hidden: width of the two tanh layers.
        initial_std: standard deviation of a fresh policy.
        initial_right: spread of the right factors' means in a fresh policy.
        generator: generator for the initial weights, on the CPU.
    """

    def _make_mean(self, features: int, actions: int, hidden: int, generator: torch.Generator) -> Tensor:
        self.trunk = trunk(features, hidden, generator)
        self.head = linear(hidden, actions, generator)
        # Detail 2: a small last layer, so that the bias decides.
        nn.init.orthogonal_(self.head.weight, 0.01, generator=generator)
        return self.head.bias

    def forward(self, features: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.head(self.trunk(features)), self.log_std)


class ParameterPolicy(_Gaussian):
    """A Gaussian whose mean is a parameter vector: all that a bandit needs. It does not look at the features.

    Args:
        features: D, ignored.
        right, initial_std, initial_right, generator: as :class:`GaussianPolicy` has them.
        hidden: ignored.
    """

    def _make_mean(self, features: int, actions: int, hidden: int, generator: torch.Generator) -> Tensor:
        self.center = nn.Parameter(torch.zeros(actions))
        return self.center

    def forward(self, features: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.center[None], self.log_std)


class ValueFunction(nn.Module):
    """Expected return of a state, by an MLP of its own, not shared with the policy (detail 3)."""

    def __init__(self, features: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = trunk(features, hidden, generator)
        self.head = linear(hidden, 1, generator)
        nn.init.orthogonal_(self.head.weight, 1.0, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, D] -> values [B]."""
        values: Tensor = self.head(self.trunk(features)).squeeze(-1)
        return values


def trunk(features: int, hidden: int, generator: torch.Generator) -> nn.Sequential:
    """Two tanh layers with orthogonal initialization (detail 2 of Huang et al. 2022)."""
    layers = nn.Sequential(
        linear(features, hidden, generator), nn.Tanh(), linear(hidden, hidden, generator), nn.Tanh()
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, math.sqrt(2.0), generator=generator)
            nn.init.zeros_(layer.bias)
    return layers


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """An ``nn.Linear`` with its usual initial weights from a generator of ours: torch's global one, which the
    constructor draws from, belongs to the caller and to other threads."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float32)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
