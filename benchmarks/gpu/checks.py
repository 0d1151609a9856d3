"""Parity on the GPU, and compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import torch

from rledit.ops import Backend, backend

from .problems import Problem

# What the sanitizer runs: small, with sizes that nothing divides.
PROGRAM = """
import torch
from benchmarks.gpu.checks import undecided_share
from benchmarks.gpu.problems import Problem, Shape
from rledit.ops import backend
ops = backend("{name}")
random = torch.Generator("cuda").manual_seed(0)
for classes in (2, 5, 130):
    logits = torch.randn(3, 70, classes, device="cuda", generator=random)
    labels = torch.randint(classes, (70,), device="cuda", generator=random)
    groups = torch.rand(9, 70, device="cuda", generator=random) < 0.5
    wanted = ["correct", "predicted", "confusion", "loss"] + (["histogram"] if classes == 2 else [])
    ops.tally_logits(logits, labels, groups, wanted, 64, 4.0)
    sizes = [37, 19, 33, classes]
    tail = [[torch.randn(o, i, device="cuda") for i, o in zip(sizes, sizes[1:])], [None] * 3, ["gelu"] * 3]
    lefts = [torch.randn(3, o, 2, device="cuda") for o in sizes[1:]]
    rights = [torch.randn(3, 2, i, device="cuda") for i in sizes[:-1]]
    x = torch.randn(70, 37, device="cuda")
    for precision in ("float32", "bfloat16"):
        ops.score_tail(x, *tail, labels, groups, lefts, rights, "mask", 0.1, precision, wanted, 64, 4.0)
weight = torch.randn(3, 33, 70, device="cuda")
ops.apply_lowrank_(weight, torch.randn(3, 33, 5, device="cuda"), torch.randn(3, 5, 70, device="cuda"), "mask",
0.1) if ops.population_linear is not None:
    ops.population_linear(x, torch.randn(70, 3, 2, device="cuda"), torch.randn(3, 37, 2, device="cuda"), 0.1)
for world in ("shift", "mask"):
    for shape in (Shape(151, 37, 19, 5, 3, 3), Shape(65, 33, 2, 0, 5, 1), Shape(129, 70, 130, 100, 2, 17)):
        undecided_share(ops, Problem(shape, world, torch.float32, "cuda"))
"""


def undecided_share(ops: Backend, problem: Problem) -> float:
    """Compare an op's counts with float64 arithmetic on the same device.

    Returns:
        the share of samples so close to a tie that rounding may decide.

    Raises:
        AssertionError: if counts differ by more than those.
    """
    ours = ops.score_tail(*problem.arguments()).correct
    worst = 0.0
    for n in range(problem.shape.candidates):
        delta = problem.left[n].double() @ problem.right[n].double()
        weight = problem.weights[0].double()
        weight = weight + delta if problem.world == "shift" else weight * (1 + delta)
        hidden = problem.activations.double() @ weight.T + problem.biases[0].double()
        if len(problem.weights) == 2:
            hidden = hidden.relu() @ problem.weights[1].double().T + problem.biases[1].double()
        top = hidden.topk(2, -1).values
        band = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}[problem.activations.dtype]
        unsure = top[:, 0] - top[:, 1] < band * hidden.std()
        hits = hidden.argmax(-1) == problem.labels
        expected = (hits & problem.masks & ~unsure).sum(-1)
        slack = (unsure & problem.masks).sum(-1)
        assert bool(((ours[n] >= expected) & (ours[n] <= expected + slack)).all()), (
            f"{ops.name}, {problem.shape}, {problem.world}, candidate {n}: {ours[n].tolist()}, expected "
            f"{expected.tolist()} and at most {slack.tolist()} more"
        )
        worst = max(worst, float(unsure.float().mean()))
    return worst


def sanitize(name: str) -> str:
    """What compute-sanitizer says of a backend, of memory, races and barriers: "clean", "not installed", or
    its report."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    # Each tensor its own memory: in torch's pools an access beyond one would be one of another's.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for check in ("memcheck", "racecheck", "synccheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c"]
        program = PROGRAM.replace("{name}", name)
        done = subprocess.run(
            [*command, program], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return f"{check}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return "clean"


def usable() -> list[Backend]:
    """The GPU backends that can be used here."""
    found = []
    for name in ("triton", "cuda"):
        try:
            found.append(backend(name))
        except RuntimeError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    return found
