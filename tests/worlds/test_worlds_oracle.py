"""A vector world is compared step by step with a slow environment in plain Python.

The slow one knows nothing of the core: for each candidate it copies the model, rebuilds the weights in
float64 from all actions so far, runs the whole network on the raw inputs and counts with Python loops.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rledit

TIE = 2e-4
"""Logits that are closer than this might be ordered otherwise by float32; such cases are not compared."""


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 4, 3, stride=2)
        self.fc1 = nn.Linear(16, 7)
        self.fc2 = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.gelu(self.conv2(x)).flatten(1)
        logits: Tensor = self.fc2(torch.tanh(self.fc1(x)))
        return logits


@dataclass
class SlowWorld:
    """The worlds' documentation in code, for Unlearning's objective."""

    model: nn.Module
    targets: list[str]
    inputs: Tensor
    labels: list[int]
    forget: int
    world: str
    rank: int
    length: int
    bound: float
    scale: float
    candidates: int
    taken: list[Any] = field(default_factory=list)  # actions since the reset, each float64 [N, A]

    def __post_init__(self) -> None:
        self.original = {name: self.matrix(name).clone() for name in self.targets}
        self.initial_value = self.previous = [self.value({})] * self.candidates

    def matrix(self, name: str) -> Tensor:
        return self.model.get_submodule(name).weight.detach().double().flatten(1)  # type: ignore[union-attr, operator]

    def weights(self, candidate: int) -> dict[str, Tensor]:
        weights = {name: matrix.clone() for name, matrix in self.original.items()}
        for actions in self.taken:
            numbers = list(actions[candidate])
            for name, weight in weights.items():
                rows, columns = weight.shape
                std = float(self.original[name].std()) if self.world == "shift" else 1.0
                left = torch.tensor([numbers.pop(0) for _ in range(rows * self.rank)]).view(rows, self.rank)
                right = torch.tensor([numbers.pop(0) for _ in range(self.rank * columns)])
                delta = self.scale * std * (left @ right.view(self.rank, columns))
                weights[name] = weight + delta if self.world == "shift" else weight * (1 + delta)
            assert not numbers
        return weights

    def value(self, weights: dict[str, Tensor]) -> float:
        model = copy.deepcopy(self.model).double()
        for name, weight in weights.items():
            parameter = model.get_submodule(name).weight
            parameter.data = weight.reshape(parameter.shape)  # type: ignore[union-attr, operator]
        hits = {"forget": [0, 0], "retain": [0, 0]}
        with torch.no_grad():
            for logits, label in zip(model(self.inputs.double()).tolist(), self.labels, strict=True):
                first, second = sorted(logits, reverse=True)[:2]
                assert first - second > TIE, "choose another seed"
                group = hits["forget" if label == self.forget else "retain"]
                group[0] += logits.index(first) == label
                group[1] += 1
        return hits["retain"][0] / hits["retain"][1] - hits["forget"][0] / hits["forget"][1]

    def observation(self, weights: dict[str, Tensor]) -> Any:
        return torch.cat([(w / self.original[name].std()).flatten() for name, w in weights.items()]).numpy()

    def reset(self) -> Any:
        self.taken = []
        self.previous = self.initial_value
        return np.stack([self.observation(self.original)] * self.candidates)

    def step(self, actions: Any) -> tuple[Any, list[float], bool, dict[str, Any]]:
        self.taken.append(np.clip(actions.astype(np.float64), -self.bound, self.bound))
        every = [self.weights(candidate) for candidate in range(self.candidates)]
        values = [self.value(weights) for weights in every]
        rewards = [now - before for now, before in zip(values, self.previous, strict=True)]
        observations = np.stack([self.observation(weights) for weights in every])
        self.previous = values
        if len(self.taken) < self.length:
            return observations, rewards, False, {"value": values}
        final = {"final_obs": observations, "final_value": values}
        return self.reset(), rewards, True, final | {"value": self.initial_value}


def without_ties(model: nn.Module, actions_of: Any, build: Any) -> tuple[SlowWorld, list[Any]]:
    """Actions whose candidates have no sample near a tie: steps that come too near one are drawn anew."""
    slow = build(model)
    taken = []
    for step in range(2 * slow.length):
        for attempt in range(200):
            actions = actions_of(step, attempt)
            before = (list(slow.taken), slow.previous)
            try:
                slow.step(actions)
            except AssertionError:
                slow.taken, slow.previous = before
                continue
            taken.append(actions)
            break
        else:
            raise RuntimeError("every draw comes near a tie: fewer samples, please")
    return build(model), taken


TARGETS = [["fc1"], ["fc2"], ["conv2"], ["conv1"], ["fc1", "fc2"], ["fc2", "conv2"]]
RANKS = [2, 4, 3, 1, 2, 2]


def marks(world: str, length: int, seed: int, backend: str) -> list[pytest.MarkDecorator]:
    """The many alike are exhaustive: the reference backend's, and of longer episodes half of each world's."""
    alike = backend == "reference" or (length > 1 and (world == "mask") == (seed % 2 == 0))
    return [pytest.mark.exhaustive] if alike else [pytest.mark.slow] if length > 1 else []


@pytest.mark.parametrize(
    ("targets", "rank", "seed", "length", "backend", "world"),
    [
        pytest.param(targets, rank, seed, *how, world, marks=marks(world, how[0], seed, how[1]))
        for seed, (targets, rank) in enumerate(zip(TARGETS, RANKS, strict=True))
        for how in ((1, "native"), (3, "native"), (1, "reference"))
        for world in ("shift", "mask")
    ],
)
def test_step_by_step(
    world: str, length: int, targets: list[str], rank: int, seed: int, backend: str
) -> None:
    candidates, bound, scale = 4, 2.0, 0.7
    torch.manual_seed(seed)
    model = ConvNet()
    inputs = 2 * torch.randn(60, 2, 6, 6)
    with torch.no_grad():
        for parameter in (model.fc2.weight, model.fc1.weight):
            parameter.mul_(4)
        top = model(inputs).topk(2).values
    inputs = inputs[(top[:, 0] - top[:, 1]).sort(descending=True).indices[:30]]
    labels = (model(inputs).argmax(1) + (torch.rand(30) < 0.2)) % 4  # mostly right
    forget = int(labels.mode().values)
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, forget))
    task = rledit.Task(model, targets, samples, rledit.Unlearning())
    kind = {"shift": rledit.ShiftWorld, "mask": rledit.MaskWorld}[world]
    fast = kind(
        task, num_envs=candidates, rank=rank, episode_length=length, bound=bound, scale=scale, backend=backend
    )

    def draw(step: int, attempt: int) -> Any:
        generator = np.random.default_rng([seed, step, attempt])
        return generator.normal(0, 1.5, fast.action_space.shape).astype(np.float32)

    def build(model: nn.Module) -> SlowWorld:
        return SlowWorld(
            model, targets, inputs, labels.tolist(), forget, world, rank, length, bound, scale, candidates
        )

    slow, steps = without_ties(model, draw, build)
    first, infos = fast.reset(seed=seed)
    close(first, slow.reset())
    assert infos["value"].tolist() == slow.initial_value
    seen = set()
    for step, actions in enumerate(steps):
        observation, reward, terminated, truncated, infos = fast.step(actions)
        expected, rewards, over, final = slow.step(actions)
        close(observation, expected)
        assert reward.tolist() == rewards
        assert terminated.tolist() == [over] * candidates == [(step + 1) % length == 0] * candidates
        assert not truncated.any()
        assert infos["value"].tolist() == final["value"]
        if over:
            close(np.stack(infos["final_obs"]), final["final_obs"])
            assert infos["final_info"]["value"].tolist() == final["final_value"]
        seen |= set(rewards)
    assert len(seen) > 2, "the actions change too little to prove anything"
    fast.close()


def close(ours: Any, expected: Any) -> None:
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
