"""Scorer: scores batches of candidates on cached activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..objectives import Objective
from ..ops import TALLY_PARTS, Backend
from ..ops import backend as find_backend
from ..ops.rules import UNCHANGED, EditRule
from ..ops.score_tail import PRECISIONS
from ..samples import Samples
from ..tally import LabelCount, Tally
from .checking import check_population
from .editable import EditableModel, Factors
from .network import CutNetwork
from .population import Population
from .ways import SuffixWay, TailWay, Way, tail_logits

CHECKED_SAMPLES = 8
BATCH = 256
BINNED = frozenset({"histogram", "concordant"})
"""Parts of a tally that come from margins cut into bins."""


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
        self._backend = self._choose_backend(backend)
        cached = self._cache()
        self._check(tuple(value[:CHECKED_SAMPLES] for value in cached))
        self._way = self._choose_way(cached)
        self._label_count = LabelCount(samples.labels, samples.groups, editable.classes)
        self._margin_limit = 0.0  # not known yet
        if objective.needs_unedited:  # compares with the unedited model, on this split
            self.objective = objective.relative_to(self.score({}))

    def _choose_backend(self, name: str) -> Backend:
        chosen = find_backend(name, self.editable.device.type)
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
        if self.editable.tail is not None:
            return "tail"
        return "suffix" if isinstance(self.editable.network, CutNetwork) else "whole"

    @property
    def cached_bytes(self) -> int:
        """Memory that the cached activations, and what belongs to them, take."""
        return self._way.cached_bytes

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
            values = self.editable.network.prefix(self.editable.as_input(inputs))
            if not cached:
                cached = [_empty_rows(value, len(self.samples)) for value in values]
            for whole, value in zip(cached, values, strict=True):
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise ValueError(f"inputs: the activations of samples {start}.. are not finite")
                whole[start : start + len(value)] = value
            start += len(inputs)
        return tuple(cached)

    def _choose_way(self, cached: tuple[Tensor, ...]) -> Way:
        labels, masks = (part.to(self.editable.device) for part in (self.samples.labels, self.samples.masks))
        if self.editable.tail is None:
            classes = self.editable.classes
            return SuffixWay(self.editable.network, cached, labels, masks, self._backend, classes)
        return TailWay(self.editable.tail, cached[0], labels, masks, self._backend, self.precision)

    def _check(self, cached: tuple[Tensor, ...]) -> None:
        """The first cached values + suffix must give the model's own logits, unedited and edited."""
        tail, network = self.editable.tail, self.editable.network

        def run(population: Population) -> Tensor:
            if tail is None:
                return network.suffix(cached, population)
            return tail_logits(tail, cached[0], population)

        inputs = self.editable.as_input(self.samples.head(CHECKED_SAMPLES))
        check_population(self.editable.model, self.editable.targets, inputs, run)

    # ------------------------------------------------------------------------------------- scoring

    def _parts(self, wanted: Iterable[str] | None) -> list[str]:
        parts = sorted({"correct", *self.objective.needs} if wanted is None else set(wanted))
        if not parts:
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got none")
        if unknown := set(parts) - set(TALLY_PARTS):
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got {sorted(unknown)}")
        return parts

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
        rule = EditRule(world, scale)
        parts = self._parts(wanted)
        checked = self.editable.check_factors(factors)
        own = {} if weights is None else self.editable.check_weights(weights)
        sizes = {left.shape[0] for left, _ in checked.values()} | {w.shape[0] for w in own.values()}
        if len(sizes) > 1:
            raise ValueError(f"factors: expected one number of candidates, got {sorted(sizes)}")
        return self.count(checked, rule, own, parts)

    @torch.no_grad()
    def count(
        self,
        factors: Factors,
        rule: EditRule = UNCHANGED,
        weights: Mapping[str, Tensor] | None = None,
        parts: list[str] | None = None,
    ) -> Tally:
        """:meth:`score` of arguments known to be sound, contiguous, on the model's device and in its dtype.

        Nobody looks at their numbers, so nothing waits for a GPU (but the first time that bins are needed).
        """
        own = weights or {}
        sizes = [left.shape[0] for left, _ in factors.values()] + [w.shape[0] for w in own.values()]
        parts = self._parts(None) if parts is None else parts
        limit = self.margin_limit if BINNED.intersection(parts) else 1.0
        population = self._population(sizes[0] if sizes else 1, factors, rule, own)
        counts = self._way.score(population, parts, limit)
        return Tally(counts, self.samples.group_names, self._label_count)

    def _population(
        self, size: int, factors: Factors, rule: EditRule, weights: Mapping[str, Tensor]
    ) -> Population:
        return Population(
            size=size, factors=factors, weights=weights, rule=rule, backend=self._backend,
            precision=self.precision,
        )  # fmt: skip

    @property
    def margin_limit(self) -> float:
        """The bins of histograms divide the margins logit[1] - logit[0] in [-margin_limit, margin_limit].

        The least power of two that holds 98% of the unedited model's margins. The others fall into the
        outermost bins, where a sample is so surely of a class that few of the other class are beside it.
        """
        if self._margin_limit == 0.0:
            self._margin_limit = self._find_margin_limit()
        return self._margin_limit

    def _find_margin_limit(self) -> float:
        unedited = self._population(1, {}, UNCHANGED, {})
        limit = 16.0
        grown = False
        while 1e-6 < limit < 1e6:
            histogram = self._way.score(unedited, ["histogram"], limit).histogram.sum((0, 1, 2))
            bins, total = len(histogram), int(histogram.sum())
            inside = total - int(histogram[[0, -1]].sum())
            half = int(histogram[bins // 4 : 3 * bins // 4].sum())
            if inside < 0.98 * total:
                limit *= 2
                grown = True
            elif half >= 0.98 * total > 0 and not grown:
                limit /= 2
            else:
                break
        return limit


def _empty_rows(like: Tensor, rows: int) -> Tensor:
    """[rows, ...] in the memory format of ``like``."""
    last = like.dim() == 4 and not like.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((rows, *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=layout)
