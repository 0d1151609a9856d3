"""The ops on the CPU in C++: tensors become NumPy views, nothing is copied but what is not contiguous.

The functions have the signatures of the references. They take float32; the registered torch ops fall back
to the references for other dtypes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _native
from .apply_lowrank import apply_lowrank_ref, check_factors
from .counts import Counts
from .rules import KINDS, check_kind
from .score_tail import check_tail, score_tail_ref
from .tally_logits import check_logits, tally_logits_ref

if forced := os.environ.get("RLEDIT_CPU_ISA"):
    try:
        _native.select_isa(forced)
    except ValueError as error:
        raise ValueError(f"RLEDIT_CPU_ISA: {error}") from None
# What RLEDIT_NUM_THREADS and RLEDIT_AMX_FLOAT32 must not say is an error now, not in the first call.
_native.num_threads()
_native.active_isa()


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().contiguous().numpy()


def _optional(tensor: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if tensor is None else _array(tensor)


def _counts(arrays: tuple[np.ndarray[Any, Any], ...]) -> Counts:
    return Counts(*map(torch.from_numpy, arrays))


def _check_float32(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(
                f"{name}: the native backend expects float32 on the CPU, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def apply_lowrank_(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
    """See :func:`rledit.ops.apply_lowrank_ref`. Float32 CPU tensors only (TypeError otherwise)."""
    check_factors(weight, left, right, world)
    _check_float32(weight=weight, left=left, right=right)
    if weight.is_contiguous():
        _native.apply_lowrank_(weight.detach().numpy(), _array(left), _array(right), world, scale)
    else:
        dense = weight.contiguous()
        _native.apply_lowrank_(dense.detach().numpy(), _array(left), _array(right), world, scale)
        weight.copy_(dense)


def score_tail(
    activations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    nonlinearities: Sequence[str],
    labels: Tensor,
    groups: Tensor,
    lefts: Sequence[Tensor | None],
    rights: Sequence[Tensor | None],
    world: str,
    scale: float,
    precision: str,
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """See :func:`rledit.ops.score_tail_ref`. Float32 CPU tensors only (TypeError otherwise)."""
    candidates = check_tail(
        activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, precision, wanted
    )
    _check_float32(activations=activations, **_named("weights", weights), **_named("biases", biases),
                   **_named("lefts", lefts), **_named("rights", rights))  # fmt: skip
    # A tail has weights of its own; for a layer whose weights are the candidates' any of that size will do.
    own = [weight if weight.dim() == 3 else None for weight in weights]
    shared = [weight.new_zeros(weight.shape[1:]) if weight.dim() == 3 else weight for weight in weights]
    tail = NativeTail(activations, shared, biases, nonlinearities, labels, groups, precision)
    return tail.score(own, lefts, rights, candidates, world, scale, wanted, bins, margin_limit)


def _named(name: str, tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {f"{name}[{i}]": tensor for i, tensor in enumerate(tensors) if tensor is not None}


class NativeTail:
    """:class:`rledit.ops.backends.PreparedTail` in C++: packed once, and owning all that it needs."""

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
        nothing: list[Tensor | None] = [None] * len(weights)
        check_tail(
            activations, weights, biases, nonlinearities, labels, groups, nothing, nothing, "shift",
            precision, [],
        )  # fmt: skip
        _check_float32(activations=activations, **_named("weights", weights), **_named("biases", biases))
        self._tail = _native.PreparedTail(
            _array(activations),
            [_array(weight) for weight in weights],
            [_optional(bias) for bias in biases],
            list(nonlinearities),
            _array(labels),
            _array(groups),
            precision,
        )

    @property
    def bytes(self) -> int:
        return self._tail.bytes

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
        # The binding checks shapes and dtypes; doing so here as well would cost more than a small call does.
        arrays = self._tail.score(
            [_optional(weight) for weight in weights],
            [_optional(left) for left in lefts],
            [_optional(right) for right in rights],
            candidates,
            world,
            scale,
            wanted,
            bins,
            margin_limit,
        )
        return _counts(arrays)


def tally_logits(
    logits: Tensor,
    labels: Tensor,
    groups: Tensor,
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """See :func:`rledit.ops.tally_logits_ref`. Float32 CPU tensors only (TypeError otherwise)."""
    check_logits(logits, labels, groups, wanted)
    _check_float32(logits=logits)
    return _counts(
        _native.tally_logits(_array(logits), _array(labels), _array(groups), wanted, bins, margin_limit)
    )


@torch.library.impl("rledit::apply_lowrank_", "CPU")
def _apply_lowrank_cpu(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
    fused = KINDS[check_kind(world)].fused and weight.dtype == torch.float32
    run = apply_lowrank_ if fused else apply_lowrank_ref
    run(weight, left, right, world, scale)


@torch.library.impl("rledit::score_tail", "CPU")
def _score_tail_cpu(activations: Tensor, *rest: Any) -> Counts:
    run = score_tail if activations.dtype == torch.float32 else score_tail_ref
    return run(activations, *rest)


@torch.library.impl("rledit::tally_logits", "CPU")
def _tally_logits_cpu(logits: Tensor, *rest: Any) -> Counts:
    run = tally_logits if logits.dtype == torch.float32 else tally_logits_ref
    return run(logits, *rest)
