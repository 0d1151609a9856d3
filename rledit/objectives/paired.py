"""Classifiers of the same samples, compared on bootstrap resamples of the rows.

Every classifier is measured on the same resamples, so that what two of them have in common cancels in their
difference. (B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13: percentile
intervals of paired data.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..ops import tally_logits
from ..ops.tally_logits import bins_of
from ..samples import Samples
from ..tally import LabelCount, Tally
from .budgets import WORST
from .fairness import METRICS, NEEDS, PER_GROUP, GroupMetrics
from .metric_names import direction
from .rates import Figure, lacking
from .resampling import ResampledTally, WeightedCounter, resample, whole_weights

BINS = 8192
"""Of ranks: so many that AUCs are those of the very margins to three digits and more."""

RESAMPLES = 200
LEVEL = 0.95


def margins_of_logits(logits: Tensor) -> Tensor:
    """logit[1] - logit[0], float32 [S] on the CPU, of logits [S, 2]; NaN where it is not finite."""
    margins = (logits[:, 1] - logits[:, 0]).detach().float().cpu()
    return torch.where(margins.isfinite(), margins, torch.nan)


def ranks_of(margins: Tensor) -> Tensor:
    """Ranks with the signs of the margins [S], equal for equal ones, NaN for NaN; float32 [S].

    Sentences of one template differ in a word or two and their margins by hundredths, while those of long
    comments go into the hundreds: bins of equal width would throw the former together, bins of ranks do not.
    """
    _, inverse, counts = torch.unique(margins, return_inverse=True, return_counts=True)
    middle = counts.cumsum(0) - counts / 2
    ranks = (middle - (margins <= 0).sum())[inverse].float()
    return torch.where(margins.isnan(), margins, ranks)


def tally_margins(margins: Tensor, samples: Samples) -> Tally:
    """The tally of N lists of margins [N, S]."""
    logits = torch.stack([torch.zeros_like(margins), margins], dim=-1)
    counts = tally_logits(logits, samples.labels, samples.masks, sorted(NEEDS), BINS, _limit(margins))
    return Tally(counts, samples.group_names, LabelCount(samples.labels, samples.groups, 2))


def _limit(margins: Tensor) -> float:
    return max(1e-6, 1.01 * float(margins.nan_to_num().abs().max()))


@dataclass(frozen=True)
class Figures:
    """Metrics of N draws, float64 [N] each, as far as they can be measured; NaN for a draw in which one
    cannot.

    Attributes:
        overall: by name, over all groups that are large enough.
        per_group: by group and name.
    """

    overall: dict[str, Tensor]
    per_group: dict[str, dict[str, Tensor]]

    def minus(self, other: Figures) -> Figures:
        """Draw by draw."""
        return Figures(
            {name: values - other.overall[name] for name, values in self.overall.items()},
            {
                group: {name: values - other.per_group[group][name] for name, values in figures.items()}
                for group, figures in self.per_group.items()
            },
        )

    def each(
        self, of: Callable[[Tensor], Iterable[object]]
    ) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
        """Something of every figure, from all of them in rows [F, N]: overall, and by group."""
        own = [*self.overall.values(), *(v for figures in self.per_group.values() for v in figures.values())]
        found = iter(of(torch.stack(own)) if own else ())
        overall = {name: next(found) for name in self.overall}
        return overall, {
            group: {name: next(found) for name in figures} for group, figures in self.per_group.items()
        }

    def values(self) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
        """The only draw's figures as numbers: overall, and by group."""
        return self.each(lambda rows: rows[:, 0].tolist())

    def intervals(self, level: float = LEVEL) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
        """The interval of every figure, see :func:`interval`: overall, and by group."""
        return self.each(lambda rows: quantiles(rows, ((1 - level) / 2, (1 + level) / 2)).tolist())


@dataclass(frozen=True)
class Measured:
    """One classifier: on the samples themselves, one draw, and on the resamples."""

    whole: Figures
    drawn: Figures


class Resamples:
    """Bootstrap resamples of one set, the same for every classifier.

    Args:
        samples: with labels 0 and 1. Where they have weights, all figures weigh them so; drawn are samples.
        identities: groups of the samples.
        everyone, utility: names of groups; utility may be missing.
        least: of the samples that a figure is made of, so many, whatever they weigh, must a group have to
            count in figures over all groups; one that is smaller has figures of its own all the same.
        count: of resamples, by default :data:`RESAMPLES`.
        seed: of what is drawn.
    """

    def __init__(
        self,
        samples: Samples,
        identities: Sequence[str],
        *,
        everyone: str = "bias",
        utility: str = "utility",
        least: int = 1,
        count: int | None = None,
        seed: int = 0,
    ) -> None:
        self.samples = samples
        self.identities = tuple(identities)
        self.everyone, self.utility, self.least = everyone, utility, least
        fixed = (utility, everyone)
        # a sample comes 255 times in no resample that anybody will see; as bytes a large set fits in memory
        self._drawn = [
            np.bincount(drawn.numpy(), minlength=len(samples)).clip(max=255).astype(np.uint8)
            for drawn in resample(samples, RESAMPLES if count is None else count, seed, fixed)
        ]
        self._weights = None if samples.weights is None else whole_weights(samples.weights)
        own = LabelCount(samples.labels, samples.groups, 2).classes
        self.sizes: Mapping[str, list[int]] = {name: own[name] for name in (everyone, *self.identities)}

    def groups_with(self, figure: Figure) -> tuple[str, ...]:
        """The groups that are large enough for a figure."""
        total = self.sizes[self.everyone]
        return tuple(g for g in self.identities if not lacking(self.sizes[g], total, figure, self.least))

    def measure(self, margins: Tensor) -> Measured:
        """A classifier by its margins [S]."""
        ranks = ranks_of(margins)
        places = bins_of(ranks, BINS, _limit(ranks))
        counter = WeightedCounter(ranks, places, BINS, self.samples, self.everyone)
        weights = self._weights
        if weights is None:
            whole = self._figures(tally_margins(ranks[None], self.samples))
            resampled = counter.tally_weights(self._drawn)
        else:
            whole = self._figures(counter.tally_weights([weights]))
            resampled = counter.tally_weights(drawn * weights for drawn in self._drawn)
        parts = resampled.alike(self.identities, self.everyone)
        return Measured(whole, _joined(whole, [self._figures(part) for part in parts], parts))

    def _figures(self, tally: Tally) -> Figures:
        metrics = GroupMetrics(
            tally, self.identities, self.everyone, self.utility, least=self.least, sizes=self.sizes
        )
        overall = {}
        for name in METRICS:
            if self.utility in tally.groups or METRICS[name].whole != "utility":
                with suppress(ValueError):  # no group has what it is made of
                    overall[name] = metrics[name]
        every = GroupMetrics(tally, self.identities, self.everyone, self.utility)
        per_group: dict[str, dict[str, Tensor]] = {group: {} for group in self.identities}
        for name in PER_GROUP:
            for group, values in every.per_group(name).items():
                per_group[group][name] = values
        return Figures(overall, per_group)


def _joined(whole: Figures, parts: Sequence[Figures], tallies: Sequence[ResampledTally]) -> Figures:
    """The figures that the whole has, of all parts one after the other."""
    sizes = [tally.candidates for tally in tallies]

    def joined(known: Sequence[Tensor | None]) -> Tensor:
        unknown = [torch.full((size,), torch.nan, dtype=torch.float64) for size in sizes]
        return torch.cat([u if k is None else k for k, u in zip(known, unknown, strict=True)])

    return Figures(
        {name: joined([part.overall.get(name) for part in parts]) for name in whole.overall},
        {
            group: {name: joined([part.per_group[group].get(name) for part in parts]) for name in figures}
            for group, figures in whole.per_group.items()
        },
    )


def interval(drawn: Tensor, level: float = LEVEL) -> list[float]:
    """The quantiles at a level of the draws [N] that are known; NaN if none is."""
    found: list[float] = quantiles(drawn[None], ((1 - level) / 2, (1 + level) / 2))[0].tolist()
    return found


def quantile(drawn: Tensor, share: float) -> float:
    """One quantile of the draws [N] that are known; NaN if none is."""
    return float(quantiles(drawn[None], (share,))[0, 0])


def quantiles(drawn: Tensor, shares: Sequence[float]) -> npt.NDArray[np.float64]:
    """Quantiles of each row of draws [F, N], of those that are known, float64 [F, Q]; NaN where none is.

    As :func:`numpy.nanquantile`, which goes through the rows one by one.
    """
    values = np.sort(drawn.numpy(), axis=1)  # NaN comes last
    last = np.maximum((~np.isnan(values)).sum(1, keepdims=True) - 1, 0)
    place = last * np.asarray(shares)
    below = np.floor(place).astype(np.int64)
    low = np.take_along_axis(values, below, 1)
    high = np.take_along_axis(values, np.minimum(below + 1, last), 1)
    found: npt.NDArray[np.float64] = low + (high - low) * (place - below)
    return found


class Comparison:
    """Two classifiers of one set: what changed, and what of a budget was spent.

    Args:
        resamples: of the set.
        before, after: the classifiers, as these resamples measure them.
    """

    def __init__(self, resamples: Resamples, before: Measured, after: Measured) -> None:
        self.resamples = resamples
        self.before, self.after = before, after
        self.change = after.whole.minus(before.whole)
        self.drawn_change = after.drawn.minus(before.drawn)

    def spent(self, name: str) -> float:
        """What was lost of a budget, by its full name; negative where something was gained."""
        lost, _ = self._lost(name)
        return float(lost.max()) if len(lost) else 0.0

    def bound(self, name: str, confidence: float) -> float:
        """A one-sided upper bound of what is lost.

        Of the largest loss of a group: the largest of the groups' own bounds. It exceeds the true one as
        surely as that of the group which loses most does, whatever the number of groups.
        """
        lost, drawn = self._lost(name)
        return float(quantiles(drawn, (confidence,)).max()) if len(lost) else 0.0

    def interval(self, name: str, level: float = LEVEL) -> list[float]:
        """Of what is lost. The largest loss of a group in a sample is above the true one, being the largest
        of many that vary; so below it reaches as far as all groups' losses together are off in a resample."""
        lost, drawn = self._lost(name)
        if not len(lost):
            return [0.0, 0.0]
        if len(lost) == 1:
            return interval(drawn[0], level)
        off = (drawn - lost[:, None]).nan_to_num(nan=-torch.inf).amax(0)
        low = float(lost.max()) - quantile(off[off > -torch.inf], (1 + level) / 2)
        return [low, self.bound(name, (1 + level) / 2)]

    def _lost(self, name: str) -> tuple[Tensor, Tensor]:
        """The loss of each group, or of a whole set, [K], and in the resamples [K, N]."""
        plain = name.removesuffix(WORST)
        sign = -direction(plain)
        if not name.endswith(WORST):
            return sign * self.change.overall[name], sign * self.drawn_change.overall[name][None]
        groups = self.resamples.groups_with(PER_GROUP[plain].figure)
        if not groups:
            return torch.empty(0), torch.empty(0, 0)
        return (
            sign * torch.cat([self.change.per_group[group][plain] for group in groups]),
            sign * torch.stack([self.drawn_change.per_group[group][plain] for group in groups]),
        )
