"""What a backend's kernels do not count, counted in plain PyTorch on the tensors' own device.

Whatever has to wait for a GPU happens when a tail or a probe is prepared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .counts import Counts, Wanted, check_labels, counts_of
from .loss_ranks import loss_bins, lower_loss_pairs
from .probe import PROBE_PARTS, Probe, check_fit
from .score_tail import run_tail
from .tail import FORMED_BYTES, Candidates, TailProblem
from .tally_features import FeatureTally, check_features

GENERAL_PARTS = (*PROBE_PARTS, "lower_loss")
"""What needs more of a candidate than one pass over its logits: its features, or the ranks of all losses."""


class GeneralTail:
    """Counts :data:`GENERAL_PARTS` of a tail, for a few candidates at a time: their logits and features
    take at most :data:`~rledit.ops.tail.FORMED_BYTES` (or what one candidate does).

    Raises:
        ValueError: for labels out of range, or a probe with no samples to learn from.
    """

    def __init__(self, problem: TailProblem) -> None:
        self._problem = problem
        probe = problem.probe
        self._probe = (
            None if probe is None else GeneralProbe(problem.labels, problem.groups, problem.classes, probe)
        )

    def add(self, counts: Counts | None, candidates: Candidates, wanted: Wanted) -> Counts:
        """The given counts of the other parts, or None if there are none, with these added."""
        activations = self._problem.activations
        if counts is None:
            counts = counts_of(None, None, None, None, None, (), activations.device)
        asked = wanted.only(GENERAL_PARTS)
        if not asked.parts:
            return counts
        self._problem.check(asked)
        candidates.check(self._problem.layers)
        widest = 2 * len(activations) * max(weight.shape[0] for weight in self._problem.weights)
        weights = sum(weight.numel() for weight in self._problem.weights)
        at_once = max(1, FORMED_BYTES // max(1, (widest + weights) * activations.element_size()))
        parts = [
            self._count(candidates.part(start, start + at_once), asked)
            for start in range(0, candidates.size, at_once)
        ]
        found = dict(zip(GENERAL_PARTS, (torch.cat(part) for part in zip(*parts, strict=True)), strict=True))
        return counts._replace(**{part: found[part] for part in asked.parts})

    @torch.no_grad()
    def _count(self, candidates: Candidates, wanted: Wanted) -> tuple[Tensor, Tensor, Tensor]:
        features, logits = run_tail(self._problem, candidates)
        none = logits.new_empty(0, dtype=torch.int64)
        recalled = nearest = lower_loss = none
        if self._probe is not None and wanted.probes:
            recalled, nearest = self._probe.count(features, wanted)
        if "lower_loss" in wanted.parts:
            lower_loss = lower_loss_pairs(loss_bins(logits, self._problem.labels), self._problem.groups)
        return recalled, nearest, lower_loss


class GeneralProbe:
    """See :class:`rledit.ops.PreparedProbe`."""

    def __init__(self, labels: Tensor, groups: Tensor, classes: int, probe: Probe) -> None:
        check_labels(labels, classes)
        check_fit(probe.fit, len(labels))
        self._labels, self._groups, self._probe = labels, groups, probe
        self._tally = FeatureTally(labels, groups, probe.fit, classes, probe.classifier)

    def count(self, features: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        fit, ridge = self._probe.fit, self._probe.ridge
        parts = wanted.only(PROBE_PARTS).parts
        check_features(features, self._labels, self._groups, fit, ridge, parts)
        return self._tally.count(features, ridge, parts)
