"""The clipped update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .agent import Agent, NotFiniteError
from .config import PPOConfig
from .rollout import Arriving, Rollout, advantages, expected_returns

BLOWN_UP = 100.0
"""Multiple of the target KL: a policy that has gone further in one update is lost, finite or not."""


@dataclass(frozen=True)
class UpdateStats:
    """What an update did. The losses and ``clipped`` are those of its last minibatch, before its step."""

    policy_loss: float = 0.0
    value_loss: float = 0.0  # 0 where the value function plays no part
    clipped: float = 0.0  # share of candidates whose ratio was clipped
    kl: float = 0.0  # nats, from the policy that sampled the batch to the updated one
    steps: int = 0  # optimizer steps taken


@dataclass(frozen=True)
class Minibatch:
    """Some candidates of one task: rows ``index`` of a rollout, with their advantages and value targets."""

    rollout: Rollout
    index: Tensor
    advantage: Tensor
    target: Tensor


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Arriving],
    config: PPOConfig,
    generator: torch.Generator,
) -> UpdateStats:
    """PPO on one batch of each task (arXiv:1707.06347, algorithm 1).

    A step takes a minibatch of every task; advantages are normalized within each, so that no task's scale
    outweighs another's, and the losses are averaged. If a batch arrives in two halves, the first pass takes
    them as they come, so that the policy learns from the first while the second is scored. The later passes
    shuffle all of it.

    Raises:
        NotFiniteError: if a loss, a gradient or a parameter is not finite, or the policy is far beyond the
            target KL; the agent is then of no use, see :class:`rledit.ppo.guard.Guard`.
    """
    steps = 0
    last: dict[str, Tensor] = {}
    with_value = any(value_matters(arriving, config) for arriving in batches)
    passes = [_minibatches(agent, arriving, config, generator, with_value) for arriving in batches]
    for minibatches in zip(*passes, strict=True):
        log_ratios_of = [log_ratios(agent, each.rollout, each.index) for each in minibatches]
        # Detail 12, early stopping; before the first step the distance is zero.
        if steps > 0 and not _mean([kl_estimate(each) for each in log_ratios_of]) <= config.target_kl:
            break
        losses = [
            _losses(agent, each, log_ratio, config, with_value)
            for each, log_ratio in zip(minibatches, log_ratios_of, strict=True)
        ]
        policy_loss, value_loss, clipped = (_mean(parts) for parts in zip(*losses, strict=True))
        loss = policy_loss
        if with_value:
            loss = loss + config.vf_coef * value_loss
        if config.ent_coef > 0:
            entropies = [
                _mean([agent.policy(seen).entropy() for seen in each.rollout.observations])
                for each in minibatches
            ]
            loss = loss - config.ent_coef * _mean(entropies)
        optimizer.zero_grad()
        loss.backward()
        norms = _clip_gradients(agent, config.max_grad_norm)
        # One question for all of them: on a GPU each would wait by itself.
        if not bool(torch.stack([loss.detach(), *norms]).isfinite().all()):
            raise NotFiniteError("the loss or a gradient is not finite")
        optimizer.step()
        agent.policy.constrain_()
        last = {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "clipped": clipped}
        steps += 1
    stats = UpdateStats(steps=steps, **{name: float(figure) for name, figure in last.items()})
    return _checked(agent, [arriving.whole() for arriving in batches], config, stats)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean()


def _losses(
    agent: Agent, minibatch: Minibatch, log_ratio: Tensor, config: PPOConfig, with_value: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Policy loss, value loss and the share of clipped ratios of one task's minibatch."""
    advantage = minibatch.advantage
    if config.norm_adv and advantage.numel() > 1:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy_loss, clipped = clipped_loss(log_ratio, advantage, config.clip_coef)
    value_loss = torch.zeros_like(policy_loss)
    if with_value:
        error = values(agent, minibatch.rollout, minibatch.index) - minibatch.target
        value_loss = 0.5 * error.square().mean()
    return policy_loss, value_loss, clipped


def value_matters(arriving: Arriving, config: PPOConfig) -> bool:
    """Whether training the value function can change anything. It cannot where all candidates saw one
    observation in their only step: its value is then one number, which normalizing takes out of the
    advantages again. Training it would be half of an update's work."""
    one_observation = len(arriving.observations) == 1 and len(arriving.observations[0]) == 1
    return not (config.norm_adv and one_observation and sum(arriving.sizes) > 1)


def _minibatches(
    agent: Agent, arriving: Arriving, config: PPOConfig, generator: torch.Generator, with_value: bool
) -> Iterator[Minibatch]:
    """Minibatches, with advantages under the value function that the batch was sampled with."""
    parts = list(arriving.sizes)
    envs = sum(parts)
    number = max(
        1, min(config.num_minibatches, envs // 2)
    )  # one candidate alone has no advantage over others
    nothing = [torch.zeros(1, device=generator.device)]
    expected = expected_returns(agent.value, arriving.observations) if with_value else nothing
    known = []
    for i, rollout in enumerate(arriving):
        advantage, target = advantages(rollout, expected, config.gamma, config.gae_lambda)
        known.append((advantage, target))
        share = max(1, min(number // len(parts) + (i < number % len(parts)), parts[i] // 2))
        order = torch.randperm(parts[i], generator=generator, device=generator.device)
        for index in order.tensor_split(share):
            yield Minibatch(rollout, index, advantage[:, index], target[:, index])
    rollout = arriving.whole()
    advantage, target = (torch.cat(values, 1) for values in zip(*known, strict=True))
    for _ in range(1, config.update_epochs):
        order = torch.randperm(envs, generator=generator, device=generator.device)
        for index in order.tensor_split(number):
            yield Minibatch(rollout, index, advantage[:, index], target[:, index])


def log_ratios(agent: Agent, rollout: Rollout, index: Tensor | slice) -> Tensor:
    """Log ratios [T, n] of some candidates' densities to those under the policy that sampled them."""
    log_probs = []
    for t, rows in enumerate(rollout.observations):
        distribution = agent.policy(rows if len(rows) == 1 else rows[index])
        log_probs.append(distribution.log_prob(rollout.actions[t, index]))
    return torch.stack(log_probs) - rollout.log_probs[:, index]


def values(agent: Agent, rollout: Rollout, index: Tensor) -> Tensor:
    """The value function's values [T, n] of some candidates' observations."""
    rows = [seen if len(seen) == 1 else seen[index] for seen in rollout.observations]
    return torch.stack([agent.value(seen).expand(len(index)) for seen in rows])


@torch.no_grad()
def kl_estimate(log_ratio: Tensor) -> Tensor:
    """The KL divergence in nats, a scalar, by the low-variance estimator k3 of J. Schulman, "Approximating KL
    divergence" (2020)."""
    return (log_ratio.expm1() - log_ratio).mean()


def clipped_loss(log_ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The policy's loss (arXiv:1707.06347, equation 7), and the share of ratios out of the clip range."""
    ratio = log_ratio.exp()
    loss = -torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
    return loss, ((ratio.detach() - 1).abs() > clip).float().mean()


def _clip_gradients(agent: Agent, max_norm: float) -> list[Tensor]:
    """Policy and value function share nothing, so each is clipped by its own norm, which is returned.

    One norm over both would let the value loss, which grows with the square of the objective's scale, drown
    the policy's gradient.
    """
    return [
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)
        for network in (agent.policy, agent.value)
        if any(parameter.grad is not None for parameter in network.parameters())  # else it plays no part
    ]


@torch.no_grad()
def _checked(agent: Agent, rollouts: Sequence[Rollout], config: PPOConfig, stats: UpdateStats) -> UpdateStats:
    """The stats with the update's KL, if the updated agent can be trusted."""
    if not agent.finite():
        raise NotFiniteError("the policy's parameters are not finite")
    # k1 of Schulman 2020: noisier near zero than k3, but without its exp(), which runs away far from it.
    kl = -float(_mean([log_ratios(agent, rollout, slice(None)).mean() for rollout in rollouts]))
    if not kl <= BLOWN_UP * config.target_kl:
        raise NotFiniteError(f"the update went {kl:.3g} nats, the target is {config.target_kl:.3g}")
    return replace(stats, kl=kl)
