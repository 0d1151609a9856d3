"""Whole steps of a world on a GPU: kernel by kernel, as a CUDA graph, and with the policy's update."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import nn

import rledit

from .problems import SHAPES, Shape

Row = dict[str, Any]
Timer = Callable[[Callable[[], Any]], float]


def task_of(shape: Shape, device: str) -> rledit.Task:
    """Random samples of a network whose last layers are the shape's."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(shape.inputs, shape.outputs)]
    if shape.classes:
        layers += [nn.ReLU(), nn.Linear(shape.outputs, shape.classes)]
    model = nn.Sequential(*layers).to(device)
    inputs = torch.randn(shape.samples, shape.inputs)
    labels = torch.randint(shape.classes or shape.outputs, (shape.samples,))
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    return rledit.Task(model, ["0"], samples, rledit.Unlearning())


def measure(timer: Timer, backend: str, device: str, shapes: list[Shape] = SHAPES) -> list[Row]:
    """Times of a step and of an update of PPO, both worlds, after comparing the graph's rewards with the
    plain step's.

    Raises:
        AssertionError: if they differ.
    """
    rows = []
    for shape in shapes:
        task = task_of(shape, device)
        for kind in (rledit.ShiftWorld, rledit.MaskWorld):
            row: Row = {"backend": backend, "shape": str(shape), "world": kind.world}
            rewards = []
            for way in ("plain", "graph") if device == "cuda" else ("plain",):
                make = partial(
                    kind, task, shape.candidates, shape.rank, backend=backend, observation="neurons"
                )
                world = make(graph=way == "graph")
                random = torch.Generator().manual_seed(0)
                actions = torch.randn(shape.candidates, world.layout.size, generator=random).to(device)
                rewards.append(_step(world, actions))
                row[f"{way} step"] = timer(partial(_step, world, actions))
                trainer = rledit.PPO(world)
                row[f"{way} update"] = timer(trainer.update)
                world.close()
            assert all(torch.equal(rewards[0], other) for other in rewards), f"{row}: the graph differs"
            rows.append(row)
    return rows


def _step(world: rledit.worlds.World, actions: torch.Tensor) -> torch.Tensor:
    world.engine.start(actions)
    rewards = world.engine.wait().rewards
    world.engine.reset()
    return rewards


def table(rows: list[Row]) -> Table:
    out = Table(title="A step of N candidates, and PPO's collecting and learning from them, on a GPU")
    for header in ("shape", "world", "backend"):
        out.add_column(header)
    columns = ("plain step", "graph step", "plain update", "graph update")
    for header in columns:
        out.add_column(f"{header}, ms", justify="right")
    for row in rows:
        cells = [f"{row[name]:.3f}" if name in row else "" for name in columns]
        out.add_row(row["shape"], row["world"], row["backend"], *cells)
    return out
