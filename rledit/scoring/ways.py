"""The ways to score a population on cached activations: the fused tail, or the suffix of the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import (
    NONLINEARITIES,
    Backend,
    Candidates,
    Counts,
    Layer,
    TailProblem,
    Wanted,
    concordant_pairs,
)
from .network import Network
from .population import Population
from .tail import Tail

PASS_BYTES = 4 << 20  # of the widest activation of a pass through a suffix, per thread: more leaves the cache
SHIFTED_TOGETHER = 4  # candidates of a pass whose small corrections are worth making in one product
GPU_PASS_BYTES = 256 << 20  # on a GPU: few large passes, since each is many kernels to start
LEAST_SAMPLES = 32
MOST_ROWS = 4096
HISTOGRAM_BINS = 4096


class Way(Protocol):
    """cached_bytes: memory of what it keeps of the samples."""

    @property
    def cached_bytes(self) -> int: ...

    def score(self, population: Population, wanted: list[str], margin_limit: float) -> Counts:
        """``margin_limit``: HISTOGRAM_BINS divide the margins in [-margin_limit, margin_limit]."""
        ...


class TailWay:
    """The fused op on a tail that is prepared once."""

    def __init__(
        self, tail: Tail, activations: Tensor, labels: Tensor, masks: Tensor, backend: Backend, precision: str
    ) -> None:
        self._names = tail.names
        layers = tuple(
            Layer(layer.weight, layer.bias, nonlinearity)
            for layer, nonlinearity in zip(tail.layers, tail.nonlinearities, strict=True)
        )
        self._tail = backend.prepare_tail(TailProblem(activations, layers, labels, masks, precision))
        # The reference holds the logits of all candidates at once, the native op those of a few samples.
        self._at_once = max(1, MOST_ROWS // len(labels)) if backend.name == "reference" else 0

    @property
    def cached_bytes(self) -> int:
        return self._tail.bytes

    def score(self, population: Population, wanted: list[str], margin_limit: float) -> Counts:
        score = partial(self._score, wanted, margin_limit)
        return _in_parts(population, self._at_once, score) if self._at_once else score(population)

    def _score(self, wanted: list[str], margin_limit: float, population: Population) -> Counts:
        factors = [population.factors.get(name, (None, None)) for name in self._names]
        candidates = Candidates(
            population.size,
            population.rule,
            [left for left, _ in factors],
            [right for _, right in factors],
            [population.weights.get(name) for name in self._names],
        )
        return self._tail.score(candidates, Wanted(wanted, HISTOGRAM_BINS, margin_limit))


def tail_logits(tail: Tail, activations: Tensor, population: Population) -> Tensor:
    """What the op makes of a tail: its tensors, whatever calling the modules would do. [n*s, C]"""
    x = activations.repeat(population.size, 1)
    for name, layer, function in zip(tail.names, tail.layers, tail.nonlinearities, strict=True):
        if population.touches(name):
            x = population.run(name, layer, x, shared=False)
        else:
            x = F.linear(x, layer.weight, layer.bias)
        x = NONLINEARITIES[function](x)
    return x


class SuffixWay:
    """The rest of the network, traced or whole, for some samples and some candidates at a time."""

    def __init__(
        self,
        network: Network,
        cached: tuple[Tensor, ...],
        labels: Tensor,
        masks: Tensor,
        backend: Backend,
        classes: int,
    ) -> None:
        self._network = network
        self._cached = cached
        self._samples = len(labels)
        self._tally = backend.prepare_tally(labels, masks, classes)

    @property
    def cached_bytes(self) -> int:
        return sum(value.numel() * value.element_size() for value in self._cached)

    def score(self, population: Population, wanted: list[str], margin_limit: float) -> Counts:
        """Samples outside, candidates inside: what the candidates share of some samples is made once."""
        samples, candidates = self._pass_size(population)
        counts: Counts | None = None
        asked = wanted
        if "concordant" in asked:  # pairs of samples from two passes count, too
            wanted = sorted({*asked, "histogram"} - {"concordant"})
        for start in range(0, self._samples, samples):
            rows = slice(start, start + samples)
            values = tuple(value[rows] for value in self._cached)
            score = partial(self._score_pass, values, rows, wanted, margin_limit)
            more = _in_parts(population.afresh(), candidates, score)
            counts = more if counts is None else counts + more
        assert counts is not None
        if "concordant" in asked:
            counts = counts._replace(concordant=concordant_pairs(counts.histogram))
        if "histogram" not in asked:
            counts = counts._replace(histogram=counts.histogram.new_empty(0))
        return counts

    def _score_pass(
        self,
        values: tuple[Tensor, ...],
        rows: slice,
        wanted: list[str],
        margin_limit: float,
        part: Population,
    ) -> Counts:
        logits = self._network.suffix(values, part).unflatten(0, (part.size, -1))
        return self._tally.count(logits, rows, Wanted(wanted, HISTOGRAM_BINS, margin_limit))

    def _pass_size(self, population: Population) -> tuple[int, int]:
        """How many samples of how many candidates run at once, so that activations stay in cache."""
        samples = self._samples
        if self._cached[0].device.type == "cpu":
            rows = min(PASS_BYTES * torch.get_num_threads() // self._network.row_bytes, MOST_ROWS)
        else:
            rows = GPU_PASS_BYTES // self._network.row_bytes
        rows = max(rows, LEAST_SAMPLES)
        together = min(population.size, SHIFTED_TOGETHER) if population.rule.kind == "shift" else 1
        at_once = max(LEAST_SAMPLES, rows // together)
        at_once = math.ceil(samples / math.ceil(samples / at_once))  # no batch is nearly empty
        return at_once, max(1, rows // at_once)


def _in_parts(population: Population, size: int, score: Callable[[Population], Counts]) -> Counts:
    """Score a population in parts of ``size`` candidates."""
    if population.size <= size:
        return score(population)
    parts = [
        score(population.part(n, min(n + size, population.size))) for n in range(0, population.size, size)
    ]
    return Counts(*(torch.cat(part) for part in zip(*parts, strict=True)))
