"""One batch of episodes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..worlds import World
from .policy import Agent, NotFiniteError, one_thread


@dataclass(frozen=True)
class Rollout:
    """N episodes of T steps.

    Attributes:
        observations: per step [1 or N, D]; 1 where all candidates see the same, as at the first step.
        actions: [T, N, A], before clipping.
        log_probs: [T, N] under the policy that sampled them.
        rewards: float32 [T, N].
        returns: the whole improvement of each episode, float64 [N].
        metrics: the objective's figures after the last step, each float64 [N].
        score_seconds: from handing the actions to the world to its answer.
    """

    observations: list[Tensor]
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    returns: Tensor
    metrics: dict[str, Tensor]
    score_seconds: float


@torch.no_grad()
def collect(world: World, agent: Agent, generator: torch.Generator) -> Rollout:
    """Let the policy act for one episode in each environment.

    The first observation is the same for all candidates, so the policy runs on one row, not on N. Outcomes
    are taken as tensors, without the observations and infos that Gymnasium wants of a last step.

    Raises:
        NotFiniteError: if the policy's actions are not finite.
    """
    world.reset()
    rows = world.initial_observation
    observations, actions, log_probs, rewards = [], [], [], []
    seconds = 0.0
    for step in range(world.episode_length):
        if step > 0:
            assert world.episodes.weights is not None  # stored by all but one-step episodes
            rows = world.observe(world.episodes.weights)
        with one_thread():
            means = agent.policy(rows)
        noise = torch.randn(world.num_envs, means.shape[1], generator=generator)
        action = means + agent.policy.log_std.exp() * noise
        if not bool(action.isfinite().all()):
            raise NotFiniteError("the policy's actions are not finite")
        started = time.perf_counter()
        world.step_async(action.numpy())
        # While the world scores, everything else that the update needs of this step.
        log_probs.append(agent.policy.log_prob(means, action))
        observations.append(rows)
        actions.append(action)
        outcome = world.wait()
        seconds += time.perf_counter() - started
        rewards.append(outcome.rewards)
    world.reset()
    stacked = torch.stack(rewards)
    return Rollout(
        observations=observations,
        actions=torch.stack(actions),
        log_probs=torch.stack(log_probs),
        rewards=stacked.float(),
        returns=stacked.sum(0),
        metrics=outcome.metrics,
        score_seconds=seconds,
    )


@torch.no_grad()
def advantages(rollout: Rollout, agent: Agent, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and value targets, each [T, N] (arXiv:1506.02438, equation 16).

    Every episode ends with its last step, so nothing is bootstrapped.
    """
    steps, envs = rollout.rewards.shape
    values = torch.stack([agent.value(rows).expand(envs) for rows in rollout.observations])
    out = torch.empty_like(values)
    next_value = following = torch.zeros(envs)
    for t in reversed(range(steps)):
        delta = rollout.rewards[t] + gamma * next_value - values[t]
        out[t] = following = delta + gamma * gae_lambda * following
        next_value = values[t]
    return out, out + values
