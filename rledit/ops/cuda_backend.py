"""The ops in CUDA C++ (``rledit._cuda``), in builds that have it: float32 tensors on a GPU.

The extension takes DLPack capsules and torch's current stream. It allocates nothing and never waits; outputs
and scratch come from torch's allocator, so that calls can be captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

from .counts import Wanted, counts_of
from .gpu import GpuOps, Kernels, Parts
from .rules import EditRule
from .tail import Candidates, TailProblem

BUILD = "-C cmake.define.RLEDIT_CUDA=ON"


def missing() -> str:
    """Why the backend cannot be used on this machine, or ""."""
    if find_spec("rledit._cuda") is None:
        return f"this build of rledit has no CUDA ops (pip install . {BUILD})"
    if not torch.cuda.is_available():
        return "no GPU is available"
    return ""


class CudaKernels:
    """The extension's functions with tensors.

    Args:
        module: ``rledit._cuda``, or a build of it that runs on the CPU, for tests.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module: Any = module

    def _stream(self, tensor: Tensor) -> int:
        return 0 if self._module.on_host else int(torch.cuda.current_stream(tensor.device).cuda_stream)

    def apply_lowrank_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
        self._module.apply_lowrank_(
            to_dlpack(weight), to_dlpack(left), to_dlpack(right), rule.kind, rule.scale, self._stream(weight)
        )

    def score_tail(
        self, problem: TailProblem, members: Tensor, candidates: Candidates, wanted: Wanted
    ) -> Parts:
        x, groups = problem.activations, len(problem.groups)
        counts = _Outputs(candidates.size, groups, problem.classes, wanted, x.device)
        outputs = [len(weight) for weight in problem.weights]
        scratch = x.new_empty(
            self._module.scratch_floats(len(x), candidates.size, outputs), dtype=torch.float32
        )
        self._module.score_tail(
            to_dlpack(x), _capsules(candidates.weights_in(problem.layers)), _capsules(problem.biases),
            problem.nonlinearities, to_dlpack(problem.labels), to_dlpack(members), groups,
            _capsules(candidates.lefts), _capsules(candidates.rights), candidates.size, candidates.rule.kind,
            candidates.rule.scale, problem.precision, *counts.capsules(), wanted.bins, wanted.margin_limit,
            to_dlpack(scratch), self._stream(x),
        )  # fmt: skip
        return counts.parts()

    def tally_logits(
        self, logits: Tensor, labels: Tensor, members: Tensor, groups: int, wanted: Wanted
    ) -> Parts:
        counts = _Outputs(logits.shape[0], groups, logits.shape[2], wanted, logits.device)
        self._module.tally_logits(
            to_dlpack(logits), to_dlpack(labels), to_dlpack(members), groups, *counts.capsules(), wanted.bins,
            wanted.margin_limit, self._stream(logits),
        )  # fmt: skip
        return counts.parts()


class _Outputs:
    """Zeroed tensors that the kernels add to."""

    def __init__(self, n: int, groups: int, classes: int, wanted: Wanted, device: torch.device) -> None:
        parts = self._parts = set(wanted.parts)
        self._device = device

        def table(part: bool, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor | None:
            return torch.zeros(n, groups, *shape, dtype=dtype, device=device) if part else None

        self.correct = table("correct" in parts)
        self.predicted = table("predicted" in parts, classes)
        self.confusion = table("confusion" in parts, classes, classes)
        self.histogram = table(wanted.binned, 2, wanted.bins)
        self.loss = table("loss" in parts, dtype=torch.float64)

    def capsules(self) -> list[Any]:
        return _capsules([self.correct, self.predicted, self.confusion, self.histogram, self.loss])

    def parts(self) -> Parts:
        tables = (self.correct, self.predicted, self.confusion, self.loss, self.histogram)
        return counts_of(*tables, self._parts, self._device)


def _capsules(tensors: Sequence[Tensor | None]) -> list[Any]:
    return [None if tensor is None else to_dlpack(tensor) for tensor in tensors]


def _kernels() -> Kernels:
    return CudaKernels(import_module("rledit._cuda"))


OPS = GpuOps("cuda", (torch.float32,), lambda: False, _kernels)
