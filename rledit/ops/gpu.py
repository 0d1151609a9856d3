"""What the backends for GPUs have in common: checks, layouts, and a tail that is prepared once.

A backend is a set of kernels behind the three ops. Whatever means to wait for the GPU, such as looking at
labels, is done when a tail is prepared and not in its calls; the ops by themselves look at labels each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .apply_lowrank import check_factors
from .counts import Counts
from .score_tail import check_tail
from .tally_logits import check_bins, check_labels, check_logits

Parts = tuple[Tensor, ...]
"""The fields of :class:`rledit.ops.Counts`."""


class Kernels(Protocol):
    """Called with checked and contiguous arguments. ``members``: groups as bits, see :func:`member_bits`."""

    def apply_lowrank_(
        self, weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float
    ) -> None: ...

    def score_tail(
        self,
        activations: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        nonlinearities: Sequence[str],
        labels: Tensor,
        members: Tensor,
        groups: int,
        lefts: Sequence[Tensor | None],
        rights: Sequence[Tensor | None],
        candidates: int,
        world: str,
        scale: float,
        precision: str,
        wanted: Sequence[str],
        bins: int,
        margin_limit: float,
    ) -> Parts: ...

    def tally_logits(
        self,
        logits: Tensor,
        labels: Tensor,
        members: Tensor,
        groups: int,
        wanted: Sequence[str],
        bins: int,
        margin_limit: float,
    ) -> Parts: ...


def member_bits(groups: Tensor) -> Tensor:
    """Bool [G, S], G <= 64 -> int64 [S], bit g for group g."""
    shifts = torch.arange(len(groups), device=groups.device)
    bits: Tensor = (groups.long() << shifts[:, None]).sum(0)  # of different bits: a sum is an "or"
    return bits


@dataclass(frozen=True)
class GpuOps:
    """The ops with one set of kernels, with the signatures of the references.

    Args:
        name: of the backend.
        dtypes: of the tensors that it takes.
        anywhere: whether tensors of any device will do, as in an interpreter.
        kernels: imports them; called with the first op.
        most_classes: of a tail; 0 for any number.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    anywhere: Callable[[], bool]
    kernels: Callable[[], Kernels]
    most_classes: int = 0

    def takes(self, tensor: Tensor) -> bool:
        """Whether tensors like this one are this backend's."""
        return tensor.dtype in self.dtypes and (tensor.is_cuda or self.anywhere())

    def check(self, **tensors: Tensor | None) -> None:
        """TypeError unless all are this backend's, of one dtype and on one device."""
        first: Tensor | None = None
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if not self.takes(tensor):
                known = " or ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
                raise TypeError(
                    f"{name}: the {self.name} backend expects {known} on a GPU, "
                    f"got {tensor.dtype} on {tensor.device}"
                )
            if first is None:
                first = tensor
            elif (tensor.dtype, tensor.device) != (first.dtype, first.device):
                raise TypeError(
                    f"{name}: expected {first.dtype} on {first.device} as the others, "
                    f"got {tensor.dtype} on {tensor.device}"
                )

    def apply_lowrank_(self, weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
        """See :func:`rledit.ops.apply_lowrank_ref`. TypeError for tensors that are not this backend's."""
        check_factors(weight, left, right, world)
        self.check(weight=weight, left=left, right=right)
        edited = dense(weight)
        if edited.numel():
            with on_device(weight):
                self.kernels().apply_lowrank_(edited, dense(left), dense(right), world, scale)
        if not weight.is_contiguous():
            weight.detach().copy_(edited)

    def prepare_tail(
        self,
        activations: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        nonlinearities: Sequence[str],
        labels: Tensor,
        groups: Tensor,
        precision: str,
    ) -> GpuTail:
        """A :class:`rledit.ops.backends.PreparedTail` on the GPU."""
        return GpuTail(self, activations, weights, biases, nonlinearities, labels, groups, precision)

    def score_tail(
        self,
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
            activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, precision,
            wanted,
        )  # fmt: skip
        tail = self.prepare_tail(activations, weights, biases, nonlinearities, labels, groups, precision)
        own = [weight if weight.dim() == 3 else None for weight in weights]
        return tail.score(own, lefts, rights, candidates, world, scale, wanted, bins, margin_limit)

    def tally_logits(
        self,
        logits: Tensor,
        labels: Tensor,
        groups: Tensor,
        wanted: list[str],
        bins: int = 1024,
        margin_limit: float = 16.0,
    ) -> Counts:
        """See :func:`rledit.ops.tally_logits_ref`. TypeError for tensors that are not this backend's."""
        check_logits(logits, labels, groups, wanted)
        samples = self.prepare_tally(labels, groups, logits.shape[2])
        return samples.count(logits, slice(None), wanted, bins, margin_limit)

    def prepare_tally(self, labels: Tensor, groups: Tensor, classes: int) -> GpuTally:
        """A :class:`rledit.ops.backends.PreparedTally` on the GPU."""
        return GpuTally(self, labels, groups, classes)


class GpuTally:
    """Labels and groups, looked at once. Made by :meth:`GpuOps.prepare_tally`."""

    def __init__(self, ops: GpuOps, labels: Tensor, groups: Tensor, classes: int) -> None:
        check_labels(labels, classes)
        self._ops = ops
        self._labels = labels.contiguous()
        self._groups = groups
        self._members = member_bits(groups)

    def count(
        self, logits: Tensor, rows: slice, wanted: list[str], bins: int = 1024, margin_limit: float = 16.0
    ) -> Counts:
        labels, members, groups = self._labels[rows], self._members[rows], self._groups[:, rows]
        check_logits(logits, labels, groups, wanted)
        self._ops.check(logits=logits)
        check_bins(wanted, bins, margin_limit)
        _check_place(logits, labels=labels, groups=groups)
        with on_device(logits):
            return Counts(
                *self._ops.kernels().tally_logits(
                    dense(logits), labels, members, len(groups), wanted, bins, margin_limit
                )
            )


class GpuTail:
    """What stays the same from call to call: checked and laid out once, so that a call starts its kernel
    without waiting for the GPU. Made by :meth:`GpuOps.prepare_tail`."""

    def __init__(
        self,
        ops: GpuOps,
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
        ops.check(activations=activations, **named("weights", weights), **named("biases", biases))
        _check_place(activations, labels=labels, groups=groups)
        classes = weights[-1].shape[-2]
        check_labels(labels, classes)
        if 0 < ops.most_classes < classes:
            raise ValueError(
                f"weights: the {ops.name} backend takes at most {ops.most_classes} classes, got {classes}; "
                "use backend='reference' or 'cuda'"
            )
        self._ops = ops
        self._activations = dense(activations)
        self._weights = [dense(weight) for weight in weights]
        self._biases = optional_dense(biases)
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
        used = [own if other is None else other for own, other in zip(self._weights, weights, strict=True)]
        found = check_tail(
            self._activations, used, self._biases, self._nonlinearities, self._labels, self._groups, lefts,
            rights, world, self._precision, wanted,
        )  # fmt: skip
        own = any(f is not None for f in lefts) or any(weight.dim() == 3 for weight in used)
        if found != candidates and (candidates < 1 or found != 1 or own):
            raise ValueError(
                f"candidates: expected {found}, as the factors and weights have, got {candidates}"
            )
        check_bins(wanted, bins, margin_limit)
        self._ops.check(
            activations=self._activations, **named("weights", used), **named("lefts", lefts),
            **named("rights", rights),
        )  # fmt: skip
        with on_device(self._activations):
            return Counts(
                *self._ops.kernels().score_tail(
                    self._activations, [dense(weight) for weight in used], self._biases,
                    self._nonlinearities, self._labels, self._members, len(self._groups),
                    optional_dense(lefts), optional_dense(rights), candidates, world, scale, self._precision,
                    wanted, bins, margin_limit,
                )
            )  # fmt: skip


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Kernels start on the current GPU, which must be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _check_place(like: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.device != like.device:
            raise ValueError(f"{name}: expected a tensor on {like.device}, got one on {tensor.device}")


def dense(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def optional_dense(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else dense(tensor) for tensor in tensors]


def named(name: str, tensors: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
    return {f"{name}[{i}]": tensor for i, tensor in enumerate(tensors)}
