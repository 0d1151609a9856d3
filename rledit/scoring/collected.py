"""What depends on all samples at once: probes of the features, and how losses rank.

Networks that run for some samples at a time hand over their results for each; these are counted in the end.
"""

from __future__ import annotations

from torch import Tensor

from ..heads import Head
from ..ops import PROBE_PARTS, Backend, Counts, PreparedTally, Probe, Wanted
from .logits import ruled_out

COLLECTED_BYTES = 64 << 20
"""Bytes of logits and features kept at a time (or those of one candidate)."""


def hangs_on_all(wanted: Wanted) -> bool:
    """Whether counts of some samples at a time cannot be added up."""
    return wanted.probes or "lower_loss" in wanted.parts


def candidates_at_once(samples: int, classes: int, reader: FeatureReader | None) -> int:
    """How many candidates' logits and features may be kept together."""
    width = classes + (0 if reader is None else reader.head.module.in_features)
    return max(1, COLLECTED_BYTES // (4 * samples * width))


class FeatureReader:
    """Where a network's features are, and the probe that they are for.

    Args:
        head: what reads them.
        labels, masks, classes: labels, groups' masks and number of classes of the samples.
        probe: what it learns from.
    """

    def __init__(
        self, head: Head, backend: Backend, labels: Tensor, masks: Tensor, classes: int, probe: Probe
    ) -> None:
        self.head = head
        self.prepared = backend.prepare_probe(labels, masks, classes, probe)


class Collected:
    """Logits [N, S, C], and features [N, S, D] where they are asked for, of N candidates."""

    def __init__(self, candidates: int, samples: int) -> None:
        self._shape = (candidates, samples)
        self._logits: Tensor | None = None
        self._features: Tensor | None = None

    def add(self, candidates: slice, rows: slice, logits: Tensor, features: Tensor | None) -> None:
        """Add the logits and features of some candidates for some samples, [n, s, ...]."""
        self._logits = self._put(self._logits, candidates, rows, ruled_out(logits))
        if features is not None:
            self._features = self._put(self._features, candidates, rows, features)

    def _put(self, whole: Tensor | None, candidates: slice, rows: slice, part: Tensor) -> Tensor:
        if whole is None:
            whole = part.new_empty(*self._shape, part.shape[-1])
        whole[candidates, rows] = part
        return whole

    def count(self, tally: PreparedTally, reader: FeatureReader | None, wanted: Wanted) -> Counts:
        assert self._logits is not None  # there is at least one sample
        counts = tally.count(self._logits, slice(0, self._shape[1]), wanted.without(PROBE_PARTS))
        if not wanted.probes:
            return counts
        assert reader is not None
        assert self._features is not None
        recalled, nearest = reader.prepared.count(self._features, wanted)
        return counts._replace(recalled=recalled, nearest=nearest)
