"""Rates of a binary classifier that follow from its confusion matrix, on everyone and by group, of all
candidates at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Literal, get_args

from torch import Tensor

from ..tally import Tally

Figure = Literal["auc", "false_positive_rate", "false_negative_rate", "selection_rate"]
"""What a group may have or lack: an AUC needs positives and negatives, both outside the group too, a false
positive rate negatives, a false negative rate (and recall, precision and F1) positives, and a selection rate
(and an accuracy) any sample."""
FIGURES: tuple[Figure, ...] = get_args(Figure)

REQUIRED: Mapping[Figure, str] = {
    "auc": "positives and negatives, in it and outside it",
    "false_positive_rate": "negatives",
    "false_negative_rate": "positives",
    "selection_rate": "samples",
}
"""What a group must have for a figure."""

KINDS = ("negatives", "positives")
"""Samples of label 0 and 1."""


def lacking(own: Sequence[int], everyone: Sequence[int], figure: Figure = "auc", least: int = 1) -> str:
    """What a group lacks for a figure, "" for nothing; from (negatives, positives) of it and of everyone.

    Args:
        least: of the samples that the figure is made of; of an AUC, of each label within the group.
    """
    if figure == "selection_rate":
        return _too_few(sum(own), "samples", least)
    if figure == "false_positive_rate":
        return _too_few(own[0], "negatives", least)
    if figure == "false_negative_rate":
        return _too_few(own[1], "positives", least)
    missing = []
    for label, kind in ((1, "positives"), (0, "negatives")):
        if few := _too_few(own[label], kind, least):
            missing.append(few)
        elif own[label] == everyone[label]:
            missing.append(f"no {kind} outside it")
    return " and ".join(missing)


@lru_cache(maxsize=64)
def _having(
    own: tuple[tuple[int, ...], ...], everyone: tuple[int, ...], figure: Figure, least: int
) -> tuple[bool, ...]:
    """Which groups have a figure; the same for every batch of candidates."""
    return tuple(not lacking(labels, everyone, figure, least) for labels in own)


def _too_few(count: int, kind: str, least: int) -> str:
    if count >= max(1, least):
        return ""
    return f"{count or 'no'} {kind if count != 1 else kind.removesuffix('s')}"


class Rates:
    """Shares of N candidates: figures per group are float64 [N, K], the others float64 [N].

    Label 1 is positive (toxic). A sample whose logits are not finite counts as an error of either kind. A
    precision is 0 where nothing is predicted positive, as scikit-learn's.

    Every figure is over the K groups that have it, see :meth:`groups_with`. A group without positives has no
    AUC and no false negative rate, but it does have a false positive rate and a selection rate. (fairlearn
    agrees, except that it calls a rate of no samples 0; here the group is left out of that rate.)

    Args:
        tally: with ``confusion``.
        identities: names of groups within ``everyone``.
        everyone: the group that bias is measured on.
        utility: the group that the classifier must stay good at.
        least: a group needs so many of the samples that a figure is made of, of each label for an AUC.
        sizes: (negatives, positives) by group, ``everyone`` among them, which ``least`` is about: those of
            the whole sample where the tally is of resamples. By default the tally's own.

    Raises:
        KeyError: for a group that the tally does not have.
        ValueError: if there is no identity group.
    """

    def __init__(
        self,
        tally: Tally,
        identities: Sequence[str],
        everyone: str = "bias",
        utility: str = "utility",
        *,
        least: int = 1,
        sizes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.tally = tally
        self.everyone = everyone
        self.utility = utility
        self.least = least
        if not identities:
            raise ValueError("identities: expected at least one group, got none")
        self._labels = {name: tuple(tally.labels_of(name)) for name in identities}
        self._asked = sizes
        self._all = tally.row(everyone)
        self._with: dict[Figure, tuple[str, ...]] = {}
        self._sizes: dict[Figure, tuple[Tensor, Tensor]] = {}

    def groups_with(self, figure: Figure) -> tuple[str, ...]:
        """The identity groups that have a figure, in the order of the figures' second dimension."""
        if figure not in self._with:
            everyone = tuple(self.tally.labels_of(self.everyone))
            own = tuple(self._labels.values())
            have = _having(own, everyone, figure, 1)
            if self.least > 1:
                whole = everyone if self._asked is None else tuple(self._asked[self.everyone])
                asked = own if self._asked is None else tuple(tuple(self._asked[g]) for g in self._labels)
                enough = _having(asked, whole, figure, self.least)
                have = tuple(a and b for a, b in zip(have, enough, strict=True))
            self._with[figure] = tuple(name for name, has in zip(self._labels, have, strict=True) if has)
        return self._with[figure]

    @property
    def identities(self) -> tuple[str, ...]:
        """The groups that have AUCs."""
        return self.groups_with("auc")

    def _rows(self, figure: Figure) -> Tensor:
        """Positions in the tally of the groups that have a figure, int64 [K]."""
        names = self.groups_with(figure)
        if not names:
            few = f", {self.least} of each at least" if self.least > 1 else ""
            raise ValueError(f"identities: expected at least one with {REQUIRED[figure]}{few}, got none")
        return self.tally.rows(names)

    def _counts(self, figure: Figure) -> tuple[Tensor, Tensor]:
        """Negatives and positives of these groups, float64 [K] each; [N, K] where every candidate has groups
        of its own sizes."""
        if figure not in self._sizes:
            table = self.tally.label_table(self.groups_with(figure)).double()
            self._sizes[figure] = (table[..., 0], table[..., 1])
        return self._sizes[figure]

    def _right(self, label: int, group: int | Tensor) -> Tensor:
        """How many samples of a label are predicted so, float64 [N] or [N, K]."""
        return self.tally.confusion.counts[:, group, label, label].double()

    # ---------------------------------------------------------------------------------- of one set

    def _labels_of(self, group: str, *needed: int) -> tuple[Tensor, Tensor]:
        """Negatives and positives of a set, float64 [], or [N] where every candidate has sets of its own
        sizes; ValueError if it has none of a label that is needed."""
        sizes = self.tally.labels_of(group)
        for label in needed:
            if not sizes[label]:
                raise ValueError(f"groups[{group!r}]: expected {KINDS[label]}, there are none")
        table = self.tally.label_table((group,)).double()
        return table[..., 0, 0], table[..., 0, 1]

    def _rate_of(self, group: str, label: int) -> Tensor:
        """Share of the samples of a set with this label that are predicted otherwise."""
        sizes = self._labels_of(group, label)
        return 1 - self._right(label, self.tally.row(group)) / sizes[label]

    def _precision_of(self, group: str) -> Tensor:
        negatives, _ = self._labels_of(group)
        row = self.tally.row(group)
        return _precision(self._right(1, row), negatives - self._right(0, row))

    def _f1_of(self, group: str) -> Tensor:
        negatives, positives = self._labels_of(group)
        row = self.tally.row(group)
        return _f1(self._right(1, row), negatives - self._right(0, row), positives)

    @cached_property
    def utility_accuracy(self) -> Tensor:
        return self.tally.accuracy(self.utility)

    @cached_property
    def utility_precision(self) -> Tensor:
        """Of the positive class, as the next two; 0 where nothing is predicted positive."""
        return self._precision_of(self.utility)

    @cached_property
    def utility_recall(self) -> Tensor:
        return 1 - self._rate_of(self.utility, 1)

    @cached_property
    def utility_f1(self) -> Tensor:
        """0 where nothing is positive or predicted so."""
        return self._f1_of(self.utility)

    @cached_property
    def bias_accuracy(self) -> Tensor:
        """On everyone, as all that follow."""
        return self.tally.accuracy(self.everyone)

    @cached_property
    def bias_balanced_accuracy(self) -> Tensor:
        """The mean of both labels' recalls, one half for whoever always says the same."""
        return 1 - (self.false_positive_rate + self.false_negative_rate) / 2

    @cached_property
    def bias_precision(self) -> Tensor:
        return self._precision_of(self.everyone)

    @cached_property
    def bias_recall(self) -> Tensor:
        return 1 - self.false_negative_rate

    @cached_property
    def bias_f1(self) -> Tensor:
        return self._f1_of(self.everyone)

    @cached_property
    def false_positive_rate(self) -> Tensor:
        return self._rate_of(self.everyone, 0)

    @cached_property
    def false_negative_rate(self) -> Tensor:
        return self._rate_of(self.everyone, 1)

    # ---------------------------------------------------------------------------------- per group

    @cached_property
    def false_positive_rates(self) -> Tensor:
        """Share of each group's negatives that is predicted positive."""
        rows = self._rows("false_positive_rate")
        return 1 - self._right(0, rows) / self._counts("false_positive_rate")[0]

    @cached_property
    def false_negative_rates(self) -> Tensor:
        """Share of each group's positives that is predicted negative."""
        rows = self._rows("false_negative_rate")
        return 1 - self._right(1, rows) / self._counts("false_negative_rate")[1]

    @cached_property
    def recalls(self) -> Tensor:
        return 1 - self.false_negative_rates

    @cached_property
    def precisions(self) -> Tensor:
        """Of each group that has positives, as F1."""
        hits, raised, _ = self._hits_and_false_alarms
        return _precision(hits, raised)

    @cached_property
    def f1s(self) -> Tensor:
        return _f1(*self._hits_and_false_alarms)

    @cached_property
    def _hits_and_false_alarms(self) -> tuple[Tensor, Tensor, Tensor]:
        """True positives, false positives and positives of the groups that have positives."""
        rows = self._rows("false_negative_rate")
        negatives, positives = self._counts("false_negative_rate")
        return self._right(1, rows), negatives - self._right(0, rows), positives

    @cached_property
    def accuracies(self) -> Tensor:
        """Share of each group that is predicted right."""
        rows = self._rows("selection_rate")
        negatives, positives = self._counts("selection_rate")
        return (self._right(0, rows) + self._right(1, rows)) / (negatives + positives)

    @cached_property
    def selection_rates(self) -> Tensor:
        """Share of each group that is predicted positive."""
        rows = self._rows("selection_rate")
        positive = self.tally.confusion.counts[:, rows, :, 1].sum(-1).double()
        negatives, positives = self._counts("selection_rate")
        return positive / (positives + negatives)


def _precision(true_positives: Tensor, false_positives: Tensor) -> Tensor:
    predicted = true_positives + false_positives
    return true_positives / predicted.clamp(min=1)


def _f1(true_positives: Tensor, false_positives: Tensor, positives: Tensor) -> Tensor:
    total = positives + true_positives + false_positives
    return 2 * true_positives / total.clamp(min=1)
