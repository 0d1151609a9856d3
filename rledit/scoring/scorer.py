"""Scorer: scores batches of candidates on cached activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..objectives import Objective
from ..ops import PROBE_PARTS, TALLY_PARTS, Backend, Probe, Wanted, halves
from ..ops import backend as find_backend
from ..ops.rules import UNCHANGED, EditRule, check_kind
from ..ops.tail import PRECISIONS
from ..runtime import plain_modes
from ..samples import Samples
from ..tally import LabelCount, Tally
from .editable import Editable, Factors
from .evaluator import HISTOGRAM_BINS, Evaluator
from .population import Population

BackendName: TypeAlias = Literal["auto", "reference", "native", "triton", "cuda"]
Precision: TypeAlias = Literal["float32", "bfloat16"]


class Scorer:
    """Scores candidates of one task on one split. Made by :meth:`rledit.Task.scorer`.

    The part of the network before the first target runs once, here. What remains is scored by the fused op
    where it is Linear layers with elementwise functions between them, else by running it for many candidates
    at once, or whole for one after the other. The scorer checks itself: with no edit and with a random one it
    must reproduce the logits of the model itself, really edited, or it refuses.

    Args:
        editable: what is edited, an :class:`EditableModel` or a black box, :class:`EditableFunction`.
        samples: the split; of a black box those whose logits its function gives.
        objective: its needs are counted.
        backend: "auto", "native", "triton", "cuda" or "reference"; see :func:`rledit.ops.backend`.
        precision: "float32", or "bfloat16" for operands rounded to bfloat16.
        evaluator: counts in place of the editable's own.

    Raises:
        TypeError: for a backend that does not know the weights' dtype.
        ValueError: for an unknown backend or precision, activations that give NaN, or a model whose own
            logits cannot be reproduced.
    """

    def __init__(
        self,
        editable: Editable,
        samples: Samples,
        objective: Objective,
        backend: BackendName = "auto",
        precision: Precision = "float32",
        evaluator: Evaluator | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}")
        self.editable = editable
        self.samples = samples
        self.objective = objective
        self.precision = precision
        self._backend = self._choose_backend(backend)
        self._probed = any(part in objective.needs for part in PROBE_PARTS)
        fit = halves(samples.labels, samples.masks) if self._probed else None
        if evaluator is None:
            probe = None if fit is None else Probe(fit.to(editable.device), classifier=objective.classifier)
            evaluator = editable.evaluator(samples, self._backend, precision, probe)
        self.evaluator = evaluator
        self._label_count = LabelCount(samples.labels, samples.groups, editable.classes, fit)
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
        """ "tail": the fused op; "suffix": the traced rest of the network; "whole": all of it, each time;
        "function": a black box."""
        return self.evaluator.way

    @property
    def cached_bytes(self) -> int:
        """Memory that the cached activations, and what belongs to them, take."""
        return self.evaluator.cached_bytes

    def __repr__(self) -> str:
        return (
            f"Scorer({len(self.samples)} samples, way={self.way}, backend={self.backend}, "
            f"precision={self.precision}, cached={self.cached_bytes / 2**20:.1f} MiB)"
        )

    # ------------------------------------------------------------------------------------- scoring

    def _parts(self, wanted: Iterable[str] | None) -> list[str]:
        parts = sorted({"correct", *self.objective.needs} if wanted is None else set(wanted))
        if not parts:
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got none")
        if unknown := set(parts) - set(TALLY_PARTS):
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got {sorted(unknown)}")
        if not self._probed and (probes := [part for part in parts if part in PROBE_PARTS]):
            raise ValueError(f"wanted: {probes[0]} needs an objective that has it among its needs")
        return parts

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
            world: a kind of :data:`rledit.ops.rules.KINDS`: "shift", W' = W + scale * (left @ right), "mask",
                W' = W * (1 + scale * (left @ right)), or one of your own.
            weights: per target [N, O, I], weights that take the place of the model's, edited before.
            wanted: parts of the tally; by default those that the objective needs, and `correct`.

        Raises:
            ValueError: for an unknown target, world or part, shapes that do not fit, rank 0 or above
                min(O, I), or factors or a scale that are not finite.
        """
        rule = EditRule(check_kind(world), scale)
        parts = self._parts(wanted)
        with plain_modes():
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
        wanted = Wanted(self._parts(None) if parts is None else parts, HISTOGRAM_BINS)
        if wanted.binned:
            wanted = wanted._replace(margin_limit=self.margin_limit)
        population = self._population(sizes[0] if sizes else 1, factors, rule, own)
        counts = self.evaluator.count(population, wanted)
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
        outermost bins, where a sample is so clearly of one class that few of the other class are there.
        """
        if self._margin_limit == 0.0:
            self._margin_limit = self._find_margin_limit()
        return self._margin_limit

    def _find_margin_limit(self) -> float:
        unedited = self._population(1, {}, UNCHANGED, {})
        limit = 16.0
        grown = False
        while 1e-6 < limit < 1e6:
            wanted = Wanted(["histogram"], HISTOGRAM_BINS, limit)
            histogram = self.evaluator.count(unedited, wanted).histogram.sum((0, 1, 2))
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
