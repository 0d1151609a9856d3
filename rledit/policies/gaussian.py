"""The Gaussian policy and the value function."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ppo.config import LOG_STD_LIMITS, PPOConfig
from ..runtime import seeded

PARAMETER_LIMIT = 1e9
"""A parameter beyond this has blown up. Below it, means and actions cannot overflow float32."""


class NotFiniteError(FloatingPointError):
    """The agent has blown up: NaN, infinity, or so large that either would be next."""


def _trunk(observation_size: int, hidden: int) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(observation_size, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, math.sqrt(2.0))  # detail 2, orthogonal initialisation
            nn.init.zeros_(layer.bias)
    return layers


class GaussianPolicy(nn.Module):
    """Independent normal distributions over the action's entries.

    The mean comes from an MLP over the observation, the standard deviation is the same in every state.
    Actions are clipped to the bounds by the environment; densities are those of the unclipped action
    (detail 8 of the continuous ones). Beyond the bounds the reward does not depend on the standard deviation
    any more, so it is kept within LOG_STD_LIMITS.

    Args:
        observation_size: D.
        right: bool [A], which entries belong to right factors.
    """

    def __init__(self, observation_size: int, right: Tensor, config: PPOConfig) -> None:
        super().__init__()
        size = len(right)
        self.trunk = _trunk(observation_size, config.hidden)
        self.head = nn.Linear(config.hidden, size)
        nn.init.orthogonal_(self.head.weight, 0.01)  # detail 2: small last layer, so the bias decides
        with torch.no_grad():
            self.head.bias.copy_(torch.where(right, config.initial_right * torch.randn(size), 0.0))
        self.log_std = nn.Parameter(torch.full((size,), math.log(config.initial_std)))

    def forward(self, observations: Tensor) -> Tensor:
        """Observations [B, D] -> means [B, A]."""
        means: Tensor = self.head(self.trunk(observations))
        return means

    def log_prob(self, means: Tensor, actions: Tensor) -> Tensor:
        """Log density of actions [N, A] under means [1 or N, A] -> [N]."""
        z = (actions - means) * (-self.log_std).exp()
        constant = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * actions.shape[1]
        return -0.5 * z.square().sum(1) - constant

    @torch.no_grad()
    def clamp_log_std_(self) -> None:
        """Called after each step. Not part of the forward pass, where it would stop the gradient for good."""
        self.log_std.clamp_(*LOG_STD_LIMITS)

    def entropy(self) -> Tensor:
        """In nats, the same in every state."""
        return self.log_std.sum() + 0.5 * math.log(2 * math.pi * math.e) * len(self.log_std)


class ValueFunction(nn.Module):
    """Expected return of an observation; an MLP of its own, not shared with the policy (detail 3)."""

    def __init__(self, observation_size: int, config: PPOConfig) -> None:
        super().__init__()
        self.trunk = _trunk(observation_size, config.hidden)
        self.head = nn.Linear(config.hidden, 1)
        nn.init.orthogonal_(self.head.weight, 1.0)
        nn.init.zeros_(self.head.bias)

    def forward(self, observations: Tensor) -> Tensor:
        """Observations [B, D] -> values [B]."""
        values: Tensor = self.head(self.trunk(observations)).squeeze(-1)
        return values


class Agent(nn.Module):
    """Policy and value function together, initialised from a seed without touching torch's global one."""

    def __init__(self, observation_size: int, right: Tensor, config: PPOConfig, seed: int) -> None:
        super().__init__()
        cpu = torch.device("cpu")
        with seeded(seed, cpu), cpu:  # the same numbers, wherever tensors are made by default
            self.policy = GaussianPolicy(observation_size, right, config)
            self.value = ValueFunction(observation_size, config)

    def finite(self) -> bool:
        """Whether no parameter is NaN, nor any tensor's norm beyond PARAMETER_LIMIT."""
        # The norm passes NaN on, and NaN is not below the limit. Of all norms torch has made this one fast.
        norms = [torch.linalg.vector_norm(parameter.detach()) for parameter in self.parameters()]
        return bool((torch.stack(norms) < PARAMETER_LIMIT).all())
