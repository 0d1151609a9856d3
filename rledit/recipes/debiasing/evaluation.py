"""Before and after on test sets, with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
AT_ONCE = 4 << 20  # margins of resamples that are counted together


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
    limit = max(1e-6, 1.01 * float(margins.nan_to_num().abs().max()))
    counts = tally_logits(logits, samples.labels, samples.masks, sorted(NEEDS), BINS, limit)
    return Tally(counts, samples.group_names, LabelCount(samples.labels, samples.groups, 2))


def resample(samples: Samples, count: int, seed: int) -> Tensor:
    """Bootstrap resamples within strata: positions int64 [count, S], each with the label and groups of what
    it stands for, so that the size of every group stays what it is."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.stack([samples.labels.bool(), *samples.groups.values()])
    _, stratum = torch.unique(keys, dim=1, return_inverse=True)
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
        every metric of :data:`rledit.objectives.METRICS`; ``accuracy`` is utility's. ``per_group`` has the
        AUCs and error rates of each group, as far as it has them, and ``interval`` bootstrap intervals of all
        that at :data:`LEVEL`.
    """
    present = [name for name in identities if name in samples.groups]
    margins = ranks_of(margins)
    metrics = GroupMetrics(tally_margins(margins[None], samples), present)
    figures, groups = _figures(metrics)
    drawn: list[dict[str, Tensor]] = []
    step = max(1, AT_ONCE // len(samples))
    positions = resample(samples, RESAMPLES, seed)
    for some in positions.split(step):
        values, per_group = _figures(GroupMetrics(tally_margins(margins[some], samples), present))
        flat = {name: value[:, None] for name, value in values.items()}
        drawn.append({**flat, **{f"per_group.{name}": value for name, value in per_group.items()}})
    spread = {name: torch.cat([part[name] for part in drawn]) for name in drawn[0]}
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    intervals = {name: torch.quantile(values, tails, dim=0) for name, values in spread.items()}
    out: dict[str, Json] = {name: float(value[0]) for name, value in figures.items()}
    if "utility_accuracy" in figures:
        out["accuracy"] = float(figures["utility_accuracy"][0])

    def by_group(columns: Callable[[str], Sequence[Json]]) -> dict[str, dict[str, Json]]:
        rows: dict[str, dict[str, Json]] = {group: {} for group in present}
        for name in groups:
            for group, value in zip(metrics.groups_with(PER_GROUP[name].figure), columns(name), strict=True):
                rows[group][name] = value
        return rows

    out["per_group"] = by_group(lambda name: groups[name][0].tolist())
    out["interval"] = {name: intervals[name][:, 0].tolist() for name in figures} | {
        "per_group": by_group(lambda name: intervals[f"per_group.{name}"].T.tolist())
    }
    return out


def _figures(metrics: GroupMetrics) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    has_utility = metrics.utility in metrics.tally.groups
    names = [name for name in METRICS if has_utility or not name.startswith("utility")]
    per_group = {
        name: each.of(metrics) for name, each in PER_GROUP.items() if metrics.groups_with(each.figure)
    }
    return {name: metrics[name] for name in names}, per_group
