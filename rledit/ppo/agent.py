"""The agent: a policy and a value function that learn together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..policies import POLICIES, Policy, PolicyName, ValueFunction
from .config import PPOConfig

PARAMETER_LIMIT = 1e9
"""A parameter beyond this has blown up. Below it, means and actions cannot overflow float32."""

PolicyFactory = Callable[..., Policy]
"""Called as :class:`rledit.policies.GaussianPolicy` is: ``factory(features, right, hidden=...,
initial_std=..., initial_right=..., generator=...)``."""


class NotFiniteError(FloatingPointError):
    """The agent has blown up: NaN, infinity, or so large that either would be next."""


class Agent(nn.Module):
    """Policy and value function together, initialized from a seed without touching torch's global one.

    Args:
        features: D.
        right: bool [A], the action's entries that belong to right factors.
        config: the numbers.
        seed: seed of the initial parameters.
        policy: a key of :data:`rledit.policies.POLICIES`, or what makes a policy.

    Raises:
        ValueError: for an unknown policy.
    """

    def __init__(
        self,
        features: int,
        right: Tensor,
        config: PPOConfig,
        seed: int,
        policy: PolicyName | PolicyFactory = "gaussian",
    ) -> None:
        super().__init__()
        factory = find_policy(policy)
        generator = torch.Generator().manual_seed(seed)
        with torch.device("cpu"):  # the same numbers, wherever tensors are made by default
            self.policy = _made_by(
                factory,
                features,
                right,
                hidden=config.hidden,
                initial_std=config.initial_std,
                initial_right=config.initial_right,
                generator=generator,
            )
            self.value = ValueFunction(features, config.hidden, generator)

    def finite(self) -> bool:
        """Whether no parameter is NaN, nor any tensor's norm beyond PARAMETER_LIMIT."""
        # The norm passes NaN on, and NaN is not below the limit. Of all norms torch has made this one fast.
        norms = [torch.linalg.vector_norm(parameter.detach()) for parameter in self.parameters()]
        return bool((torch.stack(norms) < PARAMETER_LIMIT).all())


def _made_by(factory: PolicyFactory, *args: Any, **kwargs: Any) -> Policy:
    policy = factory(*args, **kwargs)
    if not isinstance(policy, Policy):
        raise TypeError(f"policy: expected to be given a rledit.Policy, got {type(policy).__name__}")
    return policy


def find_policy(policy: str | PolicyFactory) -> PolicyFactory:
    """What makes the policy of this name; ValueError for an unknown one."""
    if callable(policy) and not isinstance(policy, nn.Module):
        return policy
    if not isinstance(policy, str):
        raise TypeError(
            f"policy: expected one of {', '.join(POLICIES)}, or what makes a policy; "
            f"got {type(policy).__name__}"
        )
    if policy not in POLICIES:
        raise ValueError(f"policy: expected one of {', '.join(POLICIES)}; got {policy!r}")
    return POLICIES[policy]


def learner_tensors(agent: Agent, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The agent's parameters and Adam's moments by name; the very tensors, not copies."""
    tensors = {f"agent.{name}": value for name, value in agent.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
    return tensors


def load_learner(agent: Agent, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Copies what :func:`learner_tensors` gave; other names are ignored, the learning rate stays.

    Raises:
        RuntimeError: for tensors of another agent.
    """
    agent.load_state_dict({n.removeprefix("agent."): v for n, v in tensors.items() if n.startswith("agent.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, kind = name.split(".")
            moments.setdefault(int(index), {})[kind] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
