"""Parity on the GPU, and compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import torch

from rledit.ops import Backend, backend

from .. import ROOT
from .problems import WANTED, Problem


def undecided_share(ops: Backend, problem: Problem) -> float:
    """Compare an op's counts with float64 arithmetic on the same device.

    Returns:
        the share of samples so close to a tie that rounding may decide.

    Raises:
        AssertionError: if counts differ by more than those.
    """
    ours = ops.prepare_tail(problem.tail).score(problem.candidates, WANTED).correct
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
        command = [tool, "--tool", check, "--error-exitcode", "9"]
        command += [sys.executable, "-m", "benchmarks.gpu.exercise", name]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
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
