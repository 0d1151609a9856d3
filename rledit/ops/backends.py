"""The backends by name, and the backend that each registered torch op runs on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from . import cuda_backend, triton_backend
from .counts import Counts, Wanted
from .native import NativeBackend
from .probe import Probe
from .reference import ReferenceBackend
from .rules import EditRule, check_kind
from .score_tail import from_schema
from .tail import Candidates, TailProblem
from .tally_features import check_features
from .tally_logits import check_logits

BACKENDS = ("auto", "reference", "native", "triton", "cuda")


class PreparedTail(Protocol):
    """A :class:`TailProblem` made ready to be scored many times. Its tensors must not change meanwhile."""

    @property
    def bytes(self) -> int:
        """Memory of the activations and of what belongs to them."""
        ...

    def score(self, candidates: Candidates, wanted: Wanted) -> Counts:
        """Count the results of each candidate on the samples.

        Raises:
            ValueError: for candidates that do not fit the problem, or parts that cannot be counted.
            TypeError: for tensors that are not this backend's.
        """
        ...


class PreparedTally(Protocol):
    """Labels [S] and groups [G, S] made ready to be counted many times."""

    def count(self, logits: Tensor, rows: slice, wanted: Wanted) -> Counts:
        """Count the logits [N, s, C] of the samples in ``rows``."""
        ...


class PreparedProbe(Protocol):
    """Labels [S], groups [G, S] and a :class:`Probe` made ready for features of many candidates."""

    def count(self, features: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """``recalled`` and ``nearest`` of features [N, S, D], see :func:`rledit.ops.tally_features_ref`;
        parts of ``wanted`` that need no features are not looked at."""
        ...


class Backend(Protocol):
    """One way to run the ops. All give the same counts, but for rounding, as the references."""

    @property
    def name(self) -> str:
        """One of :data:`BACKENDS`, never "auto"."""
        ...

    @property
    def population_linear(self) -> Callable[..., Tensor] | None:
        """What a suffix computes at a shifted Linear layer, see
        :func:`rledit.ops.triton_backend.population_linear`; None: torch does it."""
        ...

    def edit_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
        """Edit weights [N, O, I] in place by left [N, O, R] and right [N, R, I].

        Rules that the backend's core lacks (``fused=False``) are applied in plain PyTorch.

        Raises:
            ValueError: for shapes that do not fit.
            TypeError: for tensors that are not this backend's.
        """
        ...

    def prepare_tail(self, problem: TailProblem) -> PreparedTail:
        """Check the values of the labels and lay the problem out as the kernels want it.

        Raises:
            ValueError: for labels out of range.
            TypeError: for tensors that are not this backend's.
        """
        ...

    def prepare_tally(self, labels: Tensor, groups: Tensor, classes: int) -> PreparedTally:
        """The same for :meth:`PreparedTally.count`, from labels [S] and groups [G, S]."""
        ...

    def prepare_probe(self, labels: Tensor, groups: Tensor, classes: int, probe: Probe) -> PreparedProbe:
        """The same for :meth:`PreparedProbe.count`.

        Raises:
            ValueError: for labels out of range, or a probe with no samples to learn from.
        """
        ...


_REFERENCE: Backend = ReferenceBackend()
_NATIVE: Backend = NativeBackend()
_GPU = (
    (cuda_backend.OPS, cuda_backend.missing),
    (triton_backend.OPS, triton_backend.missing),
)
"""GPU backends by preference, each with a function that says why it cannot be used here."""


def backend(name: str = "auto", device: str = "cpu") -> Backend:
    """The backend called ``name``.

    Args:
        name: "auto" takes the environment variable RLEDIT_BACKEND, else the best for the device: "native" on
            the CPU; on a GPU "cuda" in builds that have it, "triton" if that is installed, else
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
        usable = [ops for ops, missing in _GPU if device == "cuda" and not missing()]
        return usable[0] if usable else _REFERENCE
    if name == "native":
        return _NATIVE
    if name == "reference":
        return _REFERENCE
    for ops, missing in _GPU:
        if name == ops.name:
            if reason := missing():
                raise RuntimeError(f"backend: {asked!r} cannot be used, {reason}")
            return ops
    raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}; got {asked!r}")


# ------------------------------------------------------------------------------- the registered ops


def _backend_for(tensor: Tensor) -> Backend:
    """The first that takes tensors of this device and dtype."""
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        return _NATIVE
    if tensor.is_cuda:
        for ops, missing in _GPU:
            if ops.takes(tensor) and not missing():
                return ops
    return _REFERENCE


def _apply_lowrank_(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> None:
    _backend_for(weight).edit_(weight, left, right, EditRule(check_kind(world), scale))


def _score_tail(*arguments: Any) -> Counts:
    problem, candidates, wanted = from_schema(*arguments)
    return _backend_for(problem.activations).prepare_tail(problem).score(candidates, wanted)


def _tally_logits(
    logits: Tensor, labels: Tensor, groups: Tensor, parts: Sequence[str], bins: int, margin_limit: float
) -> Counts:
    wanted = Wanted(parts, bins, margin_limit)
    check_logits(logits, labels, groups, wanted)
    tally = _backend_for(logits).prepare_tally(labels, groups, logits.shape[2])
    return tally.count(logits, slice(None), wanted)


def _tally_features(
    features: Tensor, labels: Tensor, groups: Tensor, fit: Tensor, ridge: float, parts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    check_features(features, labels, groups, fit, ridge, parts)
    classes = int(labels.max()) + 1 if len(labels) else 1
    probe = _backend_for(features).prepare_probe(labels, groups, classes, Probe(fit, ridge))
    return probe.count(features, Wanted(parts))


for _name, _run in (
    ("apply_lowrank_", _apply_lowrank_),
    ("score_tail", _score_tail),
    ("tally_logits", _tally_logits),
    ("tally_features", _tally_features),
):
    torch.library.impl(f"rledit::{_name}", "CompositeExplicitAutograd")(_run)
