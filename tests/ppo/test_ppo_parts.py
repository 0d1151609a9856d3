"""PPO's parts against hand computations, and the guard against blowing up."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.policies import LOG_STD_LIMITS, DiagonalGaussian
from rledit.ppo import trainer
from rledit.ppo import update as ppo_update
from rledit.ppo.agent import Agent, NotFiniteError, learner_tensors
from rledit.ppo.guard import Guard
from rledit.ppo.rollout import Arriving, Rollout, advantages, expected_returns
from rledit.ppo.update import clipped_loss, kl_estimate, log_ratios, update, values
from rledit.search import SearchEnded

CONFIG = rledit.PPOConfig(update_epochs=3, hidden=16, elites=5, recoveries=3)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task() -> rledit.Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = torch.randn(60, 6)
    labels = model(inputs).argmax(1)
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, int(labels[0])))
    return rledit.Task(model, ["0"], samples, rledit.Unlearning())


def make_ppo(task: rledit.Task, length: int = 1, **settings: Any) -> rledit.PPO:
    config = rledit.PPOConfig(**{"update_epochs": 3, "hidden": 16, "elites": 5, "recoveries": 3, **settings})
    return rledit.PPO(rledit.MaskWorld(task, num_envs=16, rank=2, episode_length=length), config=config)


def make_rollout(steps: int, envs: int, actions: int = 4, shared: bool = True) -> Rollout:
    return Rollout(
        observations=[torch.randn(1 if shared and t == 0 else envs, 3) for t in range(steps)],
        actions=torch.randn(steps, envs, actions),
        log_probs=torch.randn(steps, envs),
        rewards=torch.randn(steps, envs),
        returns=torch.zeros(envs, dtype=torch.float64),
        metrics={},
        score_seconds=0.0,
    )


def make_agent(actions: int = 4, config: rledit.PPOConfig = CONFIG) -> Agent:
    return Agent(3, torch.arange(actions) >= actions // 2, config, seed=1)


# ------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.5, 0.0)])
def test_advantages_are_the_direct_sum(steps: int, gamma: float, lam: float) -> None:
    """arXiv:1506.02438, equation 16: sum over l of (gamma lambda)^l delta_{t+l}."""
    torch.manual_seed(steps)
    rollout, agent = make_rollout(steps, 6), make_agent()
    expected = expected_returns(agent.value, rollout.observations)
    ours, targets = advantages(rollout, expected, gamma, lam)
    with torch.no_grad():
        values = [agent.value(rows).expand(6).tolist() for rows in rollout.observations]
    for env in range(6):
        for t in range(steps):
            total = 0.0
            for k in range(t, steps):
                after = values[k + 1][env] if k + 1 < steps else 0.0
                total += (gamma * lam) ** (k - t) * (
                    float(rollout.rewards[k, env]) + gamma * after - values[k][env]
                )
            assert float(ours[t, env]) == pytest.approx(total, abs=1e-5)
            assert float(targets[t, env]) == pytest.approx(total + values[t][env], abs=1e-5)


def test_kl_estimate() -> None:
    ratios = [0.5, 1.0, 1.7, 3.0]
    expected = sum(r - 1 - math.log(r) for r in ratios) / 4
    assert kl_estimate(torch.tensor(ratios).log().view(2, 2)) == pytest.approx(expected, rel=1e-6)
    # and it estimates the KL of two Gaussians
    sampled = torch.distributions.Normal(0.0, 1.0)
    other = torch.distributions.Normal(0.3, 1.2)
    x = sampled.sample((200_000,))
    exact = float(torch.distributions.kl_divergence(sampled, other))
    assert kl_estimate(other.log_prob(x) - sampled.log_prob(x)) == pytest.approx(exact, rel=0.03)


def test_clipped_loss() -> None:
    ratios, advantage = [0.5, 1.1, 1.5, 0.5, 1.1, 1.5], [2.0, 2.0, 2.0, -2.0, -2.0, -2.0]
    # A > 0 gains nothing above 1.2, A < 0 nothing below 0.8
    expected = -(0.5 * 2 + 1.1 * 2 + 1.2 * 2 - 0.8 * 2 - 1.1 * 2 - 1.5 * 2) / 6
    log_ratio = torch.tensor(ratios).log().requires_grad_()
    loss, clipped = clipped_loss(log_ratio, torch.tensor(advantage), 0.2)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert clipped == pytest.approx(4 / 6)
    loss.backward()
    assert log_ratio.grad is not None
    assert (log_ratio.grad != 0).tolist() == [True, True, False, False, True, True]


def test_log_prob_and_entropy() -> None:
    agent = make_agent()
    with torch.no_grad():
        agent.policy.log_std.uniform_(-2, 1)
    normal = torch.distributions.Normal(torch.randn(5, 4), agent.policy.log_std.exp())
    actions = torch.randn(5, 4)
    ours = DiagonalGaussian(normal.mean, agent.policy.log_std)
    torch.testing.assert_close(ours.log_prob(actions), normal.log_prob(actions).sum(1))
    torch.testing.assert_close(ours.entropy(), normal.entropy()[0].sum())


def test_a_shared_row_is_evaluated_as_its_copies() -> None:
    rollout, agent = make_rollout(1, 6), make_agent()
    index = torch.tensor([4, 0, 3])
    ratios, expected = log_ratios(agent, rollout, index), values(agent, rollout, index)
    rollout.observations[0] = rollout.observations[0].expand(6, -1)
    torch.testing.assert_close(log_ratios(agent, rollout, index), ratios)
    torch.testing.assert_close(values(agent, rollout, index), expected)


@pytest.mark.parametrize(
    ("normalize", "steps", "matters"), [(True, 1, False), (False, 1, True), (True, 2, True)]
)
def test_the_value_function_is_trained_where_it_matters(
    monkeypatch: pytest.MonkeyPatch, normalize: bool, steps: int, matters: bool
) -> None:
    config = replace(CONFIG, norm_adv=normalize, target_kl=1e6)
    trained = {}
    for forced in (False, True):
        if forced:
            monkeypatch.setattr(ppo_update, "value_matters", lambda *_: True)
        agent = make_agent(config=config)
        torch.manual_seed(0)
        rollout = make_rollout(steps, 6)
        before = agent.value.head.weight.detach().clone()
        optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
        arriving = Arriving([6], rollout.observations, [lambda rollout=rollout: rollout])  # type: ignore[misc]
        stats = ppo_update.update(agent, optimizer, [arriving], config, torch.Generator().manual_seed(0))
        assert stats.steps > 1
        changed = not torch.equal(before, agent.value.head.weight)
        assert changed == (matters or forced)
        trained[forced] = torch.cat([value.detach().flatten() for value in agent.policy.parameters()])
    # the policy learns the same either way
    torch.testing.assert_close(trained[False], trained[True], rtol=1e-4, atol=1e-5)


def test_a_fresh_policy_is_near_the_identity() -> None:
    agent = make_agent(actions=1000)
    with torch.no_grad():
        mean = agent.policy(torch.randn(1, 3)).mean[0]
    assert float(mean[:500].abs().max()) < 0.1  # left
    assert float(mean[500:].std()) == pytest.approx(0.5, rel=0.15)  # right
    assert float(agent.policy.log_std.exp().mean().detach()) == pytest.approx(0.37, rel=1e-5)
    assert agent.policy.log_std.exp().std() < 1e-6


# ---------------------------------------------------------------------------------------------- guard


def copies(ppo: rledit.PPO) -> dict[str, Tensor]:
    tensors = learner_tensors(ppo.agent, ppo.optimizer)
    return {name: value.clone() for name, value in tensors.items()}


def assert_same(ppo: rledit.PPO, expected: dict[str, Tensor]) -> None:
    now = learner_tensors(ppo.agent, ppo.optimizer)
    assert now.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(now[name], value), name


def assert_usable(result: rledit.Result) -> None:
    for left, right in result.edit.factors.values():
        assert left.isfinite().all()
        assert right.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e12])
@pytest.mark.parametrize("where", ["policy.head.bias", "policy.log_std", "value.trunk.0.weight"])
@pytest.mark.parametrize("length", [1, 2])
def test_a_poisoned_policy_is_set_back(
    task: rledit.Task, poison: float, where: str, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    ppo = make_ppo(task, length)
    ppo.update()
    kept = copies(ppo)
    ppo.guard.keep()
    with torch.no_grad():
        ppo.agent.get_parameter(where).view(-1)[0] = poison
    with caplog.at_level(logging.WARNING, "rledit"):
        rollout = ppo._collect()[0].whole()
    assert_same(ppo, kept)
    assert rollout.actions.isfinite().all()
    assert ppo.optimizer.param_groups[0]["lr"] == CONFIG.learning_rate / 2
    assert ppo.guard.recoveries == 1
    assert "The last good policy is back, the learning rate is now 0.00025" in caplog.text
    result = ppo.train(16 * length * 4)
    assert_usable(result)
    assert result.stopped == ""


def test_a_poisoned_policy_is_not_kept(task: rledit.Task) -> None:
    ppo = make_ppo(task)
    ppo.update()
    expected = copies(ppo)
    with torch.no_grad():
        ppo.agent.policy.head.bias[0] = float("nan")
    row = ppo.update()  # goes back by one update, and on from there
    assert row["recoveries"] == 1
    assert ppo.agent.finite()
    assert all(value.isfinite().all() for value in copies(ppo).values())
    assert expected.keys() == copies(ppo).keys()


def test_a_loss_that_is_not_finite(task: rledit.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make_ppo(task)
    ppo.update()
    before = copies(ppo)
    monkeypatch.setattr(
        "rledit.ppo.update.clipped_loss", lambda ratio, advantage, clip: (ratio.sum() / 0, 0.0)
    )
    row = ppo.update()
    assert_same(ppo, before)
    assert (row["optimizer_steps"], row["recoveries"]) == (0, 1)
    assert row["learning_rate"] == CONFIG.learning_rate / 2
    assert all(math.isfinite(value) for value in row.values())
    monkeypatch.undo()
    row = ppo.update()
    assert row["optimizer_steps"] > 0
    assert row["recoveries"] == 1


def test_an_infinite_gradient(task: rledit.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make_ppo(task)
    before = copies(ppo)

    def steep(log_ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, float]:
        return log_ratio.square().sum().sqrt(), 0.0  # its gradient at zero is NaN, the loss is not

    monkeypatch.setattr("rledit.ppo.update.clipped_loss", steep)
    ppo.update()
    assert_same(ppo, before)


@pytest.mark.parametrize("rate", [1e6, 1e30])
@pytest.mark.parametrize("length", [1, 2])
def test_a_huge_learning_rate(
    task: rledit.Task, rate: float, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    ppo = make_ppo(task, length, learning_rate=rate)
    with caplog.at_level(logging.WARNING, "rledit"):
        result = ppo.train(16 * length * 20)
    assert "the policy blew up 4 times" in result.stopped
    assert len(result.history) == 4
    assert ppo.optimizer.param_groups[0]["lr"] == rate / 16
    assert ppo.agent.finite()
    assert_usable(result)
    assert len(caplog.records) == 4
    assert ppo.train(16 * length * 20).stopped == result.stopped  # it stays stopped
    again = make_ppo(task, length, learning_rate=rate)
    again.load_state(*ppo.state())
    assert again.train(16 * length * 20).stopped == result.stopped


def test_the_very_first_policy_is_bad(task: rledit.Task) -> None:
    ppo = make_ppo(task)
    with torch.no_grad():
        ppo.agent.policy.trunk[0].weight.fill_(float("nan"))
    ppo.guard = Guard(ppo.agent, ppo.optimizer)
    with pytest.raises(SearchEnded, match="blew up 4 times"):
        ppo.update()
    result = ppo.train(160)
    assert "blew up 4 times" in result.stopped
    assert (result.history, result.candidates, result.origin) == ([], 0, "no edit")
    assert_usable(result)
    ((left, right),) = result.edit.factors.values()
    assert not (left @ right).any()


def test_collecting_that_keeps_failing(task: rledit.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make_ppo(task)
    ppo.update()
    calls = []

    def fails(*args: Any) -> Rollout:
        calls.append(args)
        raise NotFiniteError("the policy's actions are not finite")

    monkeypatch.setattr(trainer, "start", fails)
    result = ppo.train(1600)
    assert len(calls) == 4
    assert result.stopped == "the policy blew up 4 times (the policy's actions are not finite)"
    assert len(result.history) == 1
    assert_usable(result)


def test_an_objectives_own_floating_point_error_is_not_swallowed(
    task: rledit.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = make_ppo(task)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise FloatingPointError("somebody else's")

    monkeypatch.setattr(ppo.engine.episodes.scorer, "count", fails)
    with pytest.raises(FloatingPointError, match="somebody else's"):
        ppo.train(16)
    assert ppo.guard.recoveries == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_deviation_is_bounded(task: rledit.Task, sign: int) -> None:
    ppo = make_ppo(task, learning_rate=0.5, target_kl=1e9, update_epochs=8, initial_std=math.exp(sign * 1.9))
    with torch.no_grad():
        ppo.agent.policy.log_std.fill_(LOG_STD_LIMITS[sign > 0])
    result = ppo.train(16 * 10)
    assert float(ppo.agent.policy.log_std.detach().max()) <= LOG_STD_LIMITS[1]
    assert float(ppo.agent.policy.log_std.detach().min()) >= LOG_STD_LIMITS[0]
    assert ppo.elites.actions.abs().max() <= ppo.env.bound
    assert_usable(result)


def test_an_entropy_bonus_does_not_run_away(task: rledit.Task) -> None:
    ppo = make_ppo(task, ent_coef=100.0, learning_rate=0.3, target_kl=1e9)
    first = float(ppo.agent.policy(ppo.engine.initial_observation).entropy().detach())
    result = ppo.train(16 * 10)
    assert result.history[-1]["entropy"] > first
    assert float(ppo.agent.policy.log_std.detach().max()) <= LOG_STD_LIMITS[1]
    assert_usable(result)


def test_kl_stops_an_update(task: rledit.Task) -> None:
    far = make_ppo(task, target_kl=0.01, learning_rate=3e-3, update_epochs=20).update()
    near = make_ppo(task, target_kl=1e6, learning_rate=3e-3, update_epochs=20).update()
    assert 1 <= far["optimizer_steps"] < near["optimizer_steps"] == 40


def test_policy_and_value_are_clipped_apart() -> None:
    """A value loss of any size leaves the policy's step as it is."""
    steps = []
    for scale in (0.0, 1e4):
        config = rledit.PPOConfig(update_epochs=1, num_minibatches=1, hidden=16, vf_coef=scale, target_kl=1e9)
        agent = make_agent(config=config)
        optimizer = torch.optim.SGD(agent.parameters(), lr=0.1)
        torch.manual_seed(0)
        rollout = make_rollout(1, 8)
        arriving = Arriving([8], rollout.observations, [lambda rollout=rollout: rollout])
        update(agent, optimizer, [arriving], config, torch.Generator().manual_seed(0))
        steps.append(agent.policy.head.weight.detach().clone())
    assert torch.equal(*steps)


# --------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"learning_rate": 0.0}, "learning_rate: expected a positive number, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate: expected a positive number, got 'fast'"),
        ({"learning_rate": True}, "learning_rate"),
        ({"clip_coef": 0}, "clip_coef: expected a positive number"),
        ({"clip_coef": -0.1}, "clip"),
        ({"target_kl": float("inf")}, "target_kl"),
        ({"max_grad_norm": 0}, "max_grad_norm"),
        ({"vf_coef": -1}, "vf_coef: expected a number of at least 0, got -1"),
        ({"update_epochs": 0}, "update_epochs: expected an integer of at least 1, got 0"),
        ({"update_epochs": 2.0}, "update_epochs: expected an integer"),
        ({"num_minibatches": True}, "num_minibatches: expected an integer"),
        ({"hidden": 0}, "hidden"),
        ({"elites": 0}, "elites"),
        ({"recoveries": -1}, "recoveries: expected an integer of at least 0"),
        ({"gamma": 1.1}, r"gamma: expected a number in 0\.\.1, got 1\.1"),
        ({"gae_lambda": 2}, "gae_lambda"),
        ({"initial_std": 100.0}, r"initial_std: expected 0\.00034 to 7\.4, got 100"),
        ({"initial_std": 1e-9}, "initial_std"),
        ({"initial_right": float("inf")}, "initial_right"),
        ({"norm_adv": 1}, "norm_adv: expected True or False, got 1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rledit.PPOConfig(**settings)


def test_extreme_settings_are_allowed() -> None:
    rledit.PPOConfig(vf_coef=0, ent_coef=0.0, gamma=0, gae_lambda=0, recoveries=0, initial_right=0)
