"""The references as a backend: plain PyTorch, for any dtype, device and edit rule."""

from __future__ import annotations

from torch import Tensor

from .apply_lowrank import apply_lowrank_ref
from .counts import Counts, Wanted, check_labels
from .general import GeneralProbe
from .probe import Probe, check_fit
from .rules import EditRule
from .score_tail import score_tail_ref
from .tail import Candidates, TailProblem
from .tally_logits import tally_logits_ref


class ReferenceBackend:
    """See :class:`rledit.ops.Backend`."""

    name = "reference"
    population_linear = None

    def edit_(self, weight: Tensor, left: Tensor, right: Tensor, rule: EditRule) -> None:
        apply_lowrank_ref(weight, left, right, rule.kind, rule.scale)

    def prepare_tail(self, problem: TailProblem) -> ReferenceTail:
        return ReferenceTail(problem)

    def prepare_tally(self, labels: Tensor, groups: Tensor, classes: int) -> ReferenceTally:
        return ReferenceTally(labels, groups, classes)

    def prepare_probe(self, labels: Tensor, groups: Tensor, classes: int, probe: Probe) -> GeneralProbe:
        return GeneralProbe(labels, groups, classes, probe)


class ReferenceTail:
    """Keeps the problem and calls :func:`rledit.ops.score_tail_ref`."""

    def __init__(self, problem: TailProblem) -> None:
        check_labels(problem.labels, problem.classes)
        if problem.probe is not None:
            check_fit(problem.probe.fit, len(problem.labels))
        self._problem = problem

    @property
    def bytes(self) -> int:
        activations = self._problem.activations
        return activations.numel() * activations.element_size()

    def score(self, candidates: Candidates, wanted: Wanted) -> Counts:
        return score_tail_ref(self._problem, candidates, wanted)


class ReferenceTally:
    """Keeps labels and groups and calls :func:`rledit.ops.tally_logits_ref`."""

    def __init__(self, labels: Tensor, groups: Tensor, classes: int) -> None:
        check_labels(labels, classes)
        self._labels = labels
        self._groups = groups

    def count(self, logits: Tensor, rows: slice, wanted: Wanted) -> Counts:
        return tally_logits_ref(logits, self._labels[rows], self._groups[:, rows], *wanted)
