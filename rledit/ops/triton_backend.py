"""The ops in Triton: tensors on a GPU, or anywhere under Triton's interpreter (``TRITON_INTERPRET=1``).

Triton and :mod:`rledit.kernels` are imported when the first op is called, never before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from .apply_lowrank import check_factors
from .counts import Counts
from .score_tail import check_tail
from .tally_logits import check_bins, check_labels, check_logits

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def interpreted() -> bool:
    """Whether Triton's interpreter is to run the kernels, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def missing() -> str:
    """Why the backend cannot be used on this machine, or ""."""
    if find_spec("triton") is None:
        return 'the package triton is not installed: pip install "rledit[triton]"'
    if not (interpreted() or torch.cuda.is_available()):
        return "no GPU is available (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly)"
    return ""


def takes(tensor: Tensor) -> bool:
    """Whether tensors like this one are this backend's."""
    return tensor.dtype in DTYPES and (tensor.is_cuda or interpreted())


def _check(**tensors: Tensor | None) -> None:
    first: Tensor | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not takes(tensor):
            raise TypeError(
                f"{name}: the triton backend expects float32, float16 or bfloat16 on a GPU, "
                f"got {tensor.dtype} on {tensor.device}"
            )
        if first is None:
            first = tensor
        elif (tensor.dtype, tensor.device) != (first.dtype, first.device):
            raise TypeError(
                f"{name}: expected {first.dtype} on {first.device} as the others, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def _named(name: str, tensors: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
    return {f"{name}[{i}]": tensor for i, tensor in enumerate(tensors)}


def _dense(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def apply_lowrank_(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
    """See :func:`rledit.ops.apply_lowrank_ref`. TypeError for tensors that are not this backend's."""
    from ..kernels import apply_lowrank

    check_factors(weight, left, right, world)
    _check(weight=weight, left=left, right=right)
    dense = weight.detach().contiguous()
    apply_lowrank.apply_lowrank_(dense, left.detach().contiguous(), right.detach().contiguous(), world, scale)
    if not weight.is_contiguous():
        weight.detach().copy_(dense)


class TritonTail:
    """:class:`rledit.ops.backends.PreparedTail` on a GPU: what stays the same is checked and laid out once,
    so that a call starts its kernel without waiting for the GPU."""

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
        from ..kernels.launch import member_bits

        nothing: list[Tensor | None] = [None] * len(weights)
        check_tail(
            activations, weights, biases, nonlinearities, labels, groups, nothing, nothing, "shift",
            precision, [],
        )  # fmt: skip
        _check(activations=activations, **_named("weights", weights), **_named("biases", biases))
        check_labels(labels, weights[-1].shape[-2])
        self._activations = activations.detach().contiguous()
        self._weights = [weight.detach().contiguous() for weight in weights]
        self._biases = _dense(biases)
        self._nonlinearities = list(nonlinearities)
        self._labels = labels.contiguous()
        self._groups = groups
        self._members = member_bits(groups)
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
        from ..kernels import score_tail

        used = [own if other is None else other for own, other in zip(self._weights, weights, strict=True)]
        found = check_tail(
            self._activations, used, self._biases, self._nonlinearities, self._labels, self._groups, lefts,
            rights, world, self._precision, wanted,
        )  # fmt: skip
        if found != candidates and (candidates < 1 or found != 1 or any(f is not None for f in lefts)):
            raise ValueError(
                f"candidates: expected {found}, as the factors and weights have, got {candidates}"
            )
        check_bins(wanted, bins, margin_limit)
        _check(
            activations=self._activations, **_named("weights", used), **_named("lefts", lefts),
            **_named("rights", rights),
        )  # fmt: skip
        return Counts(
            *score_tail.score_tail(
                self._activations, [weight.detach().contiguous() for weight in used], self._biases,
                self._nonlinearities, self._labels, self._members, len(self._groups), _dense(lefts),
                _dense(rights), candidates, world, scale, self._precision, wanted, bins, margin_limit,
            )
        )  # fmt: skip


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
    """See :func:`rledit.ops.score_tail_ref`. TypeError for tensors that are not this backend's."""
    candidates = check_tail(
        activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, precision, wanted
    )
    tail = TritonTail(activations, weights, biases, nonlinearities, labels, groups, precision)
    own = [weight if weight.dim() == 3 else None for weight in weights]
    return tail.score(own, lefts, rights, candidates, world, scale, wanted, bins, margin_limit)


def tally_logits(
    logits: Tensor,
    labels: Tensor,
    groups: Tensor,
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """See :func:`rledit.ops.tally_logits_ref`. TypeError for tensors that are not this backend's."""
    from ..kernels import tally_logits as kernel

    check_logits(logits, labels, groups, wanted)
    _check(logits=logits)
    check_labels(labels, logits.shape[2])
    check_bins(wanted, bins, margin_limit)
    return Counts(
        *kernel.tally_logits(
            logits.detach().contiguous(), labels.contiguous(), groups, wanted, bins, margin_limit
        )
    )


def population_linear(
    shared: Tensor, reduced: Tensor, left: Tensor, scale: float, precision: str = "float32"
) -> Tensor:
    """``shared[s] + scale * reduced[s, n] @ left[n]^T``, [N, S, O]: what a suffix adds at a shifted layer.

    Args:
        shared: [S, O].
        reduced: [S, N, R].
        left: [N, O, R].

    Raises:
        ValueError, TypeError: for shapes that do not fit, or tensors that are not this backend's.
    """
    from ..kernels import population_linear as kernel

    if shared.dim() != 2 or reduced.dim() != 3 or reduced.shape[0] != shared.shape[0]:
        raise ValueError(
            f"shared, reduced: expected [S, O] and [S, N, R], got {list(shared.shape)} and "
            f"{list(reduced.shape)}"
        )
    expected = (reduced.shape[1], shared.shape[1], reduced.shape[2])
    if left.shape != expected:
        raise ValueError(f"left: expected shape {list(expected)}, got {list(left.shape)}")
    _check(shared=shared, reduced=reduced, left=left)
    out: Tensor = kernel.population_linear(
        shared.detach().contiguous(),
        reduced.detach().contiguous(),
        left.detach().contiguous(),
        scale,
        precision,
    )
    return out
