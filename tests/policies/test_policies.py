"""Policies stand apart from PPO: features in, a distribution out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from editing_tasks import SHORT, make_task, same_edit
from torch import Tensor, nn

import rledit
from rledit.policies import POLICIES, DiagonalGaussian, Policy

RIGHT = torch.arange(10) >= 4


def make(name: str, seed: int = 0) -> Any:
    return POLICIES[name](
        3,
        RIGHT,
        hidden=8,
        initial_std=0.3,
        initial_right=0.5,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("name", POLICIES)
def test_a_fresh_policy(name: str) -> None:
    state = torch.get_rng_state()
    policy = make(name)
    assert torch.equal(torch.get_rng_state(), state)
    distribution = policy(torch.zeros(1, 3))
    assert distribution.mean.shape == (1, 10)
    assert not distribution.mean[0, ~RIGHT].any()
    assert distribution.mean[0, RIGHT].abs().min() > 0
    actions = distribution.sample(6, torch.Generator().manual_seed(1))
    assert actions.shape == (6, 10)
    normal = torch.distributions.Normal(distribution.mean, 0.3)
    torch.testing.assert_close(distribution.log_prob(actions), normal.log_prob(actions).sum(1))
    torch.testing.assert_close(distribution.entropy(), normal.entropy().sum())
    again = make(name)
    assert all(map(torch.equal, policy.parameters(), again.parameters()))
    assert not all(map(torch.equal, policy.parameters(), make(name, seed=1).parameters()))


def test_a_parameter_vector_learns_one_step_episodes() -> None:
    """They are a bandit: what it sees does not matter."""
    world = rledit.ShiftWorld(make_task(), num_envs=64, rank=2)
    ppo = rledit.PPO(world, config=rledit.PPOConfig(learning_rate=0.02), policy="parameters")
    result = ppo.train(64 * 25)
    assert result.history[-1]["reward_mean"] > result.history[0]["reward_mean"] + 0.2
    other = rledit.PPO(world)
    with pytest.raises(ValueError, match=r"does not belong to this search .*policy: 'parameters', here"):
        other.load_state(*ppo.state())


class Constant(Policy):
    """Of one's own: a mean for all left and one for all right factors."""

    def __init__(self, features: int, right: Tensor, *, initial_std: float, **others: Any) -> None:
        super().__init__()
        self.register_buffer("right", right.float())
        self.means = nn.Parameter(torch.tensor([0.0, 0.5]))
        self.log_std = nn.Parameter(torch.full((len(right),), initial_std).log())

    def forward(self, features: Tensor) -> DiagonalGaussian:
        mean = self.means[0] * (1 - self.right) + self.means[1] * self.right  # type: ignore[operator]
        return DiagonalGaussian(mean[None], self.log_std)


def test_a_policy_of_ones_own() -> None:
    def run() -> rledit.Result:
        world = rledit.MaskWorld(make_task(), num_envs=16, rank=2)
        return rledit.PPO(world, config=SHORT, policy=Constant).train(64)

    result = run()
    assert len(result.history) == 4
    assert same_edit(result.edit, run().edit)


def test_a_policy_with_a_frozen_part_is_clipped() -> None:
    class Frozen(Constant):
        def __init__(self, features: int, right: Tensor, **others: Any) -> None:
            super().__init__(features, right, **others)
            self.means.requires_grad_(False)

    world = rledit.MaskWorld(make_task(), num_envs=16, rank=2)
    config = rledit.PPOConfig(update_epochs=1, num_minibatches=1, max_grad_norm=1e-3)
    ppo = rledit.PPO(world, config=config, policy=Frozen)
    ppo.update()
    assert float(ppo.agent.policy.log_std.grad.norm()) <= 1.01e-3  # type: ignore[union-attr, operator]


def test_another_policys_state_is_refused() -> None:
    world = rledit.MaskWorld(make_task(), num_envs=8, rank=2)
    first, second = (
        rledit.PPO(
            world,
            config=SHORT,
            policy=lambda *args, std=std, **kw: Constant(*args, **kw | {"initial_std": std}),
        )
        for std in (0.2, 0.3)
    )
    first.update()
    first.load_state(*first.state())
    with pytest.raises(ValueError, match=r"does not belong to this search .*policy"):
        second.load_state(*first.state())


def test_what_is_no_policy() -> None:
    world = rledit.MaskWorld(make_task(), num_envs=4, rank=1)
    with pytest.raises(TypeError, match="policy: expected one of gaussian, parameters, or what makes"):
        rledit.PPO(world, policy=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"policy: expected to be given a rledit\.Policy, got Linear"):
        rledit.PPO(world, policy=lambda *args, **kwargs: nn.Linear(1, 1))  # type: ignore[arg-type, return-value]


def test_an_unknown_policy() -> None:
    with pytest.raises(ValueError, match=r"policy: expected one of gaussian, parameters; got 'mlp'"):
        rledit.PPO(rledit.MaskWorld(make_task(), num_envs=4, rank=1), policy="mlp")
