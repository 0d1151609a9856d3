"""Metrics of a binary classifier across demographic groups, of all candidates at once, from one tally."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from ..tally import Tally
from .metric_names import direction

POWER = -5.0
"""Power of the generalized mean over groups, which the worst groups dominate."""

NEEDS = frozenset({"correct", "confusion", "concordant"})
"""The parts of a tally that :class:`GroupMetrics` reads."""

Figure = Literal["auc", "false_positive_rate", "false_negative_rate", "selection_rate"]
"""What a group may have or lack: an AUC needs positives and negatives, both outside the group too, a false
positive rate negatives, a false negative rate positives, and a selection rate any sample."""
FIGURES: tuple[Figure, ...] = get_args(Figure)


def power_mean(values: Tensor, power: float = POWER) -> Tensor:
    """Generalized mean over the last dimension of values in 0..1; 0 if any of them is 0 and ``power`` < 0.

    D. Borkan, L. Dixon, J. Sorensen, N. Thain, L. Vasserman, "Nuanced metrics for measuring unintended bias
    with real data for text classification" (arXiv:1903.04561), as in the Jigsaw challenge of 2019.
    """
    return values.clamp(min=0).pow(power).mean(-1).pow(1 / power)


class GroupMetrics:
    """Metrics of N candidates. Figures per group are float64 [N, K], the others float64 [N].

    Label 1 is positive (toxic). A sample whose logits are not finite counts as an error of either kind.

    Every metric is over the K groups that have the figure it is made of, see :meth:`groups_with`. A group
    without positives has no AUC and no false negative rate, but it does have a false positive rate and a
    selection rate. (fairlearn agrees, except that it calls a rate of no samples 0; here the group is left
    out of that rate.)

    The AUCs are those of Borkan et al. 2019 (arXiv:1903.04561): ``subgroup``, within the identity group;
    ``bpsn``, background positives against subgroup negatives, low where harmless sentences about the group
    score higher than toxic ones elsewhere; ``bnsp``, background negatives against subgroup positives. The
    background of a group is the rest of ``everyone``.

    Args:
        tally: with the parts of :data:`NEEDS`.
        identities: names of groups within ``everyone``.
        everyone: the group that bias is measured on.
        utility: the group that the classifier must stay good at.

    Reading a metric raises ValueError if no group has the figure it is made of.

    Raises:
        KeyError: for a group that the tally does not have.
        ValueError: if there is no identity group.
    """

    def __init__(
        self, tally: Tally, identities: Sequence[str], everyone: str = "bias", utility: str = "utility"
    ) -> None:
        self.tally = tally
        self.everyone = everyone
        self.utility = utility
        if not identities:
            raise ValueError("identities: expected at least one group, got none")
        self._labels = {name: tally.labels_of(name) for name in identities}
        self._all = tally.row(everyone)
        self._all_negatives, self._all_positives = map(float, tally.labels_of(everyone))
        self._with: dict[Figure, tuple[str, ...]] = {}
        self._sizes: dict[Figure, tuple[Tensor, Tensor]] = {}

    def groups_with(self, figure: Figure) -> tuple[str, ...]:
        """The identity groups that have a figure, in the order of the figures' second dimension."""
        if figure not in self._with:
            everyone = self.tally.labels_of(self.everyone)
            self._with[figure] = tuple(
                name for name, own in self._labels.items() if not lacking(own, everyone, figure)
            )
        return self._with[figure]

    @property
    def identities(self) -> tuple[str, ...]:
        """The groups that have AUCs."""
        return self.groups_with("auc")

    def _rows(self, figure: Figure) -> Tensor:
        """Positions in the tally of the groups that have a figure, int64 [K]."""
        names = self.groups_with(figure)
        if not names:
            raise ValueError(f"identities: expected at least one with {REQUIRED[figure]}, got none")
        return self.tally.rows(names)

    def _counts(self, figure: Figure) -> tuple[Tensor, Tensor]:
        """Negatives and positives of these groups, float64 [K] each; [N, K] where every candidate has groups
        of its own sizes."""
        if figure not in self._sizes:
            table = self.tally.label_table(self.groups_with(figure)).double()
            self._sizes[figure] = (table[..., 0], table[..., 1])
        return self._sizes[figure]

    def per_group(self, name: str) -> dict[str, Tensor]:
        """One of :data:`PER_GROUP` by name, float64 [N] of each group that has it."""
        if name not in PER_GROUP:
            raise KeyError(f"metric: expected one of {', '.join(PER_GROUP)}; got {name!r}")
        groups = self.groups_with(PER_GROUP[name].figure)
        return dict(zip(groups, PER_GROUP[name].of(self).unbind(1), strict=True)) if groups else {}

    # -------------------------------------------------------------------------------------- utility

    @cached_property
    def utility_auc(self) -> Tensor:
        return self.tally.auc(self.utility)

    @cached_property
    def utility_accuracy(self) -> Tensor:
        return self.tally.accuracy(self.utility)

    @cached_property
    def utility_f1(self) -> Tensor:
        """F1 of the positive class; 0 where nothing is positive or predicted so."""
        true_positives = self.tally.confusion[self.utility][:, 1, 1].double()
        negatives, positives = map(float, self.tally.labels_of(self.utility))
        false_positives = negatives - self.tally.confusion[self.utility][:, 0, 0].double()
        total = positives + true_positives + false_positives
        return torch.where(total > 0, 2 * true_positives / total.clamp(min=1), 0.0)

    # ------------------------------------------------------------------------------ AUCs, per group

    @cached_property
    def _concordant(self) -> Tensor:
        return self.tally.concordant.counts.double()  # [N, G, G]

    @cached_property
    def _within(self) -> Tensor:
        rows = self._rows("auc")
        return self._concordant[:, rows, rows]

    @cached_property
    def subgroup_aucs(self) -> Tensor:
        within = self._within
        negatives, positives = self._counts("auc")
        return within / (2 * positives * negatives)

    @cached_property
    def bpsn_aucs(self) -> Tensor:
        mixed: Tensor = self._concordant[:, self._all, self._rows("auc")] - self._within
        negatives, positives = self._counts("auc")
        aucs: Tensor = mixed / (2 * (self._all_positives - positives) * negatives)
        return aucs

    @cached_property
    def bnsp_aucs(self) -> Tensor:
        mixed: Tensor = self._concordant[:, self._rows("auc"), self._all] - self._within
        negatives, positives = self._counts("auc")
        aucs: Tensor = mixed / (2 * positives * (self._all_negatives - negatives))
        return aucs

    @cached_property
    def subgroup_auc(self) -> Tensor:
        """Power mean of the groups' subgroup AUCs, float64 [N]; the next two are those of the other AUCs."""
        return power_mean(self.subgroup_aucs)

    @cached_property
    def bpsn_auc(self) -> Tensor:
        return power_mean(self.bpsn_aucs)

    @cached_property
    def bnsp_auc(self) -> Tensor:
        return power_mean(self.bnsp_aucs)

    @cached_property
    def bias_auc(self) -> Tensor:
        """AUC on everyone, float64 [N]."""
        return self.tally.auc(self.everyone)

    @cached_property
    def jigsaw_score(self) -> Tensor:
        """The challenge's final score: a quarter each of the AUC on everyone and of the three power means."""
        return (self.bias_auc + self.subgroup_auc + self.bpsn_auc + self.bnsp_auc) / 4

    # --------------------------------------------------------------------- error rates, per group

    def _rate(self, label: int, group: int | Tensor, of: Tensor | float) -> Tensor:
        """Share of the samples with this label that are predicted otherwise."""
        right = self.tally.confusion.counts[:, group, label, label].double()
        return 1 - right / of

    @cached_property
    def false_positive_rates(self) -> Tensor:
        """Share of each group's negatives that is predicted positive."""
        rows = self._rows("false_positive_rate")
        return self._rate(0, rows, self._counts("false_positive_rate")[0])

    @cached_property
    def false_negative_rates(self) -> Tensor:
        """Share of each group's positives that is predicted negative."""
        rows = self._rows("false_negative_rate")
        return self._rate(1, rows, self._counts("false_negative_rate")[1])

    @cached_property
    def selection_rates(self) -> Tensor:
        """Share of each group that is predicted positive."""
        rows = self._rows("selection_rate")
        positive = self.tally.confusion.counts[:, rows, :, 1].sum(-1).double()
        negatives, positives = self._counts("selection_rate")
        return positive / (positives + negatives)

    @cached_property
    def false_positive_rate(self) -> Tensor:
        """False positive rate on everyone, float64 [N]; the next is the false negative rate."""
        return self._rate(0, self._all, self._all_negatives)

    @cached_property
    def false_negative_rate(self) -> Tensor:
        return self._rate(1, self._all, self._all_positives)

    @cached_property
    def fped(self) -> Tensor:
        """False positive equality difference, the sum over groups of |FPR - FPR of the group|. Dixon et al.,
        "Measuring and mitigating unintended bias in text classification", AIES 2018, section 5.2."""
        return (self.false_positive_rates - self.false_positive_rate[:, None]).abs().sum(-1)

    @cached_property
    def fned(self) -> Tensor:
        """False negative equality difference."""
        return (self.false_negative_rates - self.false_negative_rate[:, None]).abs().sum(-1)

    @cached_property
    def demographic_parity_difference(self) -> Tensor:
        """Largest less smallest selection rate of a group, as fairlearn's."""
        return _spread(self.selection_rates)

    @cached_property
    def equalized_odds_difference(self) -> Tensor:
        """The larger spread of false positive and of true positive rates, as fairlearn's."""
        # false negative rates spread as far as true positive rates
        return torch.maximum(_spread(self.false_positive_rates), _spread(self.false_negative_rates))

    def __getitem__(self, name: str) -> Tensor:
        """One of :data:`METRICS` by name, float64 [N]."""
        if name not in METRICS:
            raise KeyError(f"metric: expected one of {', '.join(METRICS)}; got {name!r}")
        return METRICS[name].of(self)


def _spread(rates: Tensor) -> Tensor:
    return rates.amax(-1) - rates.amin(-1)


REQUIRED: Mapping[Figure, str] = {
    "auc": "positives and negatives, in it and outside it",
    "false_positive_rate": "negatives",
    "false_negative_rate": "positives",
    "selection_rate": "samples",
}
"""What a group must have for a figure."""


def lacking(own: Sequence[int], everyone: Sequence[int], figure: Figure = "auc") -> str:
    """What a group lacks for a figure, "" for nothing; from (negatives, positives) of it and of everyone."""
    if figure == "selection_rate":
        return "" if sum(own) else "no samples"
    if figure != "auc":
        label, kind = (0, "negatives") if figure == "false_positive_rate" else (1, "positives")
        return "" if own[label] else f"no {kind}"
    missing = []
    for label, kind in ((1, "positives"), (0, "negatives")):
        if own[label] == 0:
            missing.append(f"no {kind}")
        elif own[label] == everyone[label]:
            missing.append(f"no {kind} outside it")
    return " and ".join(missing)


@dataclass(frozen=True)
class Metric:
    """A metric that :class:`rledit.Debias` can weigh.

    Attributes:
        direction: 1 where larger is better, -1 where smaller is.
        of: its values, float64 [N].
        figures: what it takes from the groups.
    """

    direction: int
    of: Callable[[GroupMetrics], Tensor]
    figures: tuple[Figure, ...] = ()


_BY_NAME: dict[str, tuple[Callable[[GroupMetrics], Tensor], tuple[Figure, ...]]] = {
    "utility_auc": (lambda m: m.utility_auc, ()),
    "utility_accuracy": (lambda m: m.utility_accuracy, ()),
    "utility_f1": (lambda m: m.utility_f1, ()),
    "subgroup_auc": (lambda m: m.subgroup_auc, ("auc",)),
    "bpsn_auc": (lambda m: m.bpsn_auc, ("auc",)),
    "bnsp_auc": (lambda m: m.bnsp_auc, ("auc",)),
    "bias_auc": (lambda m: m.bias_auc, ()),
    "jigsaw_score": (lambda m: m.jigsaw_score, ("auc",)),
    "fped": (lambda m: m.fped, ("false_positive_rate",)),
    "fned": (lambda m: m.fned, ("false_negative_rate",)),
    "demographic_parity_difference": (lambda m: m.demographic_parity_difference, ("selection_rate",)),
    "equalized_odds_difference": (
        lambda m: m.equalized_odds_difference,
        ("false_positive_rate", "false_negative_rate"),
    ),
}

METRICS: dict[str, Metric] = {name: Metric(direction(name), *rest) for name, rest in _BY_NAME.items()}
"""Everything that :class:`rledit.Debias` can weigh, by name."""


@dataclass(frozen=True)
class PerGroup:
    """A figure of every group that has it.

    Attributes:
        figure: which groups these are, see :meth:`GroupMetrics.groups_with`.
        of: the values, float64 [N, K].
    """

    figure: Figure
    of: Callable[[GroupMetrics], Tensor]


PER_GROUP: dict[str, PerGroup] = {
    "subgroup_auc": PerGroup("auc", lambda m: m.subgroup_aucs),
    "bpsn_auc": PerGroup("auc", lambda m: m.bpsn_aucs),
    "bnsp_auc": PerGroup("auc", lambda m: m.bnsp_aucs),
    "false_positive_rate": PerGroup("false_positive_rate", lambda m: m.false_positive_rates),
    "false_negative_rate": PerGroup("false_negative_rate", lambda m: m.false_negative_rates),
    "selection_rate": PerGroup("selection_rate", lambda m: m.selection_rates),
}
"""Figures of single groups, by name."""
