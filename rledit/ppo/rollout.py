"""One batch of episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..engine.workers import Pending
from ..policies.gaussian import Agent, NotFiniteError, ValueFunction
from ..runtime import one_thread
from ..worlds import World
from .config import PPOConfig


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


def join(parts: Sequence[Rollout]) -> Rollout:
    """Rollouts of one-step episodes from the same observation, as one."""
    first = parts[0]
    return Rollout(
        observations=first.observations,
        actions=torch.cat([part.actions for part in parts], 1),
        log_probs=torch.cat([part.log_probs for part in parts], 1),
        rewards=torch.cat([part.rewards for part in parts], 1),
        returns=torch.cat([part.returns for part in parts]),
        metrics={name: torch.cat([part.metrics[name] for part in parts]) for name in first.metrics},
        score_seconds=sum(part.score_seconds for part in parts),
    )


class Arriving:
    """A batch of which parts may still be scored. Iterating waits for one after the other.

    Attributes:
        sizes: candidates of each part.
        observations: per step, of all candidates [1 or N, D].
    """

    def __init__(
        self, sizes: Sequence[int], observations: list[Tensor], parts: Iterable[Callable[[], Rollout]]
    ) -> None:
        self.sizes = tuple(sizes)
        self.observations = observations
        self._waiting = list(parts)
        self._arrived: list[Rollout] = []

    def __iter__(self) -> Iterator[Rollout]:
        for i, wait in enumerate(self._waiting):
            if i == len(self._arrived):
                self._arrived.append(wait())
            yield self._arrived[i]

    def whole(self) -> Rollout:
        """The whole batch, once all of it is there."""
        parts = list(self)
        return parts[0] if len(parts) == 1 else join(parts)


@torch.no_grad()
def start(world: World, agent: Agent, config: PPOConfig, generator: torch.Generator) -> Arriving:
    """Let the policy act; where the world can score beside the policy's update, in two halves.

    Raises:
        NotFiniteError: if the policy's actions are not finite.
    """
    if not world.overlaps or min(config.minibatches, world.num_envs // 2) < 2:
        rollout = collect(world, agent, generator)
        return Arriving([world.num_envs], rollout.observations, [lambda: rollout])
    rows = world.initial_observation
    means, actions = _act(agent, rows, world.num_envs, generator)
    outcomes = world.score_parts(actions, 2)
    log_probs = agent.policy.log_prob(means, actions)

    def half(outcome: Pending, taken: Tensor, densities: Tensor) -> Rollout:
        started = time.perf_counter()
        arrived = outcome.result()
        return Rollout(
            observations=[rows],
            actions=taken[None],
            log_probs=densities[None],
            rewards=arrived.rewards[None].float(),
            returns=arrived.rewards,
            metrics=arrived.metrics,
            score_seconds=time.perf_counter() - started,
        )

    taken = actions.tensor_split(2)
    halves = zip(outcomes, taken, log_probs.tensor_split(2), strict=True)
    return Arriving([len(part) for part in taken], [rows], [partial(half, *each) for each in halves])


def _act(agent: Agent, rows: Tensor, candidates: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Means [1 or N, A] and actions [N, A]."""
    with one_thread():
        means = agent.policy(rows)
        noise = torch.randn(candidates, means.shape[1], generator=generator, device=generator.device)
        actions = means + agent.policy.log_std.exp() * noise
        if not bool(actions.isfinite().all()):
            raise NotFiniteError("the policy's actions are not finite")
    return means, actions


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
        means, action = _act(agent, rows, world.num_envs, generator)
        started = time.perf_counter()
        world.start(action)
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
def expected_returns(value: ValueFunction, observations: Sequence[Tensor]) -> list[Tensor]:
    """What the value function makes of each step's observations, [1 or N] each."""
    return [value(rows) for rows in observations]


@torch.no_grad()
def advantages(
    rollout: Rollout, expected: Sequence[Tensor], gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages and value targets, each [T, N] (arXiv:1506.02438, equation 16).

    Every episode ends with its last step, so nothing is bootstrapped.
    """
    steps, envs = rollout.rewards.shape
    values = torch.stack([value.expand(envs) for value in expected])
    out = torch.empty_like(values)
    next_value = following = rollout.rewards.new_zeros(envs)
    for t in reversed(range(steps)):
        delta = rollout.rewards[t] + gamma * next_value - values[t]
        out[t] = following = delta + gamma * gae_lambda * following
        next_value = values[t]
    return out, out + values
