"""Before and after on test sets, with bootstrap confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...objectives import METRICS, PER_GROUP, GroupMetrics
from ...objectives.fairness import NEEDS
from ...objectives.resampling import ResampledTally, WeightedCounter, resample
from ...ops import tally_logits
from ...ops.tally_logits import bins_of
from ...samples import Samples
from ...storage.files import Json
from ...tally import LabelCount, Tally

BINS = 8192
"""Of ranks: so many that AUCs are those of the very margins to three digits and more."""

RESAMPLES = 200
LEVEL = 0.95
BATCH = 1024


@torch.no_grad()
def margins_of(model: nn.Module, encode: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> Tensor:
    """logit[1] - logit[0] of each text, float32 [S]. Batch by batch: a whole test set as one-hot words would
    take gigabytes."""
    starts = range(0, len(texts), BATCH)
    logits = torch.cat([model(encode(texts[start : start + BATCH])) for start in starts])
    return (logits[:, 1] - logits[:, 0]).float()


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


def tally_resamples(margins: Tensor, samples: Samples, seed: int) -> ResampledTally:
    """The tally of margins [S] on :data:`RESAMPLES` resamples."""
    places = bins_of(margins, BINS, _limit(margins))
    counter = WeightedCounter(margins, places, BINS, samples, "bias")
    return counter.tally(resample(samples, RESAMPLES, seed))


def _limit(margins: Tensor) -> float:
    return max(1e-6, 1.01 * float(margins.nan_to_num().abs().max()))


def evaluate(margins: Tensor, samples: Samples, identities: Sequence[str], seed: int = 0) -> dict[str, Json]:
    """Figures of one classifier on one test set.

    Args:
        margins: [S], see :func:`margins_of`.
        samples: with a group "bias", and with "utility" if utility is to be measured.
        identities: identity groups.

    Returns:
        every metric of :data:`rledit.objectives.METRICS` that can be measured; ``accuracy`` is utility's.
        ``per_group`` has the AUCs and error rates of each group, as far as it has them. ``interval`` has
        bootstrap intervals of all that at :data:`LEVEL`, from the resamples in which a figure can be
        measured.
    """
    present = [name for name in identities if name in samples.groups]
    ranks = ranks_of(margins)
    whole = _Figures.of(tally_margins(ranks[None], samples), present)
    resamples = tally_resamples(ranks, samples, seed).alike(present, "bias")
    drawn = [_Figures.of(tally, present) for tally in resamples]
    out: dict[str, Json] = {name: float(value) for name, value in whole.overall.items()}
    if "utility_accuracy" in whole.overall:
        out["accuracy"] = out["utility_accuracy"]
    out["per_group"] = {
        group: {name: float(value) for name, value in figures.items()}
        for group, figures in whole.per_group.items()
    }
    out["interval"] = {
        **{name: _interval([part.overall.get(name) for part in drawn]) for name in whole.overall},
        "per_group": {
            group: {name: _interval([part.per_group[group].get(name) for part in drawn]) for name in figures}
            for group, figures in whole.per_group.items()
        },
    }
    return out


def _interval(parts: Sequence[Tensor | None]) -> list[float]:
    """The quantiles at :data:`LEVEL` of what is known; NaN if nothing is."""
    known = [part for part in parts if part is not None]
    if not known:
        return [math.nan, math.nan]
    low, high = np.quantile(torch.cat(known).numpy(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


@dataclass(frozen=True)
class _Figures:
    """Metrics of N lists of margins, float64 [N] each: over all groups, and by group, as far as they can be
    measured."""

    overall: dict[str, Tensor]
    per_group: dict[str, dict[str, Tensor]]

    @classmethod
    def of(cls, tally: Tally, identities: Sequence[str]) -> _Figures:
        metrics = GroupMetrics(tally, identities)
        overall = {}
        for name in METRICS:
            if metrics.utility in tally.groups or not name.startswith("utility"):
                with suppress(ValueError):  # no group has what it is made of
                    overall[name] = metrics[name]
        per_group: dict[str, dict[str, Tensor]] = {group: {} for group in identities}
        for name in PER_GROUP:
            for group, values in metrics.per_group(name).items():
                per_group[group][name] = values
        return cls(overall, per_group)
