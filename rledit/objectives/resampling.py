"""Bootstrap resamples of a test set, and what a classifier gets on each.

A resample is how often each sample was drawn, times its weight where samples have weights. Where samples
stand in the order of their margins is the same in all resamples, so it is found once: what is left per
resample are sums and running sums of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..ops import Counts
from ..samples import Samples
from ..tally import LabelCount, Tally

Integers = npt.NDArray[np.int64]


def resample(
    samples: Samples, count: int, seed: int, fixed: Sequence[str] = ("utility", "bias")
) -> Iterator[Tensor]:
    """Positions of ``count`` bootstrap resamples, int64 [S] each.

    Each is drawn from the samples with the same label that are as much part of the ``fixed`` groups, so that
    the sizes of those stay what they are. The sizes of identity groups vary, as they would in another test
    set: where groups overlap, only a sample or two may share all their groups and the label, and resampling
    among these would hardly vary anything.
    """
    generator = torch.Generator().manual_seed(seed)
    masks = [samples.groups[name] for name in fixed if name in samples.groups]
    stratum = sum((mask.long() << bit for bit, mask in enumerate(masks, 1)), samples.labels)
    order = torch.argsort(stratum, stable=True)
    sizes = torch.bincount(stratum)
    starts = (sizes.cumsum(0) - sizes)[stratum]
    sizes = sizes[stratum]
    last, share = starts + sizes - 1, sizes.float()
    for _ in range(count):
        drawn = torch.rand(len(samples), generator=generator).mul_(share).long().add_(starts)
        yield order.index_select(0, torch.minimum(drawn, last, out=drawn))


MOST_WEIGHT = 10**9
"""The sum of whole weights: so many pairs can be counted twice in 64 bits."""


def whole_weights(weights: Tensor) -> Integers:
    """Weights as integers in about the same proportions, int64 [S]: as they are where they are integers
    already, else so fine that their sum is :data:`MOST_WEIGHT`.

    Args:
        weights: float64 [S], finite, at least 0 and not all 0.
    """
    total = float(weights.sum())
    if total <= MOST_WEIGHT and bool((weights == weights.round()).all()):
        return weights.long().numpy()
    return (weights * (MOST_WEIGHT / total)).round().long().numpy()


class ResampledTally(Tally):
    """The tally of N resamples: identity groups have sizes of their own in each.

    ``concordant`` has the pairs within each group and those of each group with one other, ``everyone``, which
    is all that :class:`rledit.objectives.GroupMetrics` reads; the others are zero. ``count``, ``labels_of``
    and ``label_count`` are those of the first resample; :meth:`accuracy` and :meth:`auc` know better.

    Args:
        counts: counts of N resamples.
        groups: names.
        labels: samples of each label per resample and group, int64 [N, G, 2].
    """

    def __init__(self, counts: Counts, groups: Sequence[str], labels: Tensor) -> None:
        super().__init__(counts, groups, LabelCount.of_table(labels[0], groups))
        self._sizes = labels

    def label_table(self, groups: tuple[str, ...]) -> Tensor:
        """Samples of each label in K groups, int64 [N, K, 2]."""
        return self._sizes[:, self.rows(groups)]

    def accuracy(self, group: str) -> Tensor:
        sizes = self.label_table((group,))[:, 0].sum(1)
        return self._of("correct", group).double() / sizes

    def auc(self, positives: str, negatives: str | None = None) -> Tensor:
        other = positives if negatives is None else negatives
        concordant = self._of("concordant", positives)[:, self.row(other)].double()
        own, others = self.label_table((positives,))[:, 0, 1], self.label_table((other,))[:, 0, 0]
        return concordant / (2.0 * own * others)  # NaN where there are no pairs

    def alike(self, groups: Sequence[str], everyone: str) -> list[ResampledTally]:
        """The same resamples in parts, in each of which the same ``groups`` lack the same label, or have all
        that ``everyone`` has of it: the same groups have a figure in all resamples of a part."""
        own = self.label_table(tuple(groups))
        kind = torch.cat([own == 0, own == self.label_table((everyone,))], dim=-1).flatten(1)
        _, part = torch.unique(kind, dim=0, return_inverse=True)
        rows = [(part == number).nonzero().flatten() for number in range(int(part.max()) + 1)]
        return [
            ResampledTally(
                Counts(*(each[some] if each.dim() > 1 else each for each in self.counts)),
                self.groups,
                self._sizes[some],
            )
            for some in rows
        ]


class WeightedCounter:
    """Counts one list of margins for any weights of the samples: what :func:`rledit.ops.tally_logits` counts
    if each sample comes as often as its weight says.

    Args:
        margins: float32 [S], finite or NaN.
        places: the bins of the margins, in 0..``bins``-1, int64 [S]. Margins of one bin are a tie.
        bins: how many.
        samples: with labels 0 and 1.
        everyone: the group whose pairs with each other group are counted.
    """

    def __init__(self, margins: Tensor, places: Tensor, bins: int, samples: Samples, everyone: str) -> None:
        self._size = len(samples)
        self._names = samples.group_names
        self._everyone = self._names.index(everyone)
        labels, masks = samples.labels, samples.masks
        # NaN is predicted neither way and ranked wrong: a positive below all bins, a negative above them.
        invalid = margins.isnan()
        worst = torch.where(labels == 1, -torch.inf, torch.inf)
        order = torch.argsort(torch.where(invalid, worst, margins), stable=True)
        places = torch.where(invalid, (1 - labels) * (bins + 1), places + 1)
        sections = torch.where(invalid, (1 - labels) * 3, 1 + (margins > 0).long())
        self._negatives, self._positives = (
            _Entries.of(masks, order[labels[order] == label], places, sections, bins + 2) for label in (0, 1)
        )
        # Where each entry stands among the other label's: of the same group, and of everyone.
        self._within = self._negatives.around(self._positives.group, self._positives.place)
        self._above = self._negatives.around(self._everyone, self._positives.place)
        self._below = self._positives.around(self._everyone, self._negatives.place)

    def tally(self, resamples: Iterable[Tensor]) -> ResampledTally:
        """The tally of resamples, each given as positions of samples, int64 [S]."""
        return self.tally_weights(np.bincount(each.numpy(), minlength=self._size) for each in resamples)

    def tally_weights(self, weights: Iterable[npt.NDArray[Any]]) -> ResampledTally:
        """The tally of resamples, each given as what each sample counts, integers [S]."""
        counted = [self.count(each.astype(np.int64)) for each in weights]
        labels, confusion, concordant = (
            torch.from_numpy(np.stack(parts)) for parts in zip(*counted, strict=True)
        )
        none = labels.new_empty(0)
        correct = confusion.diagonal(dim1=2, dim2=3).sum(-1)
        counts = Counts(correct, none, confusion, none.double(), none, concordant)
        return ResampledTally(counts, self._names, labels)

    def count(self, weights: Integers) -> tuple[Integers, Integers, Integers]:
        """Labels [G, 2], confusion [G, 2, 2] and concordant pairs [G, G] of weights int64 [S]."""
        negatives, positives, everyone = self._negatives, self._positives, self._everyone
        own_negatives, own_positives = weights.take(negatives.sample), weights.take(positives.sample)
        negatives_before, positives_before = _running(own_negatives), _running(own_positives)
        raised, hit = negatives.by_section(negatives_before), positives.by_section(positives_before)
        labels = np.stack([raised.sum(1), hit.sum(1)], 1)
        confusion = np.stack([raised[:, 1:3], hit[:, 1:3]], 1)

        # Twice what lies below and once the ties: what comes before the first of the ties and what comes
        # before their end, less twice what comes before the group.
        def ranked(own: Integers, before: Integers, around: tuple[Integers, Integers]) -> Integers:
            return own * (before.take(around[0]) + before.take(around[1]))

        start = 2 * negatives_before[negatives.starts]
        end = 2 * positives_before[positives.ends]
        concordant = np.zeros((len(labels), len(labels)), np.int64)
        above = positives.sums(ranked(own_positives, negatives_before, self._above))
        concordant[:, everyone] = above - start[everyone] * labels[:, 1]
        below = negatives.sums(ranked(own_negatives, positives_before, self._below))
        concordant[everyone] = end[everyone] * labels[:, 0] - below
        within = positives.sums(ranked(own_positives, negatives_before, self._within))
        np.fill_diagonal(concordant, within - start * labels[:, 1])
        return labels, confusion, concordant


def _running(values: Integers) -> Integers:
    """Sums of the values before each position and before the end, [M] -> [M + 1]."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


@dataclass(frozen=True)
class _Entries:
    """The samples of one label in each group, group after group, in the order of their margins; one that is
    in several groups comes several times.

    Attributes:
        sample: positions of these M samples, int64 [M].
        group, place: group and place of each, int64 [M].
        width: more than any place.
        bounds: where the four sections of each group begin, and the end, int64 [4 * G + 1]. Sections are NaN
            (of positives), what is predicted as 0, as 1, and NaN (of negatives).
    """

    sample: Integers
    group: Integers
    place: Integers
    width: int
    bounds: Integers

    @classmethod
    def of(cls, masks: Tensor, order: Tensor, places: Tensor, sections: Tensor, width: int) -> _Entries:
        group, at = masks[:, order].nonzero(as_tuple=True)
        sample = order[at]
        sizes = torch.bincount(4 * group + sections[sample], minlength=4 * len(masks))
        bounds = _running(sizes.numpy())
        return cls(sample.numpy(), group.numpy(), places[sample].numpy(), width, bounds)

    @property
    def starts(self) -> Integers:
        """Where each group begins, [G]."""
        return self.bounds[:-1:4]

    @property
    def ends(self) -> Integers:
        return self.bounds[4::4]

    def around(self, group: Integers | int, place: Integers) -> tuple[Integers, Integers]:
        """Where the ties of some places in their group begin among the entries, and where they end."""
        keys, wanted = self.group * self.width + self.place, group * self.width + place
        return np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")

    def by_section(self, before: Integers) -> Integers:
        """Sums of each group's sections, [G, 4], from running sums over the entries."""
        return np.diff(before[self.bounds]).reshape(-1, 4)

    def sums(self, values: Integers) -> Integers:
        """Sums of the values [M] over each group's entries, [G]."""
        some = self.ends > self.starts
        sums = np.zeros(len(some), np.int64)
        if some.any():  # reduceat() has no empty sums
            sums[some] = np.add.reduceat(values, self.starts[some])
        return sums
