"""One build's side: reads the name of a piece of work from standard input, answers with seconds per call.

Only names that every version has are used here.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import rledit

SHAPES = {  # samples, inputs, outputs, classes, candidates, rank
    "10,000 x 128 -> 32 -> 10": (10_000, 128, 32, 10, 256, 4),
    "10,000 x 128 -> 32 -> 10, one": (10_000, 128, 32, 10, 1, 4),
    "10,000 x 128 -> 32 -> 10, rank 32": (10_000, 128, 32, 10, 64, 32),
    "200 x 128 -> 32 -> 10, one": (200, 128, 32, 10, 1, 4),
    "200 x 128 -> 32 -> 10": (200, 128, 32, 10, 16, 4),
    "10,000 x 16 -> 2": (10_000, 16, 2, 0, 1024, 2),
    "4,096 x 768 -> 768 -> 10": (4_096, 768, 768, 10, 8, 8),
}
WORLDS = {"shift": rledit.ShiftWorld, "mask": rledit.MaskWorld}
MOMENT = 0.2  # seconds that short calls are repeated for


def mlp(inputs: int, outputs: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(inputs, outputs)]
    if classes:
        layers += [nn.ReLU(), nn.Linear(outputs, classes)]
    return nn.Sequential(*layers).eval()


class Convolutions(nn.Module):
    """A suffix: the edited convolution is not the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(x))
        return self.head((x + torch.relu(self.norm(self.two(x)))).mean((2, 3)))


def task_of(model: nn.Module, target: str, inputs: torch.Tensor, classes: int) -> rledit.Task:
    labels = torch.arange(len(inputs)) % classes
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    return rledit.Task(model, [target], samples, rledit.Unlearning())


def scoring(task: rledit.Task, target: str, candidates: int, rank: int, world: str) -> Callable[[], Any]:
    outputs, inputs = task.weights()[target].shape
    left = 0.1 * task.weights()[target].std() * torch.randn(candidates, outputs, rank)
    right = torch.randn(candidates, rank, inputs)
    scorer = task.scorer()
    return lambda: scorer.score({target: (left, right)}, world).correct["forget"]


def linear(name: str, world: str) -> Callable[[], Any]:
    samples, inputs, outputs, classes, candidates, rank = SHAPES[name]
    task = task_of(
        mlp(inputs, outputs, classes), "0", torch.randn(samples, inputs).relu(), classes or outputs
    )
    return scoring(task, "0", candidates, rank, world)


def suffix(world: str) -> Callable[[], Any]:
    return scoring(task_of(Convolutions().eval(), "two", torch.randn(300, 16, 8, 8), 10), "two", 16, 4, world)


def update(world: str) -> Callable[[], Any]:
    task = task_of(mlp(128, 32, 10), "0", torch.randn(6_000, 128).relu(), 10)
    ppo = rledit.PPO(WORLDS[world](task, num_envs=128, rank=4))
    return lambda: torch.tensor(ppo.update()["reward_mean"])


WORK: dict[str, Callable[[], Callable[[], Any]]] = {
    **{f"scoring {name}, {world}": partial(linear, name, world) for name in SHAPES for world in WORLDS},
    **{f"scoring convolutions, {world}": partial(suffix, world) for world in WORLDS},
    **{f"an update of PPO, {world}": partial(update, world) for world in WORLDS},
}


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() - started < MOMENT:
        run()
        calls += 1
    return (time.perf_counter() - started) / calls


def main() -> None:
    warnings.simplefilter("ignore")
    runs: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        name = line.strip()
        answer: dict[str, Any] = {}
        if name not in runs:
            torch.manual_seed(0)
            runs[name] = WORK[name]()
            first = runs[name]()
            answer["result"] = hashlib.sha256(first.numpy().tobytes()).hexdigest()
        answer["seconds"] = seconds(runs[name])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
