"""What the GPU backends have in common: checks, layouts, and tails that are prepared once.

A backend is a set of kernels for the three ops. Whatever has to wait for the GPU, such as checking the values
of labels, happens when a tail is prepared, never when it scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .apply_lowrank import check_factors
from .counts import Counts, Wanted, check_labels
from .general import GENERAL_PARTS, GeneralProbe, GeneralTail
from .loss_ranks import loss_bins, lower_loss_pairs
from .probe import Probe
from .rules import EditRule
from .tail import Candidates, Layer, TailProblem, score_formed
from .tally_logits import check_logits

Parts = tuple[Tensor, ...]
"""The fields of :class:`rledit.ops.Counts`."""


class Kernels(Protocol):
    """The three ops; arguments are checked and contiguous.

    ``members`` are the groups as bits, see :func:`member_bits`; rules are fused; candidates fit the problem.
    """

    def apply_lowrank_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None: ...

    def score_tail(
        self, problem: TailProblem, members: Tensor, candidates: Candidates, wanted: Wanted
    ) -> Parts: ...

    def tally_logits(
        self, logits: Tensor, labels: Tensor, members: Tensor, groups: int, wanted: Wanted
    ) -> Parts: ...


def member_bits(groups: Tensor) -> Tensor:
    """Bool [G, S], G <= 64 -> int64 [S], bit g for group g."""
    shifts = torch.arange(len(groups), device=groups.device)
    bits: Tensor = (groups.long() << shifts[:, None]).sum(0)  # of different bits: a sum is an "or"
    return bits


@dataclass(frozen=True)
class GpuOps:
    """A :class:`rledit.ops.Backend` made of one set of kernels.

    Args:
        name: name of the backend.
        dtypes: dtypes of the tensors that it takes.
        anywhere: whether tensors on any device will do, as in an interpreter.
        kernels: imports them; called with the first op.
        most_classes: how many classes a tail may have; 0 for any number.
        population_linear: what a suffix computes at a shifted Linear layer; None: torch does it.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    anywhere: Callable[[], bool]
    kernels: Callable[[], Kernels]
    most_classes: int = 0
    population_linear: Callable[..., Tensor] | None = None

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

    def edit_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
        """See :meth:`rledit.ops.Backend.edit_`. TypeError for tensors that are not this backend's."""
        check_factors(weight, left, right)
        self.check(weight=weight, left=left, right=right)
        if not rule.fused:
            rule.edit_(weight, left, right)
            return
        edited = dense(weight)
        if edited.numel():
            with on_device(weight):
                self.kernels().apply_lowrank_(edited, dense(left), dense(right), rule)
        if not weight.is_contiguous():
            weight.detach().copy_(edited)

    def prepare_tail(self, problem: TailProblem) -> GpuTail:
        """See :meth:`rledit.ops.Backend.prepare_tail`. TypeError for tensors that are not this backend's."""
        return GpuTail(self, problem)

    def prepare_tally(self, labels: Tensor, groups: Tensor, classes: int) -> GpuTally:
        """See :meth:`rledit.ops.Backend.prepare_tally`."""
        return GpuTally(self, labels, groups, classes)

    def prepare_probe(self, labels: Tensor, groups: Tensor, classes: int, probe: Probe) -> GeneralProbe:
        """See :meth:`rledit.ops.Backend.prepare_probe`: plain PyTorch."""
        return GeneralProbe(labels, groups, classes, probe)


class GpuTally:
    """Labels and groups, whose values are read once."""

    def __init__(self, ops: GpuOps, labels: Tensor, groups: Tensor, classes: int) -> None:
        check_labels(labels, classes)
        self._ops = ops
        self._labels = labels.contiguous()
        self._groups = groups
        self._members = member_bits(groups)

    def count(self, logits: Tensor, rows: slice, wanted: Wanted) -> Counts:
        labels, members, groups = self._labels[rows], self._members[rows], self._groups[:, rows]
        check_logits(logits, labels, groups, wanted)
        self._ops.check(logits=logits)
        _check_place(logits, labels=labels, groups=groups)
        with on_device(logits):
            counts = Counts(
                *self._ops.kernels().tally_logits(
                    dense(logits), labels, members, len(groups), wanted.without(GENERAL_PARTS)
                )
            )
        if "lower_loss" not in wanted.parts:
            return counts
        return counts._replace(lower_loss=lower_loss_pairs(loss_bins(logits, labels), groups))


class GpuTail:
    """A problem that is checked and laid out once, so that a call starts its kernel without waiting for the
    GPU."""

    def __init__(self, ops: GpuOps, problem: TailProblem) -> None:
        ops.check(
            activations=problem.activations,
            **named("weights", problem.weights),
            **named("biases", problem.biases),
        )
        _check_place(problem.activations, labels=problem.labels, groups=problem.groups)
        check_labels(problem.labels, problem.classes)
        if 0 < ops.most_classes < problem.classes:
            raise ValueError(
                f"weights: the {ops.name} backend takes at most {ops.most_classes} classes, "
                f"got {problem.classes}; use backend='reference' or 'cuda'"
            )
        self._ops = ops
        self._problem = TailProblem(
            dense(problem.activations),
            tuple(
                Layer(dense(weight), None if bias is None else dense(bias), nonlinearity)
                for weight, bias, nonlinearity in problem.layers
            ),
            problem.labels.contiguous(),
            problem.groups,
            problem.precision,
            probe=problem.probe,
        )
        self._general = GeneralTail(self._problem)
        self._members = member_bits(problem.groups)

    @property
    def bytes(self) -> int:
        activations = self._problem.activations
        return activations.numel() * activations.element_size()

    def score(self, candidates: Candidates, wanted: Wanted) -> Counts:
        problem = self._problem
        size, rule, lefts, rights, weights = candidates
        if not rule.fused:
            return score_formed(self.score, problem.layers, candidates, wanted)
        candidates.check(problem.layers)
        problem.check(wanted)
        self._ops.check(
            activations=problem.activations,
            **named("weights", weights),
            **named("lefts", lefts),
            **named("rights", rights),
        )
        laid = Candidates(size, rule, *map(optional_dense, (lefts, rights, weights)))
        with on_device(problem.activations):
            core = wanted.without(GENERAL_PARTS)
            counts = (
                Counts(*self._ops.kernels().score_tail(problem, self._members, laid, core))
                if core.parts or not wanted.parts
                else None
            )
            return self._general.add(counts, laid, wanted)


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
