"""Before and after on test sets, with bootstrap confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...objectives import METRICS, PER_GROUP, GroupMetrics
from ...objectives.fairness import NEEDS
from ...ops import tally_logits
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
    return _tally(margins, samples.labels, samples.groups)


def _tally(margins: Tensor, labels: Tensor, groups: Mapping[str, Tensor]) -> Tally:
    logits = torch.stack([torch.zeros_like(margins), margins], dim=-1)
    limit = max(1e-6, 1.01 * float(margins.nan_to_num().abs().max()))
    masks = torch.stack(list(groups.values()))
    counts = tally_logits(logits, labels, masks, sorted(NEEDS), BINS, limit)
    return Tally(counts, tuple(groups), LabelCount(labels, groups, 2))


def resample(samples: Samples, count: int, seed: int) -> Tensor:
    """Positions of bootstrap resamples, int64 [count, S].

    Each is drawn from the samples with the same label that are as much part of "utility" and "bias", so that
    the sizes of those stay what they are. The sizes of identity groups vary, as they would in another test
    set: where groups overlap, only a sample or two may share all their groups and the label, and resampling
    among these would hardly vary anything.
    """
    generator = torch.Generator().manual_seed(seed)
    fixed = [samples.groups[name] for name in ("utility", "bias") if name in samples.groups]
    _, stratum = torch.unique(torch.stack([samples.labels.bool(), *fixed]), dim=1, return_inverse=True)
    order = torch.argsort(stratum, stable=True)
    sizes = torch.bincount(stratum)
    starts = (sizes.cumsum(0) - sizes)[stratum]
    drawn = (torch.rand(count, len(samples), generator=generator) * sizes[stratum]).long()
    return order[starts + torch.minimum(drawn, sizes[stratum] - 1)]


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
    whole = _Figures.of(ranks, samples.labels, samples.groups, present)
    masks = torch.stack(list(samples.groups.values()))
    drawn = []
    # In order: samples of the same groups stay side by side, which is how they are counted fastest.
    for row in resample(samples, RESAMPLES, seed).sort(dim=1).values:
        groups = dict(zip(samples.groups, masks[:, row], strict=True))
        drawn.append(_Figures.of(ranks[row], samples.labels[row], groups, present))
    out: dict[str, Json] = dict(whole.overall)
    if "utility_accuracy" in whole.overall:
        out["accuracy"] = whole.overall["utility_accuracy"]
    out["per_group"] = whole.per_group
    out["interval"] = {
        **{name: _interval([one.overall.get(name) for one in drawn]) for name in whole.overall},
        "per_group": {
            group: {name: _interval([one.per_group[group].get(name) for one in drawn]) for name in figures}
            for group, figures in whole.per_group.items()
        },
    }
    return out


def _interval(values: Sequence[float | None]) -> list[float]:
    """The quantiles at :data:`LEVEL` of what is known; NaN if nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return [math.nan, math.nan]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


@dataclass(frozen=True)
class _Figures:
    """Metrics of one list of margins: over all groups, and by group, as far as they can be measured."""

    overall: dict[str, float]
    per_group: dict[str, dict[str, float]]

    @classmethod
    def of(
        cls, margins: Tensor, labels: Tensor, groups: Mapping[str, Tensor], identities: Sequence[str]
    ) -> _Figures:
        metrics = GroupMetrics(_tally(margins[None], labels, groups), identities)
        overall = {}
        for name in METRICS:
            if metrics.utility in groups or not name.startswith("utility"):
                with suppress(ValueError):  # no group has what it is made of
                    overall[name] = float(metrics[name])
        per_group: dict[str, dict[str, float]] = {group: {} for group in identities}
        for name in PER_GROUP:
            for group, value in metrics.per_group(name).items():
                per_group[group][name] = float(value)
        return cls(overall, per_group)
