"""The evaluators of torch networks: the fused tail, the suffix of a cut network, and the whole network."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..batch import Inputs, tensors_of
from ..heads import Head, features_of, head_inputs
from ..ops import NONLINEARITIES, Backend, Candidates, Counts, Layer, Probe, TailProblem, Wanted
from ..targets import as_matrix, find_targets
from .collected import Collected, FeatureReader, candidates_at_once, hangs_on_all
from .copies import twin_of
from .evaluator import Evaluator, OneByOne, add_up, countable
from .logits import ruled_out
from .network import CutNetwork
from .population import Population
from .tail import Tail
from .tracing import RowsError

PASS_BYTES = 4 << 20  # of the widest activation of a pass through a suffix, per thread: more leaves the cache
SHIFTED_TOGETHER = 4  # candidates of a pass whose small corrections are worth making in one product
GPU_PASS_BYTES = 256 << 20  # on a GPU: few large passes, since each is many kernels to start
LEAST_SAMPLES = 32
MOST_ROWS = 4096
WHOLE_ROWS = 256  # samples of a pass through a whole network, per thread: its activations are not known
GPU_WHOLE_ROWS = 4096


class TailWay:
    """The fused op on a tail that is prepared once."""

    way = "tail"

    def __init__(
        self,
        tail: Tail,
        activations: Tensor,
        labels: Tensor,
        masks: Tensor,
        backend: Backend,
        precision: str,
        probe: Probe | None = None,
    ) -> None:
        self._names = tail.names
        layers = tuple(
            Layer(layer.weight, layer.bias, nonlinearity)
            for layer, nonlinearity in zip(tail.layers, tail.nonlinearities, strict=True)
        )
        # They are those of the private copy, which nobody changes.
        problem = TailProblem(activations, layers, labels, masks, precision, weights_stay=True, probe=probe)
        self._tail = backend.prepare_tail(problem)
        # The reference holds the logits of all candidates at once, the native op those of a few samples.
        self._at_once = max(1, MOST_ROWS // len(labels)) if backend.name == "reference" else 0

    @property
    def cached_bytes(self) -> int:
        return self._tail.bytes

    def count(self, population: Population, wanted: Wanted) -> Counts:
        score = partial(self._score, wanted)
        return _in_parts(population, self._at_once, score) if self._at_once else score(population)

    def _score(self, wanted: Wanted, population: Population) -> Counts:
        factors = [population.factors.get(name, (None, None)) for name in self._names]
        candidates = Candidates(
            population.size,
            population.rule,
            [left for left, _ in factors],
            [right for _, right in factors],
            [population.weights.get(name) for name in self._names],
        )
        return self._tail.score(candidates, wanted)


def tail_logits(tail: Tail, activations: Tensor, population: Population) -> Tensor:
    """Logits [n*s, C] that the op computes from a tail's tensors, whatever calling its modules would do."""
    x, shared = activations, True
    for name, layer, function in zip(tail.names, tail.layers, tail.nonlinearities, strict=True):
        if population.touches(name):
            x = population.run(name, layer, x, shared)
            shared = False
        else:
            x = F.linear(x, layer.weight, layer.bias)
        x = NONLINEARITIES[function](x)
    return x.repeat(population.size, 1) if shared else x


class SuffixWay:
    """The rest of a cut network, for some samples and some candidates at a time."""

    def __init__(
        self,
        network: CutNetwork,
        cached: tuple[Tensor, ...],
        labels: Tensor,
        masks: Tensor,
        backend: Backend,
        classes: int,
        otherwise: Callable[[RowsError], Evaluator],
        reader: FeatureReader | None = None,
    ) -> None:
        """``otherwise``: another way, should a candidate's rows turn out to be routed inside forward;
        ``reader``: of the features, where probes of them will be wanted."""
        self._network = network
        self._classes = classes
        self._reader = reader
        self._cached = cached
        self._samples = len(labels)
        self._tally = backend.prepare_tally(labels, masks, classes)
        self._otherwise = otherwise
        self._instead: Evaluator | None = None

    @property
    def way(self) -> str:
        return "suffix" if self._instead is None else self._instead.way

    @property
    def cached_bytes(self) -> int:
        return sum(value.numel() * value.element_size() for value in self._cached)

    def count(self, population: Population, wanted: Wanted) -> Counts:
        if self._instead is None:
            try:
                # Margins of all groups' bins, added up pass by pass, take longer than a small suffix itself.
                if hangs_on_all(wanted) or wanted.binned:
                    return self._count_all(population, wanted)
                return add_up(self._passes(population, countable(wanted)), wanted)
            except RowsError as error:
                self._instead = self._otherwise(error)
        return self._instead.count(population, wanted)

    def _passes(self, population: Population, wanted: Wanted) -> Iterator[Counts]:
        """Samples outside, candidates inside: what the candidates share of some samples is made once."""
        samples, candidates = self._pass_size(population)
        for start in range(0, self._samples, samples):
            rows = slice(start, start + samples)
            values = tuple(value[rows] for value in self._cached)
            score = partial(self._score_pass, values, rows, wanted)
            yield _in_parts(population.afresh(), candidates, score)

    def _score_pass(
        self, values: tuple[Tensor, ...], rows: slice, wanted: Wanted, part: Population
    ) -> Counts:
        logits = ruled_out(self._network.suffix(values, part)).unflatten(0, (part.size, -1))
        return self._tally.count(logits, rows, wanted)

    def _count_all(self, population: Population, wanted: Wanted) -> Counts:
        """Count what depends on all samples at once, for as many candidates as memory for logits and features
        allows."""
        reader = self._reader if wanted.probes else None
        at_once = candidates_at_once(self._samples, self._classes, reader)
        return _in_parts(population, at_once, partial(self._count_some, wanted, reader))

    def _count_some(self, wanted: Wanted, reader: FeatureReader | None, population: Population) -> Counts:
        samples, candidates = self._pass_size(population)
        collected = Collected(population.size, self._samples)
        for start in range(0, self._samples, samples):
            rows = slice(start, min(start + samples, self._samples))
            values = tuple(value[rows] for value in self._cached)
            whole = population.afresh()
            for first in range(0, population.size, candidates):
                part = whole.part(first, min(first + candidates, population.size))
                head = None if reader is None else reader.head
                logits, features = self._network.suffix_with_features(values, part, head)
                collected.add(slice(first, first + part.size), rows, logits, features)
        return collected.count(self._tally, reader, wanted)

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


_EDITING = Lock()  # worlds score on threads; not a scorer's own, since a lock cannot be copied with it


def _after_fork() -> None:
    """Start afresh in a forked child, where a thread that was editing cannot finish."""
    global _EDITING
    _EDITING = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class WholeWay(OneByOne):
    """Any module, really edited: a twin is given a candidate's weights and runs from the inputs.

    Nothing is assumed about how the network uses its weights or its batch, so rows that are routed inside
    forward (mixture of experts, early exit) go where they go in the edited model.
    """

    way = "whole"

    def __init__(
        self,
        model: nn.Module,
        targets: Mapping[str, nn.Module],
        inputs: Inputs,
        labels: Tensor,
        masks: Tensor,
        backend: Backend,
        classes: int,
        reader: FeatureReader | None = None,
    ) -> None:
        found = find_targets(model, list(targets))
        weights = {name: as_matrix(target.weight).detach() for name, target in found.items()}
        super().__init__(weights, labels, masks, classes, backend, reader)
        self._twin = twin_of(model, views=[target.weight for target in found.values()])
        self._targets = find_targets(self._twin, list(targets))
        self._unedited = {name: target.weight.data for name, target in self._targets.items()}
        self._inputs = inputs
        self._dtype = next(iter(weights.values())).dtype

    @property
    def cached_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for _, tensor in tensors_of(self._inputs))

    def count(self, population: Population, wanted: Wanted) -> Counts:
        with _EDITING:
            self._take_back()  # what a thread was editing when this process was forked off
            try:
                return super().count(population, wanted)
            finally:
                self._take_back()

    def _take_back(self) -> None:
        for name, target in self._targets.items():
            target.weight.data = self._unedited[name]

    def logits(self, weights: dict[str, Tensor], precision: str) -> Iterator[tuple[slice, Tensor]]:
        for name, weight in weights.items():
            unedited = self._unedited[name]
            edited = weight.view(unedited.shape)
            if not unedited.is_contiguous():  # in its layout, by which torch may choose another algorithm
                edited = torch.empty_like(unedited).copy_(edited)
            self._targets[name].weight.data = edited
        rounded = [self._targets[name] for name in weights] if precision == "bfloat16" else []
        hooks = [target.register_forward_pre_hook(_round_inputs) for target in rounded]
        on_cpu = next(iter(self._unedited.values())).device.type == "cpu"
        rows = WHOLE_ROWS * torch.get_num_threads() if on_cpu else GPU_WHOLE_ROWS
        total = len(self._inputs)
        try:
            for start in range(0, total, rows):
                samples = slice(start, min(start + rows, total))
                logits = self._twin(self._inputs[samples].clone())  # which the network may change in place
                yield samples, logits.to(self._dtype)
        finally:
            for hook in hooks:
                hook.remove()
            for name in weights:  # nobody holds the candidate's any longer
                self._targets[name].weight.data = self._unedited[name]

    def outputs(
        self, weights: dict[str, Tensor], precision: str, head: Head | None
    ) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        if head is None:
            yield from super().outputs(weights, precision, head)
            return
        module = self._twin.get_submodule(head.name)
        assert isinstance(module, nn.Linear)
        with head_inputs(own := replace(head, module=module)) as read:
            for samples, logits in self.logits(weights, precision):
                yield samples, logits, features_of(own, read, len(logits)).to(self._dtype)
                read.clear()


def _round_inputs(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        x.bfloat16().to(x.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in arguments
    )


def _in_parts(population: Population, size: int, score: Callable[[Population], Counts]) -> Counts:
    """Score a population in parts of ``size`` candidates."""
    if population.size <= size:
        return score(population)
    parts = [
        score(population.part(n, min(n + size, population.size))) for n in range(0, population.size, size)
    ]
    return Counts(*(torch.cat(part) for part in zip(*parts, strict=True)))
