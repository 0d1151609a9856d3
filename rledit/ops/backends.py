"""The backends by name. Each offers the three ops with the signatures of their references."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from . import native, triton_backend
from .apply_lowrank import apply_lowrank_ref
from .counts import Counts
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


class Backend(NamedTuple):
    name: str
    apply_lowrank_: Callable[..., None]
    score_tail: Callable[..., Counts]
    tally_logits: Callable[..., Counts]
    prepare_tail: Callable[..., PreparedTail]
    population_linear: Callable[..., Tensor] | None = None
    """Of a suffix's shifted Linear layers; None: torch does it."""


_REFERENCE = Backend("reference", apply_lowrank_ref, score_tail_ref, tally_logits_ref, ReferenceTail)
_NATIVE = Backend("native", native.apply_lowrank_, native.score_tail, native.tally_logits, native.NativeTail)
_TRITON = Backend(
    "triton",
    triton_backend.apply_lowrank_,
    triton_backend.score_tail,
    triton_backend.tally_logits,
    triton_backend.TritonTail,
    triton_backend.population_linear,
)


def backend(name: str = "auto", device: str = "cpu") -> Backend:
    """The backend called ``name``.

    Args:
        name: "auto" takes the environment variable RLEDIT_BACKEND, else the best for the device: "native" on
            the CPU, "triton" on a GPU if Triton is installed, else "reference".
        device: the type of the tensors' device.

    Raises:
        ValueError: for an unknown name, with the valid ones.
        RuntimeError: for "triton" where it cannot be used; says why.
        NotImplementedError: for "cuda", which this version does not have.
    """
    asked = name
    if name == "auto":
        name = os.environ.get("RLEDIT_BACKEND", "auto")
        asked = name if name == "auto" else f"{name} (from RLEDIT_BACKEND)"
    if name == "auto":
        if device == "cpu":
            return _NATIVE
        return _REFERENCE if device != "cuda" or triton_backend.missing() else _TRITON
    if name == "native":
        return _NATIVE
    if name == "reference":
        return _REFERENCE
    if name == "triton":
        if reason := triton_backend.missing():
            raise RuntimeError(f"backend: {asked!r} cannot be used, {reason}")
        return _TRITON
    if name in BACKENDS:
        raise NotImplementedError(
            f"backend: {asked!r} is not in this version; use 'triton', 'native' or 'reference'"
        )
    raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}; got {asked!r}")


def _on_gpu(op: str) -> Callable[..., Any]:
    """The registered op for CUDA tensors: in Triton where that is installed and knows the dtype."""

    def run(*arguments: Any) -> Any:
        chosen = backend("auto", "cuda")
        first = arguments[0]
        if chosen is _TRITON and not triton_backend.takes(first):
            chosen = _REFERENCE
        return getattr(chosen, op)(*arguments)

    return run


for _op in ("apply_lowrank_", "score_tail", "tally_logits"):
    torch.library.impl(f"rledit::{_op}", "CUDA")(_on_gpu(_op))
