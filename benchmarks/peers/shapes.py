"""What is scored: the shapes, and one problem with its labels, factors and unedited network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import rledit

from ..scoring import MLP, Shape

SHAPES = [
    Shape(10_000, 128, 32, 10, 256, 4),
    Shape(10_000, 16, 2, 0, 1024, 2),
    Shape(4_096, 768, 768, 10, 64, 8),
    Shape(2_048, 1024, 4096, 1000, 16, 8),
]
QUICK = Shape(512, 24, 16, 5, 8, 2)
WORLDS = ("shift", "mask")
PRECISIONS = ("float32", "bfloat16")
SCALE = 0.5  # not 1, so that an opponent that forgets it is found
EDIT = 0.3  # what an edit changes, relative to the weights: enough to move a good part of the predictions


@dataclass(frozen=True)
class Problem:
    """One shape in one world, in float32."""

    shape: Shape
    world: str
    model: MLP
    inputs: Tensor  # [S, I]
    labels: Tensor  # [S]
    groups: dict[str, Tensor]  # name -> [S] bool
    left: Tensor  # [N, O, R]
    right: Tensor  # [N, R, I]
    scale: float = SCALE

    @property
    def masks(self) -> Tensor:
        """[S, G] float32: hits [n, S] @ masks are the counts, exact below 2**24 samples."""
        return torch.stack(list(self.groups.values()), 1).float()

    def task(self) -> rledit.Task:
        samples = rledit.Samples(self.inputs, self.labels, self.groups)
        return rledit.Task(self.model, ["fc1"], samples, rledit.Unlearning())


def make(shape: Shape, world: str) -> Problem:
    """The same problem for the same shape and world.

    The labels are what the unedited network predicts: with random ones every edit would score alike, and an
    opponent with the wrong edit would pass for right. One in ten is label 0, so that there is one to forget.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(shape).eval()

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    inputs = normal(shape.samples, shape.inputs).relu()
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    labels[::10] = 0
    size = EDIT / (SCALE * shape.rank**0.5)
    if world == "shift":
        size *= float(model.fc1.weight.detach().std())
    return Problem(
        shape=shape,
        world=world,
        model=model,
        inputs=inputs,
        labels=labels,
        groups=rledit.forget_groups(labels, 0),
        left=size * normal(shape.candidates, shape.outputs, shape.rank),
        right=normal(shape.candidates, shape.rank, shape.inputs),
    )


def layers(model: MLP) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Weight and bias of the edited layer and of the one after it, if any."""
    weight, bias = model.fc1.weight.detach(), model.fc1.bias.detach()
    if model.fc2 is None:
        return weight, bias, None, None
    return weight, bias, model.fc2.weight.detach(), model.fc2.bias.detach()


def edited_weight(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> Tensor:
    """[O, I] from the factors of one candidate, as one would write it down."""
    change = scale * (left @ right)
    return weight + change if world == "shift" else weight * (1 + change)


def logits_of(problem: Problem, candidate: int, dtype: torch.dtype) -> Tensor:
    """[S, C], everything in one dtype: the truth in float64, and what rounding does to it in any other."""
    weight, bias, weight2, bias2 = (None if p is None else p.to(dtype) for p in layers(problem.model))
    assert weight is not None
    left, right = problem.left[candidate].to(dtype), problem.right[candidate].to(dtype)
    x = F.linear(
        problem.inputs.to(dtype), edited_weight(weight, left, right, problem.world, problem.scale), bias
    )
    return x if weight2 is None else F.linear(F.relu(x), weight2, bias2)
