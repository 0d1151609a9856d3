"""Every op of a GPU backend once, on sizes that nothing divides: what compute-sanitizer watches.

python -m benchmarks.gpu.exercise NAME
"""

from __future__ import annotations

import sys
from itertools import pairwise

import torch
from torch import Tensor

from rledit.ops import Backend, Candidates, EditRule, Layer, TailProblem, Wanted, backend

from .checks import undecided_share
from .problems import Problem, Shape

SHAPES = (Shape(151, 37, 19, 5, 3, 3), Shape(65, 33, 2, 0, 5, 1), Shape(129, 70, 130, 100, 2, 17))


def exercise(ops: Backend, device: str) -> None:
    """Run every op once.

    Raises:
        AssertionError: for a wrong count of the tails of one or two layers, which are compared.
    """
    random = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random).to(device)

    samples, n = 70, 3
    for classes in (2, 5, 130):
        labels = torch.randint(classes, (samples,), generator=random).to(device)
        groups = (torch.rand(9, samples, generator=random) < 0.5).to(device)
        parts = ["correct", "predicted", "confusion", "loss"] + (["histogram"] if classes == 2 else [])
        wanted = Wanted(parts, 64, 4.0)
        ops.prepare_tally(labels, groups, classes).count(normal(n, samples, classes), slice(None), wanted)
        sizes = list(pairwise([37, 19, 33, classes]))
        layers = tuple(Layer(normal(o, i), None, "gelu") for i, o in sizes)
        lefts, rights = [normal(n, o, 2) for _, o in sizes], [normal(n, 2, i) for i, _ in sizes]
        candidates = Candidates(n, EditRule("mask", 0.1), lefts, rights, [None] * 3)
        for precision in ("float32", "bfloat16"):
            problem = TailProblem(normal(samples, 37), layers, labels, groups, precision)
            ops.prepare_tail(problem).score(candidates, wanted)
    ops.edit_(normal(n, 33, 70), normal(n, 33, 5), normal(n, 5, 70), EditRule("mask", 0.1))
    if ops.population_linear is not None:
        ops.population_linear(normal(samples, 37), normal(samples, n, 2), normal(n, 37, 2), 0.1)
    for world in ("shift", "mask"):
        for shape in SHAPES:
            undecided_share(ops, Problem(shape, world, torch.float32, device))


if __name__ == "__main__":
    exercise(backend(sys.argv[1]), "cuda")
