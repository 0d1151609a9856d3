"""The clipped update, and the guard that keeps a run from blowing up."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .config import PPOConfig
from .policy import Agent
from .rollout import Rollout, advantages


@dataclass(frozen=True)
class UpdateStats:
    """What an update did: losses of its last minibatch, and how far it went."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float  # nats, from the policy that sampled the batch
    clipped: float  # share of candidates whose ratio was clipped
    steps: int  # optimiser steps taken


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: PPOConfig,
    generator: torch.Generator,
) -> UpdateStats:
    """PPO on one batch (arXiv:1707.06347, algorithm 1).

    Raises:
        FloatingPointError: if a loss, a gradient or a parameter is not finite; the agent is then in an
            undefined state, see :class:`Guard`.
    """
    advantage, target = advantages(rollout, agent, config.gamma, config.gae_lambda)
    envs = rollout.actions.shape[1]
    size = max(1, envs // config.minibatches)
    stats = UpdateStats(0.0, 0.0, float(agent.policy.entropy().detach()), 0.0, 0.0, 0)
    for _ in range(config.epochs):
        for index in torch.randperm(envs, generator=generator).split(size):
            if len(index) < 2:
                continue  # one candidate has no advantage over others
            ratio_log, value = _evaluate(agent, rollout, index)
            kl = _kl(ratio_log)
            if stats.steps > 0 and kl > config.target_kl:
                return stats
            loss, stats = _loss(
                agent, ratio_log, value, advantage[:, index], target[:, index], config, stats, kl
            )
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
            if not (bool(loss.isfinite()) and bool(norm.isfinite())):
                raise FloatingPointError("the loss or its gradient is not finite")
            optimizer.step()
    if not agent.finite():
        raise FloatingPointError("the policy's parameters are not finite")
    return stats


def _evaluate(agent: Agent, rollout: Rollout, index: Tensor) -> tuple[Tensor, Tensor]:
    """Log ratios and values of some candidates, each [T, n]."""
    log_probs, values = [], []
    for t, rows in enumerate(rollout.observations):
        seen = rows if len(rows) == 1 else rows[index]
        log_probs.append(agent.policy.log_prob(agent.policy(seen), rollout.actions[t, index]))
        values.append(agent.value(seen).expand(len(index)))
    return torch.stack(log_probs) - rollout.log_probs[:, index], torch.stack(values)


def _kl(ratio_log: Tensor) -> float:
    """The low-variance estimator k3 of J. Schulman, "Approximating KL divergence" (2020)."""
    with torch.no_grad():
        return float((ratio_log.exp() - 1 - ratio_log).mean())


def _loss(
    agent: Agent,
    ratio_log: Tensor,
    value: Tensor,
    advantage: Tensor,
    target: Tensor,
    config: PPOConfig,
    before: UpdateStats,
    kl: float,
) -> tuple[Tensor, UpdateStats]:
    if config.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = ratio_log.exp()
    unclipped = advantage * ratio
    clipped = advantage * ratio.clamp(1 - config.clip, 1 + config.clip)
    policy_loss = -torch.min(unclipped, clipped).mean()
    value_loss = 0.5 * (value - target).square().mean()
    entropy = agent.policy.entropy()
    loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
    stats = UpdateStats(
        policy_loss=float(policy_loss.detach()),
        value_loss=float(value_loss.detach()),
        entropy=float(entropy.detach()),
        kl=kl,
        clipped=float(((ratio - 1).abs() > config.clip).float().mean()),
        steps=before.steps + 1,
    )
    return loss, stats


class Guard:
    """Keeps the last good agent. When an update fails, it comes back with half the step.

    Adam's moments come back with it: they are what carried the agent away.
    """

    def __init__(self, agent: Agent, optimizer: torch.optim.Optimizer) -> None:
        self._agent = agent
        self._optimizer = optimizer
        self.recoveries = 0
        self.keep()

    def keep(self) -> None:
        """Remember the agent as it is."""
        self._good: dict[str, Any] = copy.deepcopy(self._agent.state_dict())
        self._good_optimizer: dict[str, Any] = copy.deepcopy(self._optimizer.state_dict())

    def restore(self) -> float:
        """Bring the remembered agent back, halve the learning rate, and return it."""
        rate = self._optimizer.param_groups[0]["lr"] / 2
        self._agent.load_state_dict(self._good)
        self._optimizer.load_state_dict(self._good_optimizer)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.keep()
        self.recoveries += 1
        return float(rate)
