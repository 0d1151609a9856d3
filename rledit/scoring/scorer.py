"""Scorer: scores batches of candidates on cached activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..objectives import Objective
from ..ops import NONLINEARITIES, TALLY_PARTS, Backend, Counts
from ..ops import backend as find_backend
from ..ops.apply_lowrank import WORLDS
from ..ops.score_tail import PRECISIONS
from ..samples import Samples
from ..tally import Tally
from .checking import check_population
from .editable import EditableModel, Factors
from .network import CutNetwork, Network
from .population import Population
from .tail import Tail

CHECKED_SAMPLES = 8
BATCH = 256
PASS_BYTES = 4 << 20  # of the widest activation of a pass through a suffix, per thread: more leaves the cache
SHIFTED_TOGETHER = 4  # candidates of a pass whose small corrections are worth making in one product
LEAST_SAMPLES = 32
MOST_ROWS = 4096
HISTOGRAM_BINS = 1024
MARGIN_LIMIT = 16.0


class Scorer:
    """Scores candidates of one task on one split. Made by :meth:`rledit.Task.scorer`.

    The part of the network before the first target runs once, here. What remains is scored by the fused op
    where it is Linear layers with elementwise functions between them, else by running it for many candidates
    at once. The scorer checks itself: with no edit and with a random one it must reproduce the logits of the
    model itself, really edited, or it refuses.

    Raises:
        ValueError: for an unknown backend or precision, activations that are not finite, or a model whose
            own logits cannot be reproduced.
    """

    def __init__(
        self,
        editable: EditableModel,
        samples: Samples,
        objective: Objective,
        backend: str = "auto",
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}")
        self.editable = editable
        self.samples = samples
        self.objective = objective
        self.precision = precision
        self._network: Network = editable.network
        self._tail: Tail | None = editable.tail
        self._backend = self._choose_backend(backend)
        self._masks = samples.masks
        self._cached = self._cache()
        self._label_count = torch.stack(
            [torch.bincount(samples.labels[mask], minlength=editable.classes) for mask in self._masks]
        )
        self._check()

    def _choose_backend(self, name: str) -> Backend:
        chosen = find_backend(name)
        if name == "auto" and self.editable.dtype == torch.float64:
            return find_backend("reference")
        if chosen.name == "native" and self.editable.dtype != torch.float32:
            raise TypeError(
                f"backend: 'native' expects float32 weights, the model's are {self.editable.dtype}"
            )
        return chosen

    @property
    def backend(self) -> str:
        """The name of the backend in use."""
        return self._backend.name

    @property
    def way(self) -> str:
        """ "tail": the fused op; "suffix": the traced rest of the network; "whole": all of it, each time."""
        if self._tail is not None:
            return "tail"
        return "suffix" if isinstance(self._network, CutNetwork) else "whole"

    @property
    def cached_bytes(self) -> int:
        """Memory that the cached activations take."""
        return sum(value.numel() * value.element_size() for value in self._cached)

    def __repr__(self) -> str:
        return (
            f"Scorer({len(self.samples)} samples, way={self.way}, backend={self.backend}, "
            f"precision={self.precision}, cached={self.cached_bytes / 2**20:.1f} MiB)"
        )

    @torch.no_grad()
    def _cache(self) -> tuple[Tensor, ...]:
        """Runs the prefix batch by batch; only what the suffix reads is kept."""
        cached: list[Tensor] = []
        start = 0
        for inputs in self.samples.batches(BATCH):
            values = self._network.prefix(self.editable.as_input(inputs))
            if not cached:
                cached = [value.new_empty(len(self.samples), *value.shape[1:]) for value in values]
            for whole, value in zip(cached, values, strict=True):
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise ValueError(f"inputs: the activations of samples {start}.. are not finite")
                whole[start : start + len(value)] = value
            start += len(inputs)
        return tuple(cached)

    # ------------------------------------------------------------------------------------- scoring

    @torch.no_grad()
    def score(
        self,
        factors: Factors,
        world: str = "shift",
        scale: float = 1.0,
        *,
        weights: Mapping[str, Tensor] | None = None,
        wanted: Iterable[str] | None = None,
    ) -> Tally:
        """Tally N candidates.

        Args:
            factors: per target (left [N, O, R], right [N, R, I]). Targets that are missing are not edited;
                with no target at all the unedited model is scored, N = 1.
            world: "shift", W' = W + scale * (left @ right), or "mask", W' = W * (1 + scale * (left @ right)).
            weights: per target [N, O, I], weights that take the place of the model's, edited before.
            wanted: parts of the tally; by default those that the objective needs, and `correct`.

        Raises:
            ValueError: for an unknown target, world or part, shapes that do not fit, rank 0 or above
                min(O, I), or factors or a scale that are not finite.
        """
        if world not in WORLDS:
            raise ValueError(f"world: expected 'shift' or 'mask', got {world!r}")
        if not math.isfinite(scale):
            raise ValueError(f"scale: expected a finite number, got {scale}")
        parts = sorted({"correct", *self.objective.needs} if wanted is None else set(wanted))
        if not parts:
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got none")
        if unknown := set(parts) - set(TALLY_PARTS):
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got {sorted(unknown)}")
        checked = self.editable.check_factors(factors)
        own = {} if weights is None else self.editable.check_weights(weights)
        sizes = {left.shape[0] for left, _ in checked.values()} | {w.shape[0] for w in own.values()}
        if len(sizes) > 1:
            raise ValueError(f"factors: expected one number of candidates, got {sorted(sizes)}")
        population = Population(
            size=sizes.pop() if sizes else 1,
            factors=checked,
            weights=own,
            world=world,
            scale=float(scale),
            backend=self._backend,
            precision=self.precision,
        )
        counts = self._score(population, parts)
        return Tally(counts, self.samples.group_names, self._label_count)

    def _score(self, population: Population, wanted: list[str]) -> Counts:
        if self._tail is None:
            return self._score_suffix(population, wanted)
        tail = self._tail
        # The reference holds the logits of all candidates at once, the native op those of a few samples.
        size = max(1, MOST_ROWS // len(self.samples)) if self.backend == "reference" else population.size
        return _in_parts(population, size, lambda part: self._score_tail(tail, part, wanted))

    def _score_tail(
        self,
        tail: Tail,
        population: Population,
        wanted: list[str],
    ) -> Counts:
        factors = [population.factors.get(name, (None, None)) for name in tail.names]
        return self._backend.score_tail(
            self._cached[0],
            [
                population.weights.get(name, layer.weight)
                for name, layer in zip(tail.names, tail.layers, strict=True)
            ],
            [layer.bias for layer in tail.layers],
            tail.nonlinearities,
            self.samples.labels,
            self._masks,
            [left for left, _ in factors],
            [right for _, right in factors],
            population.world,
            population.scale,
            self.precision,
            wanted,
            HISTOGRAM_BINS,
            MARGIN_LIMIT,
        )

    def _score_suffix(self, population: Population, wanted: list[str]) -> Counts:
        """Samples outside, candidates inside: what the candidates share of some samples is made once."""
        samples, candidates = self._pass_size(population, len(self.samples))
        counts: Counts | None = None
        for start in range(0, len(self.samples), samples):
            rows = slice(start, start + samples)
            values = tuple(value[rows] for value in self._cached)
            batch = (values, self.samples.labels[rows], self._masks[:, rows], wanted)
            more = _in_parts(population.afresh(), candidates, partial(self._score_pass, *batch))
            counts = more if counts is None else counts + more
        assert counts is not None
        return counts

    def _score_pass(
        self, values: tuple[Tensor, ...], labels: Tensor, masks: Tensor, wanted: list[str], part: Population
    ) -> Counts:
        logits = self._network.suffix(values, part).unflatten(0, (part.size, -1))
        return self._backend.tally_logits(logits, labels, masks, wanted, HISTOGRAM_BINS, MARGIN_LIMIT)

    def _pass_size(self, population: Population, samples: int) -> tuple[int, int]:
        """How many samples of how many candidates run at once, so that activations stay in cache."""
        rows = PASS_BYTES * torch.get_num_threads() // self._network.row_bytes
        rows = min(max(rows, LEAST_SAMPLES), MOST_ROWS)
        together = min(population.size, SHIFTED_TOGETHER) if population.world == "shift" else 1
        at_once = max(LEAST_SAMPLES, rows // together)
        at_once = math.ceil(samples / math.ceil(samples / at_once))  # no batch is nearly empty
        return at_once, max(1, rows // at_once)

    # --------------------------------------------------------------------------------------- check

    def _check(self) -> None:
        """Cached values + suffix must give the model's own logits, unedited and edited."""
        inputs = self.editable.as_input(self.samples.head(CHECKED_SAMPLES))
        cached = tuple(value[: len(inputs)] for value in self._cached)
        check_population(
            self.editable.model,
            self.editable.targets,
            inputs,
            lambda population: self._logits(population, cached),
        )

    def _logits(self, population: Population, cached: tuple[Tensor, ...]) -> Tensor:
        if self._tail is None:
            return self._network.suffix(cached, population)
        x = cached[0].repeat(population.size, 1)
        for name, layer, function in zip(
            self._tail.names, self._tail.layers, self._tail.nonlinearities, strict=True
        ):
            # As the op sees a layer: its tensors, whatever calling the module would do.
            if population.touches(name):
                x = population.run(name, layer, x, shared=False)
            else:
                x = F.linear(x, layer.weight, layer.bias)
            x = NONLINEARITIES[function](x)
        return x


def _in_parts(population: Population, size: int, score: Callable[[Population], Counts]) -> Counts:
    """Score a population in parts of ``size`` candidates."""
    parts = [
        score(population.part(n, min(n + size, population.size))) for n in range(0, population.size, size)
    ]
    return Counts(*(torch.cat(part) for part in zip(*parts, strict=True)))
