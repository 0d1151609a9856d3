"""One batch of episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..engine import Engine
from ..engine.workers import Pending
from ..policies import Distribution, ValueFunction
from ..runtime import one_thread
from .agent import Agent, NotFiniteError
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
        metrics: the objective's metrics after the last step, each float64 [N].
        score_seconds: from handing the actions to the engine to its answer.
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

    def part(self, index: int) -> Rollout:
        """One part, once it is there; the ones before it are, too."""
        for wait in self._waiting[len(self._arrived) : index + 1]:
            self._arrived.append(wait())
        return self._arrived[index]

    def __iter__(self) -> Iterator[Rollout]:
        return (self.part(index) for index in range(len(self._waiting)))

    def whole(self) -> Rollout:
        """The whole batch, once all of it is there."""
        parts = list(self)
        return parts[0] if len(parts) == 1 else join(parts)


@torch.no_grad()
def start(
    engine: Engine, agent: Agent, config: PPOConfig, generator: torch.Generator, halves: bool = True
) -> Arriving:
    """Let the policy act; in two halves where the engine can score during the policy's update.

    Args:
        halves: False keeps the batch whole, because another task's comes whole, too.

    Raises:
        NotFiniteError: if the policy's actions are not finite.
    """
    if not (halves and engine.overlaps) or min(config.num_minibatches, engine.candidates // 2) < 2:
        rollout = collect(engine, agent, generator)
        return Arriving([engine.candidates], rollout.observations, [lambda: rollout])
    rows = engine.initial_observation
    distribution, actions = _act(agent, rows, engine.candidates, generator)
    outcomes = engine.score_parts(actions, 2)
    log_probs = distribution.log_prob(actions)

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
    parts = zip(outcomes, taken, log_probs.tensor_split(2), strict=True)
    return Arriving([len(part) for part in taken], [rows], [partial(half, *each) for each in parts])


def _act(
    agent: Agent, rows: Tensor, candidates: int, generator: torch.Generator
) -> tuple[Distribution, Tensor]:
    """The policy's distribution, and actions [N, A] from it."""
    with one_thread():
        distribution = agent.policy(rows)
        actions = distribution.sample(candidates, generator)
        if not bool(actions.isfinite().all()):
            raise NotFiniteError("the policy's actions are not finite")
    return distribution, actions


@torch.no_grad()
def collect(engine: Engine, agent: Agent, generator: torch.Generator) -> Rollout:
    """Let the policy act for one episode of each candidate.

    The first observation is the same for all candidates, so the policy runs on one row, not on N.

    Raises:
        NotFiniteError: if the policy's actions are not finite.
    """
    engine.reset()
    observations, actions, log_probs, rewards = [], [], [], []
    seconds = 0.0
    for _ in range(engine.episode_length):
        rows = engine.observation
        distribution, action = _act(agent, rows, engine.candidates, generator)
        started = time.perf_counter()
        engine.start(action)
        # While the engine scores, everything else that the update needs of this step.
        log_probs.append(distribution.log_prob(action))
        observations.append(rows)
        actions.append(action)
        outcome = engine.wait()
        seconds += time.perf_counter() - started
        rewards.append(outcome.rewards)
    engine.reset()
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
    """The value function's values of each step's observations, [1 or N] each."""
    return [value(rows) for rows in observations]


@torch.no_grad()
def advantages(
    rollout: Rollout, expected: Sequence[Tensor], gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantages and value targets, each [T, N] (arXiv:1506.02438, equation 16).

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
