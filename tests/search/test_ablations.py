"""The space of TPE: directions and strengths."""

from __future__ import annotations

import pytest
import torch
from editing_tasks import make_task
from torch import nn

import rledit
from rledit.search.ablations import STRENGTHS, Ablations

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers_of(space: Ablations, strength: float, candidates: int = 6) -> torch.Tensor:
    numbers = torch.rand(candidates, space.dimensions, generator=torch.Generator().manual_seed(0)).double()
    low, high = STRENGTHS
    numbers[:, -1] = (strength - low) / (high - low)
    return numbers


@pytest.mark.parametrize("directions", ["all", "strata", "groups"])
def test_strength_one_takes_a_direction_out(directions: str) -> None:
    """Under shift the edited weight has no response to the direction, and any other to what is at right
    angles; strength 0 is the identity."""
    task = make_task()
    env = rledit.ShiftWorld(task, num_envs=6, rank=2, directions=directions, bound=1e3)
    space = Ablations(env.engine)
    weight = task.weights()["0"].double()
    edited = env.engine.edited(space.actions(numbers_of(space, 1.0)))["0"].double()
    for each in edited:
        change = each - weight
        assert torch.linalg.matrix_rank(change, atol=1e-4) == 1
        direction = torch.linalg.svd(change).Vh[0]
        torch.testing.assert_close(each @ direction, torch.zeros(8).double(), atol=1e-4, rtol=0)
    same = env.engine.edited(space.actions(numbers_of(space, 0.0)))["0"].double()
    torch.testing.assert_close(same, weight.expand_as(same), atol=1e-6, rtol=0)


def test_mask_dampens_inputs() -> None:
    task = make_task()
    env = rledit.MaskWorld(task, num_envs=6, rank=2)
    space = Ablations(env.engine)
    weight = task.weights()["0"].double()
    ratios = env.engine.edited(space.actions(numbers_of(space, 1.0)))["0"].double() / weight
    for ratio in ratios:
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-4, rtol=0)
        assert float((1 - ratio).abs().max()) == pytest.approx(1.0, abs=1e-4)


def test_what_ablation_cannot_do_is_refused() -> None:
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="env: expected episodes of one step, got 2"):
        rledit.TPE(rledit.ShiftWorld(make_task(), num_envs=4, rank=1, episode_length=2))
    model = nn.Sequential(nn.Linear(80, 90), nn.ReLU(), nn.Linear(90, 80))
    labels = torch.arange(80)
    samples = rledit.Samples(torch.eye(80), labels, rledit.forget_groups(labels, 1))
    task = rledit.Task(model, ["2"], samples, rledit.Unlearning())
    with pytest.raises(ValueError, match=r"env: expected at most 64 .* got 81"):
        rledit.TPE(rledit.ShiftWorld(task, num_envs=4, rank=1))
