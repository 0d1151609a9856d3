"""Evaluators: candidates' weights in, their counts out. What a scorer scores with.

A torch network is run in one of three ways (:mod:`rledit.scoring.ways`). Whatever else can tell what it makes
of the samples with given weights, such as a simulator or a session of another runtime, is a
:class:`FunctionEvaluator`, or a subclass of :class:`OneByOne`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..heads import Head
from ..ops import Backend, Counts, Wanted, concordant_pairs
from .collected import Collected, FeatureReader, hangs_on_all
from .logits import ruled_out
from .population import Population

HISTOGRAM_BINS = 4096
"""Bins of the margins in all that a scorer asks for."""
WEIGHT_BYTES = 32 << 20  # of edited weights that are made at once
FEW_SAMPLES = 256  # so few that counting a candidate by itself takes longer to call than to do
COUNTED_TOGETHER = 16


@runtime_checkable
class Evaluator(Protocol):
    """Counts the results of candidates on one split's samples.

    Attributes:
        way: how, in a word: "tail", "suffix" and "whole" are those of torch networks.
        cached_bytes: memory of what it keeps of the samples.
    """

    @property
    def way(self) -> str: ...

    @property
    def cached_bytes(self) -> int: ...

    def count(self, population: Population, wanted: Wanted) -> Counts:
        """What is wanted of the population's counts, of all samples. Called within
        :func:`rledit.runtime.plain_modes`."""
        ...


def add_up(passes: Iterator[Counts], wanted: Wanted) -> Counts:
    """Counts of all samples from those of some at a time, which must be what is :func:`countable`."""
    counts = next(passes)
    for more in passes:
        counts += more
    if "concordant" in wanted.parts:
        counts = counts._replace(concordant=concordant_pairs(counts.histogram))
    if "histogram" not in wanted.parts:
        counts = counts._replace(histogram=counts.histogram.new_empty(0))
    return counts


def countable(wanted: Wanted) -> Wanted:
    """What to count of some samples at a time: pairs of samples from two passes count, too, so they come from
    the sum of the histograms."""
    if "concordant" not in wanted.parts:
        return wanted
    return wanted._replace(parts=sorted({*wanted.parts, "histogram"} - {"concordant"}))


class OneByOne(ABC):
    """Runs one candidate at a time, from its edited weights, and counts its logits by the op.

    Args:
        weights: the unedited weights of the targets, as matrices [O, I].
        labels: int64 [S].
        masks: masks of the groups, bool [G, S].
        classes: C of the logits.
        backend: makes the edits and counts.
        reader: reads the features, where probes of them will be wanted.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        labels: Tensor,
        masks: Tensor,
        classes: int,
        backend: Backend,
        reader: FeatureReader | None = None,
    ) -> None:
        self._reader = reader
        self._weights = dict(weights)
        self._tally = backend.prepare_tally(labels, masks, classes)
        entry_bytes = sum(weight.numel() * weight.element_size() for weight in self._weights.values())
        self._at_once = max(1, WEIGHT_BYTES // entry_bytes)
        self._samples = len(labels)
        self._together = COUNTED_TOGETHER if self._samples <= FEW_SAMPLES else 1

    way = "function"

    @property
    def cached_bytes(self) -> int:
        return 0

    @abstractmethod
    def logits(self, weights: dict[str, Tensor], precision: str) -> Iterator[tuple[slice, Tensor]]:
        """The logits [s, C] of one candidate for all samples, some after the other, with which they are.

        Args:
            weights: [O, I] of the targets that are edited; the others have their unedited weights.
            precision: precision of the products, "float32" or "bfloat16"; the weights are rounded already.
        """
        ...

    def outputs(
        self, weights: dict[str, Tensor], precision: str, head: Head | None
    ) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """The same, and what the head reads [s, D] if one is given."""
        assert head is None
        for samples, logits in self.logits(weights, precision):
            yield samples, logits, None

    def count(self, population: Population, wanted: Wanted) -> Counts:
        edited = [name for name in self._weights if population.touches(name)]
        asked = countable(wanted)
        rows: list[Counts] = []
        for start in range(0, population.size, self._at_once):
            part = population.part(start, min(start + self._at_once, population.size))
            weights = [part.edited(name, self._weights[name]).unbind() for name in edited]
            own = [dict(zip(edited, each, strict=True)) for each in zip(*weights, strict=True)]
            own = own or [{}] * part.size
            for first in range(0, part.size, self._together):
                some = own[first : first + self._together]
                if hangs_on_all(wanted):
                    rows.append(self._count_all(some, population.precision, wanted))
                else:
                    rows.append(add_up(self._passes(some, population.precision, asked), wanted))
            del weights, own, some  # before the next are made
        return Counts(*(torch.cat(column) for column in zip(*rows, strict=True)))

    def _count_all(self, candidates: list[dict[str, Tensor]], precision: str, wanted: Wanted) -> Counts:
        """Count what depends on all samples at once."""
        reader = self._reader if wanted.probes else None
        collected = Collected(len(candidates), self._samples)
        for n, weights in enumerate(candidates):
            head = None if reader is None else reader.head
            for samples, logits, features in self.outputs(weights, precision, head):
                collected.add(slice(n, n + 1), samples, logits, features)
        return collected.count(self._tally, reader, wanted)

    def _passes(
        self, candidates: list[dict[str, Tensor]], precision: str, wanted: Wanted
    ) -> Iterator[Counts]:
        if len(candidates) > 1:
            logits = self._side_by_side(candidates, precision)
            yield self._tally.count(ruled_out(logits), slice(0, logits.shape[1]), wanted)
            return
        for samples, own in self.logits(candidates[0], precision):
            yield self._tally.count(ruled_out(own)[None], samples, wanted)

    def _side_by_side(self, candidates: list[dict[str, Tensor]], precision: str) -> Tensor:
        """The logits [n, S, C], copied: a function may give the same array each time."""
        out: Tensor | None = None
        for n, weights in enumerate(candidates):
            for samples, own in self.logits(weights, precision):
                if out is None:
                    out = own.new_empty(len(candidates), self._samples, own.shape[1])
                out[n, samples] = own
        assert out is not None  # there is at least one sample
        return out


class FunctionEvaluator(OneByOne):
    """A black box: a function from weights to logits.

    Args:
        function: from a dict of all targets' weights, each a float32 tensor [O, I] on the CPU, to logits
            [S, C] of all samples, a tensor or an array. It must not keep the weights, nor change them.
    """

    def __init__(
        self,
        function: Callable[[dict[str, Tensor]], Any],
        weights: Mapping[str, Tensor],
        labels: Tensor,
        masks: Tensor,
        classes: int,
        backend: Backend,
    ) -> None:
        super().__init__(weights, labels, masks, classes, backend)
        self._function = function
        self._shape = (len(labels), classes)

    def logits(self, weights: dict[str, Tensor], precision: str) -> Iterator[tuple[slice, Tensor]]:
        result = torch.as_tensor(self._function({**self._weights, **weights})).detach()
        if result.shape != self._shape:
            raise ValueError(f"function: expected logits {list(self._shape)}, got {list(result.shape)}")
        like = next(iter(self._weights.values()))
        yield slice(0, len(result)), result.to(like.device, like.dtype)
