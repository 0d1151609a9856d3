"""Evolution strategies: their steps, their noise, and the gradient that they follow."""

from __future__ import annotations

import pytest
import torch
from editing_tasks import make_task
from torch import Tensor

import rledit
from rledit.search.ascent import Adam, Ascent, Momentum
from rledit.search.perturbations import FactorNoise, LowRankNoise, parts_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_steps_are_those_of_torch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(20, generator=generator)
    theirs = ours.clone().requires_grad_()
    ascent: Ascent = Adam(ours, 0.1) if name == "adam" else Momentum(ours, 0.1, 0.8)
    optimizer = (
        torch.optim.Adam([theirs], lr=0.1, maximize=True)
        if name == "adam"
        else torch.optim.SGD([theirs], lr=0.1, momentum=0.8, maximize=True)
    )
    for _ in range(10):
        gradient = torch.randn(20, generator=generator)
        ascent.step_(ours, gradient)
        theirs.grad = gradient
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())


def product(env: rledit.World, vector: Tensor) -> Tensor:
    """left @ right of the only target, in units of the action."""
    part = parts_of(env.engine.layout)[0]
    rank = env.engine.rank
    left = vector[part.start : part.middle].view(part.outputs, rank)
    return left @ vector[part.middle : part.end].view(rank, part.width)


def test_noise_of_low_rank() -> None:
    """The candidate's product is the center's best approximation plus or minus noise of rank r, whose entries
    have the variance that was asked for."""
    env = rledit.ShiftWorld(make_task(), num_envs=8, rank=4)
    perturbation = LowRankNoise(env.engine, 2)
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(perturbation.size, generator=generator)
    u, s, v = torch.linalg.svd(center.view(8, 6), full_matrices=False)
    best = u[:, :2] @ torch.diag(s[:2]) @ v[:2]
    torch.testing.assert_close(product(env, perturbation.middle(center)), best, atol=1e-5, rtol=1e-5)
    noise = perturbation.draw(2000, generator)
    plus, minus = perturbation.vectors(center, noise, 0.3)
    differences = []
    for one, other in zip(plus, minus, strict=True):
        added = product(env, one) - best
        torch.testing.assert_close(added, best - product(env, other), atol=1e-5, rtol=1e-4)
        assert torch.linalg.matrix_rank(added, atol=1e-4) <= 2
        differences.append(added)
    assert float(torch.stack(differences).std()) == pytest.approx(0.3, rel=0.03)
    weights = torch.randn(2000, generator=generator)
    expected = (weights[:, None, None] * torch.stack(differences)).sum(0) / 0.3
    ours = perturbation.weighted(noise, weights).view(8, 6)
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


def test_noise_of_low_rank_on_several_targets_and_steps() -> None:
    task = make_task()
    both = rledit.Task(
        task.editable.model, ["0", "2"], task.samples, rledit.Unlearning(), validation=task.validation
    )
    env = rledit.ShiftWorld(both, num_envs=8, rank=2, episode_length=3)
    perturbation = LowRankNoise(env.engine, 1)
    assert perturbation.size == 3 * (8 * 6 + 3 * 8)
    plus, _ = perturbation.vectors(
        torch.zeros(perturbation.size), perturbation.draw(4, torch.Generator().manual_seed(0)), 0.5
    )
    assert plus.shape == (4, 3 * env.layout.size)
    for name, (left, right) in env.layout.factors(plus[:, : env.layout.size]).items():
        assert not left[:, :, 0].any(), name
        assert (left[:, :, 1] != 0).all(), name
        assert (right[:, 1] != 0).all(), name


def test_the_gradient_is_that_of_a_linear_reward() -> None:
    """With as many pairs as it takes, the weighted noise points along the slope."""
    slope = torch.linspace(-1, 1, 12)
    perturbation = FactorNoise(12)
    generator = torch.Generator().manual_seed(0)
    noise = perturbation.draw(40_000, generator)
    plus, minus = perturbation.vectors(torch.zeros(12), noise, 0.1)
    weights = (plus @ slope - minus @ slope) / (2 * 40_000 * 0.1)
    torch.testing.assert_close(perturbation.weighted(noise, weights), slope, atol=0.06, rtol=0)


def test_mirrored_candidates() -> None:
    search = rledit.ES(rledit.MaskWorld(make_task(), num_envs=7, rank=2), sigma=0.25)
    vectors = search.ask()
    start = search.center
    torch.testing.assert_close(vectors[:3] - start, start - vectors[3:6])
    assert torch.equal(vectors[6], start)


def test_it_starts_where_the_parameter_policy_does() -> None:
    env = rledit.MaskWorld(make_task(), num_envs=8, rank=2)
    policy = rledit.PPO(env, seed=5, policy="parameters").agent.policy
    assert torch.equal(rledit.ES(env, seed=5).center, policy.center.detach())


def test_nothing_is_learned_from_equal_returns() -> None:
    """Nor does the order of the mirrored halves matter."""
    search = rledit.ES(rledit.MaskWorld(make_task(), num_envs=8, rank=2))
    before = search.center.clone()
    search.ask()
    assert search.tell(torch.full((8,), 3.0, dtype=torch.float64))["gradient_norm"] == 0.0
    assert torch.equal(search.center, before)
