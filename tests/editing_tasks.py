"""Small tasks and trainers that several tests edit with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import rledit
from rledit.worlds import World

SHORT = rledit.PPOConfig(update_epochs=3, hidden=16, elites=5)


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.conv(x)).flatten(1))
        return logits


def make_task(objective: Any = None, conv: bool = False) -> rledit.Task:
    """Samples that the model gets right by a margin; the class to forget is 1."""
    torch.manual_seed(0)
    model = ConvNet() if conv else nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = torch.randn(600, 1, 4, 4) if conv else torch.randn(600, 6)
    with torch.no_grad():
        top = model(inputs).topk(2)
    picked = []
    for label in range(3):
        own = (top.indices[:, 0] == label).nonzero().flatten()
        margin = top.values[own, 0] - top.values[own, 1]
        picked.append(own[margin.sort(descending=True).indices[:20]])
    rows = torch.cat(picked)
    labels = top.indices[rows, 0]

    def split(part: slice) -> rledit.Samples:
        return rledit.Samples(inputs[rows[part]], labels[part], rledit.forget_groups(labels[part], 1))

    target = "conv" if conv else "0"
    return rledit.Task(
        model, [target], split(slice(0, 60, 2)), objective or rledit.Unlearning(), split(slice(1, 60, 2))
    )


def make_ppo(
    kind: type[World] = rledit.MaskWorld,
    seed: int = 0,
    config: Any = SHORT,
    conv: bool = False,
    **kwargs: Any,
) -> rledit.PPO:
    env = kind(make_task(conv=conv), **{"num_envs": 16, "rank": 2, **kwargs})  # type: ignore[arg-type]
    return rledit.PPO(env, seed=seed, config=config)


def same_edit(one: rledit.Edit, two: rledit.Edit) -> bool:
    assert one.targets == two.targets
    return all(
        torch.equal(a, b)
        for name in one.targets
        for a, b in zip(one.factors[name], two.factors[name], strict=True)
    )
