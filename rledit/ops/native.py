"""The backend in C++, for float32 tensors on the CPU.

Tensors are passed as NumPy views; only those that are not contiguous are copied. Edit rules that the core
lacks are applied in plain PyTorch first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _native
from .apply_lowrank import check_factors
from .counts import TALLY_PARTS, Counts, Wanted, check_labels
from .general import GeneralProbe, GeneralTail
from .probe import PROBE_PARTS, RIDGE, Probe, check_fit
from .rules import EditRule
from .tail import Candidates, TailProblem, score_formed
from .tally_features import check_features
from .tally_logits import check_logits

if forced := os.environ.get("RLEDIT_CPU_ISA"):
    try:
        _native.select_isa(forced)
    except ValueError as error:
        raise ValueError(f"RLEDIT_CPU_ISA: {error}") from None
# What RLEDIT_NUM_THREADS and RLEDIT_AMX_FLOAT32 must not say is an error now, not in the first call.
_native.num_threads()
_native.active_isa()


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    if tensor.requires_grad:  # detach() takes as long as all the rest
        tensor = tensor.detach()
    return tensor.contiguous().numpy()


def _arrays(tensors: Iterable[Tensor]) -> list[np.ndarray[Any, Any]]:
    return [_array(tensor) for tensor in tensors]


def _optional(tensors: Iterable[Tensor | None]) -> list[np.ndarray[Any, Any] | None]:
    return [None if tensor is None else _array(tensor) for tensor in tensors]


_UNWANTED = [torch.empty(0, dtype=torch.float64 if part == "loss" else torch.int64) for part in TALLY_PARTS]
"""Empty tensors shared by all counts: making tensors of what nobody wanted is a good part of a small call."""


def _counts(arrays: Iterable[np.ndarray[Any, Any]]) -> Counts:
    return Counts(
        *[
            nothing if array.ndim == 1 else torch.from_numpy(array)
            for array, nothing in zip(arrays, _UNWANTED, strict=True)
        ]
    )


def _check_float32(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(
                f"{name}: the native backend expects float32 on the CPU, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def _named(name: str, tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {f"{name}[{i}]": tensor for i, tensor in enumerate(tensors) if tensor is not None}


class NativeBackend:
    """See :class:`rledit.ops.Backend`. Float32 CPU tensors only (TypeError otherwise)."""

    name = "native"
    population_linear = None

    def edit_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
        check_factors(weight, left, right)
        if not rule.fused:
            rule.edit_(weight, left, right)
            return
        _check_float32(weight=weight, left=left, right=right)
        dense = weight.detach().contiguous()
        _native.apply_lowrank_(dense.numpy(), _array(left), _array(right), rule.kind, rule.scale)
        if not weight.is_contiguous():
            weight.copy_(dense)

    def prepare_tail(self, problem: TailProblem) -> NativeTail:
        return NativeTail(problem)

    def prepare_tally(self, labels: Tensor, groups: Tensor, classes: int) -> NativeTally:
        return NativeTally(labels, groups)

    def prepare_probe(
        self, labels: Tensor, groups: Tensor, classes: int, probe: Probe
    ) -> NativeProbe | GeneralProbe:
        if probe.classifier != "ridge":
            return GeneralProbe(labels, groups, classes, probe)
        return NativeProbe(labels, groups, classes, probe)


class NativeTail:
    """A tail that is packed once. The core owns what it needs of the problem but for weights that stay; rules
    that it lacks, and classifiers, read the layers' weights again."""

    def __init__(self, problem: TailProblem) -> None:
        weights, biases = problem.weights, problem.biases
        _check_float32(
            activations=problem.activations, **_named("weights", weights), **_named("biases", biases)
        )
        self._layers = problem.layers
        probe = problem.probe
        # Of the classifiers the core knows the ridge probe alone.
        self._general = None if probe is None or probe.classifier == "ridge" else GeneralTail(problem)
        self._tail = _native.PreparedTail(
            _array(problem.activations),
            _arrays(weights),
            _optional(biases),
            problem.nonlinearities,
            _array(problem.labels),
            _array(problem.groups),
            problem.precision,
            problem.weights_stay,
            None if probe is None else _array(probe.fit),
            RIDGE if probe is None else probe.ridge,
        )

    @property
    def bytes(self) -> int:
        return self._tail.bytes

    def score(self, candidates: Candidates, wanted: Wanted) -> Counts:
        if self._general is not None and "recalled" in wanted.parts:
            rest = wanted.without(("recalled",))
            counts = self.score(candidates, rest) if rest.parts else None
            return self._general.add(counts, candidates, wanted.only(("recalled",)))
        size, rule, lefts, rights, weights = candidates
        if not rule.fused:
            return score_formed(self.score, self._layers, candidates, wanted)
        # The binding checks shapes and dtypes; doing so here as well would cost more than a small call does.
        return _counts(
            self._tail.score(
                _optional(weights),
                _optional(lefts),
                _optional(rights),
                size,
                rule.kind,
                rule.scale,
                list(wanted.parts),
                wanted.bins,
                wanted.margin_limit,
            )
        )


class NativeTally:
    """Keeps labels and groups; each call checks the labels of its rows."""

    def __init__(self, labels: Tensor, groups: Tensor) -> None:
        self._labels = labels
        self._groups = groups

    def count(self, logits: Tensor, rows: slice, wanted: Wanted) -> Counts:
        labels, groups = self._labels[rows], self._groups[:, rows]
        check_logits(logits, labels, groups, wanted)
        _check_float32(logits=logits)
        return _counts(
            _native.tally_logits(
                _array(logits),
                _array(labels),
                _array(groups),
                list(wanted.parts),
                wanted.bins,
                wanted.margin_limit,
            )
        )


class NativeProbe:
    """Keeps labels, groups and which samples to fit; each call sorts the samples anew."""

    def __init__(self, labels: Tensor, groups: Tensor, classes: int, probe: Probe) -> None:
        check_labels(labels, classes)
        check_fit(probe.fit, len(labels))
        self._samples = labels, groups, probe.fit, probe.ridge
        self._classes = classes

    def count(self, features: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        labels, groups, fit, ridge = self._samples
        parts = list(wanted.only(PROBE_PARTS).parts)
        check_features(features, labels, groups, fit, ridge, parts)
        _check_float32(features=features)
        recalled, nearest = _native.tally_features(
            _array(features), _array(labels), _array(groups), _array(fit), ridge, self._classes, parts
        )
        return torch.from_numpy(recalled), torch.from_numpy(nearest)
