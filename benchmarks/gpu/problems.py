"""The shapes, with numbers in them, and the opponents."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from rledit.ops import Candidates, EditRule, Layer, TailProblem, Wanted

from .. import scoring


class Shape(scoring.Shape):
    """A shape whose name also gives its candidates and rank."""

    def __str__(self) -> str:
        return f"{super().__str__()}, N {self.candidates}, R {self.rank}"


SHAPES = [
    Shape(10_000, 128, 32, 10, 256, 4),
    Shape(10_000, 16, 2, 0, 1_024, 2),
    Shape(4_096, 768, 768, 10, 64, 8),
    Shape(2_048, 1_024, 4_096, 1_000, 16, 8),
]


WANTED = Wanted(["correct"])


class Problem:
    """A tail whose first layer is edited.

    Attributes:
        weights, biases: weights and biases of one or two layers, ReLU between them.
        masks: bool [2, S].
    """

    def __init__(self, shape: Shape, world: str, dtype: torch.dtype, device: str) -> None:
        random = torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=random).to(device, dtype)

        self.shape = shape
        self.world = world
        sizes = [shape.inputs, shape.outputs, *([shape.classes] if shape.classes else [])]
        self.activations = normal(shape.samples, shape.inputs)
        self.weights = [normal(o, i) / i**0.5 for i, o in pairwise(sizes)]
        self.biases = [normal(o) for o in sizes[1:]]
        self.left = normal(shape.candidates, shape.outputs, shape.rank) / (shape.rank * shape.inputs) ** 0.5
        self.right = normal(shape.candidates, shape.rank, shape.inputs)
        self.labels = torch.randint(sizes[-1], (shape.samples,), generator=random).to(device)
        self.masks = (torch.rand(2, shape.samples, generator=random) < 0.5).to(device)

    @property
    def tail(self) -> TailProblem:
        """What is prepared once."""
        functions = ["relu"] * (len(self.weights) - 1) + ["identity"]
        layers = tuple(map(Layer, self.weights, self.biases, functions))
        return TailProblem(self.activations, layers, self.labels, self.masks)

    @property
    def candidates(self) -> Candidates:
        """What a call brings."""
        nothing = [None] * (len(self.weights) - 1)
        return Candidates(
            self.shape.candidates,
            EditRule(self.world),
            [self.left, *nothing],
            [self.right, *nothing],
            [None, *nothing],
        )


Count = Callable[[Problem, Tensor, Tensor], Tensor]
"""Counts ``correct`` [n, 2] of a problem and some candidates' factors."""


def _finish(problem: Problem, hidden: Tensor) -> Tensor:
    # hidden: [n, S, O] before the nonlinearity, or the logits.
    if len(problem.weights) == 2:
        hidden = F.linear(F.relu(hidden), problem.weights[1], problem.biases[1])
    hits = hidden.argmax(-1) == problem.labels
    return (hits[:, None] & problem.masks).sum(-1)


def eager(problem: Problem, left: Tensor, right: Tensor) -> Tensor:
    delta = left @ right
    weight = problem.weights[0] + delta if problem.world == "shift" else problem.weights[0] * (1 + delta)
    hidden = problem.activations @ weight.transpose(1, 2) + problem.biases[0]
    return _finish(problem, hidden)


def low_rank(problem: Problem, left: Tensor, right: Tensor) -> Tensor:
    n, rank = right.shape[:2]
    shared = F.linear(problem.activations, problem.weights[0], problem.biases[0])
    reduced = F.linear(problem.activations, right.flatten(0, 1)).unflatten(1, (n, rank)).transpose(0, 1)
    return _finish(problem, torch.baddbmm(shared.expand(n, -1, -1), reduced, left.transpose(1, 2)))


def expand(problem: Problem, left: Tensor, right: Tensor) -> Tensor:
    shared = F.linear(problem.activations, problem.weights[0], problem.biases[0])
    shrunk = problem.activations @ right.transpose(1, 2)  # one small product for each adapter
    return _finish(problem, shared + shrunk @ left.transpose(1, 2))


OPPONENTS: dict[str, Count] = {"eager": eager, "low-rank": low_rank, "expand": expand}
SHIFT_ONLY = ("low-rank", "expand")


def in_chunks(count: Count, problem: Problem, chunk: int) -> Tensor:
    """All candidates, some at a time."""
    parts = zip(problem.left.split(chunk), problem.right.split(chunk), strict=True)
    return torch.cat([count(problem, left, right) for left, right in parts])
