"""The backends by name. Each offers the three ops with the signatures of their references."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from . import cuda_backend, native, triton_backend
from .apply_lowrank import apply_lowrank_ref
from .counts import Counts
from .gpu import GpuOps
from .rules import EditRule
from .score_tail import score_tail_ref
from .tally_logits import tally_logits_ref

BACKENDS = ("auto", "reference", "native", "triton", "cuda")


class PreparedTail(Protocol):
    """The arguments of score_tail that stay the same from call to call."""

    @property
    def bytes(self) -> int:
        """Memory of what it keeps."""
        ...

    def score(
        self,
        weights: Sequence[Tensor | None],  # per layer [N, O, I] in place of the layer's own, or None
        lefts: Sequence[Tensor | None],
        rights: Sequence[Tensor | None],
        candidates: int,
        world: str,
        scale: float,
        wanted: list[str],
        bins: int = 1024,
        margin_limit: float = 16.0,
    ) -> Counts:
        """score_tail of N candidates."""
        ...


class ReferenceTail:
    """Keeps the arguments and calls the reference."""

    def __init__(
        self,
        activations: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        nonlinearities: Sequence[str],
        labels: Tensor,
        groups: Tensor,
        precision: str,
    ) -> None:
        self._weights = list(weights)
        self._fixed = (list(biases), list(nonlinearities), labels, groups)
        self._activations = activations
        self._precision = precision

    @property
    def bytes(self) -> int:
        return self._activations.numel() * self._activations.element_size()

    def score(
        self,
        weights: Sequence[Tensor | None],
        lefts: Sequence[Tensor | None],
        rights: Sequence[Tensor | None],
        candidates: int,
        world: str,
        scale: float,
        wanted: list[str],
        bins: int = 1024,
        margin_limit: float = 16.0,
    ) -> Counts:
        used = [own if other is None else other for own, other in zip(self._weights, weights, strict=True)]
        return score_tail_ref(
            self._activations, used, *self._fixed, lefts, rights, world, scale, self._precision, wanted, bins,
            margin_limit,
        )  # fmt: skip


class PreparedTally(Protocol):
    """The arguments of tally_logits that stay the same from call to call."""

    def count(
        self, logits: Tensor, rows: slice, wanted: list[str], bins: int = 1024, margin_limit: float = 16.0
    ) -> Counts:
        """tally_logits of logits [N, s, C] of some of the samples."""
        ...


class PlainTally:
    """Keeps the arguments and calls the op."""

    def __init__(self, op: Callable[..., Counts], labels: Tensor, groups: Tensor, classes: int) -> None:
        self._op = op
        self._labels = labels
        self._groups = groups

    def count(
        self, logits: Tensor, rows: slice, wanted: list[str], bins: int = 1024, margin_limit: float = 16.0
    ) -> Counts:
        return self._op(logits, self._labels[rows], self._groups[:, rows], wanted, bins, margin_limit)


class Backend(NamedTuple):
    """The ops by one way to run them."""

    name: str
    apply_lowrank_: Callable[..., None]
    score_tail: Callable[..., Counts]
    tally_logits: Callable[..., Counts]
    prepare_tail: Callable[..., PreparedTail]
    prepare_tally: Callable[[Tensor, Tensor, int], PreparedTally]
    """From labels [S], groups [G, S] and the number of classes."""
    population_linear: Callable[..., Tensor] | None = None
    """Of a suffix's shifted Linear layers; None: torch does it."""

    def edit_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
        """Edit weights [N, O, I] in place: by the op where it knows the rule, else in plain PyTorch."""
        if rule.fused:
            self.apply_lowrank_(weight, left, right, rule.kind, rule.scale)
        else:
            rule.edit_(weight, left, right)


_REFERENCE = Backend(
    "reference", apply_lowrank_ref, score_tail_ref, tally_logits_ref, ReferenceTail,
    partial(PlainTally, tally_logits_ref),
)  # fmt: skip
_NATIVE = Backend(
    "native", native.apply_lowrank_, native.score_tail, native.tally_logits, native.NativeTail,
    partial(PlainTally, native.tally_logits),
)  # fmt: skip


def _of_gpu(ops: GpuOps, population_linear: Callable[..., Tensor] | None = None) -> Backend:
    return Backend(
        ops.name, ops.apply_lowrank_, ops.score_tail, ops.tally_logits, ops.prepare_tail, ops.prepare_tally,
        population_linear,
    )  # fmt: skip


_TRITON = _of_gpu(triton_backend.OPS, triton_backend.population_linear)
_CUDA = _of_gpu(cuda_backend.OPS)
_GPU = (
    (_CUDA, cuda_backend.OPS, cuda_backend.missing),
    (_TRITON, triton_backend.OPS, triton_backend.missing),
)
"""By preference, each with why it cannot be used here."""


def backend(name: str = "auto", device: str = "cpu") -> Backend:
    """The backend called ``name``.

    Args:
        name: "auto" takes the environment variable RLEDIT_BACKEND, else the best for the device: "native" on
            the CPU, on a GPU "cuda" in builds that have it, "triton" if that is installed, else
            "reference".
        device: the type of the tensors' device.

    Raises:
        ValueError: for an unknown name, with the valid ones.
        RuntimeError: for "triton" or "cuda" where it cannot be used; says why.
    """
    asked = name
    if name == "auto":
        name = os.environ.get("RLEDIT_BACKEND", "auto")
        asked = name if name == "auto" else f"{name} (from RLEDIT_BACKEND)"
    if name == "auto":
        if device == "cpu":
            return _NATIVE
        usable = [known for known, _, reason in _GPU if device == "cuda" and not reason()]
        return usable[0] if usable else _REFERENCE
    if name == "native":
        return _NATIVE
    if name == "reference":
        return _REFERENCE
    for known, _, missing in _GPU:
        if name == known.name:
            if reason := missing():
                raise RuntimeError(f"backend: {asked!r} cannot be used, {reason}")
            return known
    raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}; got {asked!r}")


def _on_gpu(op: str) -> Callable[..., Any]:
    """The registered op for CUDA tensors: of the first backend that is there and knows the dtype."""

    def run(*arguments: Any) -> Any:
        for _, ops, missing in _GPU:
            if ops.takes(arguments[0]) and not missing():
                return getattr(ops, op)(*arguments)
        return getattr(_REFERENCE, op)(*arguments)

    return run


for _op in ("apply_lowrank_", "score_tail", "tally_logits"):
    torch.library.impl(f"rledit::{_op}", "CUDA")(_on_gpu(_op))
