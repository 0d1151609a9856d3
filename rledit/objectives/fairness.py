"""Metrics of a binary classifier across identity groups, of all candidates at once, from one tally."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..tally import Tally
from .metric_names import direction

POWER = -5.0
"""Of the generalised mean over identity groups, which the worst groups dominate."""

NEEDS = frozenset({"correct", "confusion", "concordant"})
"""The parts of a tally that :class:`GroupMetrics` reads."""


def power_mean(values: Tensor, power: float = POWER) -> Tensor:
    """Generalised mean over the last dimension of values in 0..1; 0 if any of them is 0 and ``power`` < 0.

    D. Borkan, L. Dixon, J. Sorensen, N. Thain, L. Vasserman, "Nuanced metrics for measuring unintended bias
    with real data for text classification" (arXiv:1903.04561), as in the Jigsaw challenge of 2019.
    """
    return values.clamp(min=0).pow(power).mean(-1).pow(1 / power)


class GroupMetrics:
    """Metrics of N candidates. Per-group figures are float64 [N, K], the others float64 [N].

    Label 1 is positive (toxic). A sample whose logits are not finite counts as an error of either kind.

    The AUCs are those of Borkan et al. 2019 (arXiv:1903.04561): ``subgroup``, within the identity group;
    ``bpsn``, background positives against subgroup negatives, low where harmless sentences about the group
    score higher than toxic ones elsewhere; ``bnsp``, background negatives against subgroup positives. The
    background of a group is the rest of ``everyone``.

    Args:
        tally: with the parts of :data:`NEEDS`.
        identities: names of groups within ``everyone``. Those that lack a positive or a negative, or whose
            background does, have no AUC and are left out: :attr:`identities` are the others, K of them.
        everyone: the group that bias is measured on.
        utility: the group that the classifier must stay good at.

    Raises:
        KeyError: for a group that the tally does not have.
        ValueError: if no identity group is left.
    """

    def __init__(
        self, tally: Tally, identities: Sequence[str], everyone: str = "bias", utility: str = "utility"
    ) -> None:
        self.tally = tally
        self.everyone = everyone
        self.utility = utility
        self.identities = tuple(
            name for name in identities if not lacking(tally.labels_of(name), tally.labels_of(everyone))
        )
        if not self.identities:
            raise ValueError(
                "identities: expected at least one with positives and negatives, in it and beside it"
            )
        self._rows = tally.rows(self.identities)
        self._all = tally.groups.index(everyone)
        labels = tally.label_table(self.identities).double()  # [K, 2]
        self._negatives, self._positives = labels.unbind(1)
        self._all_negatives, self._all_positives = map(float, tally.labels_of(everyone))

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
        return self._concordant[:, self._rows, self._rows]

    @cached_property
    def subgroup_aucs(self) -> Tensor:
        return self._within / (2 * self._positives * self._negatives)

    @cached_property
    def bpsn_aucs(self) -> Tensor:
        background = self._all_positives - self._positives
        mixed: Tensor = self._concordant[:, self._all, self._rows] - self._within
        aucs: Tensor = mixed / (2 * background * self._negatives)
        return aucs

    @cached_property
    def bnsp_aucs(self) -> Tensor:
        background = self._all_negatives - self._negatives
        mixed: Tensor = self._concordant[:, self._rows, self._all] - self._within
        aucs: Tensor = mixed / (2 * self._positives * background)
        return aucs

    @cached_property
    def subgroup_auc(self) -> Tensor:
        """Power mean over the groups, as the next two."""
        return power_mean(self.subgroup_aucs)

    @cached_property
    def bpsn_auc(self) -> Tensor:
        return power_mean(self.bpsn_aucs)

    @cached_property
    def bnsp_auc(self) -> Tensor:
        return power_mean(self.bnsp_aucs)

    @cached_property
    def bias_auc(self) -> Tensor:
        """AUC on everyone."""
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
        return self._rate(0, self._rows, self._negatives)

    @cached_property
    def false_negative_rates(self) -> Tensor:
        return self._rate(1, self._rows, self._positives)

    @cached_property
    def selection_rates(self) -> Tensor:
        """Share of each group that is predicted positive."""
        positive = self.tally.confusion.counts[:, self._rows, :, 1].sum(-1).double()
        return positive / (self._positives + self._negatives)

    @cached_property
    def false_positive_rate(self) -> Tensor:
        """On everyone, as the next."""
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
        return torch.maximum(_spread(self.false_positive_rates), _spread(self.false_negative_rates))

    def __getitem__(self, name: str) -> Tensor:
        """One of :data:`METRICS` by name, float64 [N]."""
        if name not in METRICS:
            raise KeyError(f"metric: expected one of {', '.join(METRICS)}; got {name!r}")
        return METRICS[name].of(self)


def _spread(rates: Tensor) -> Tensor:
    return rates.amax(-1) - rates.amin(-1)


def lacking(own: Sequence[int], everyone: Sequence[int]) -> str:
    """What a group's AUCs lack, "" for nothing; from (negatives, positives) of the group and of everyone."""
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
    """

    direction: int
    of: Callable[[GroupMetrics], Tensor]


_BY_NAME: dict[str, Callable[[GroupMetrics], Tensor]] = {
    "utility_auc": lambda m: m.utility_auc,
    "utility_accuracy": lambda m: m.utility_accuracy,
    "utility_f1": lambda m: m.utility_f1,
    "subgroup_auc": lambda m: m.subgroup_auc,
    "bpsn_auc": lambda m: m.bpsn_auc,
    "bnsp_auc": lambda m: m.bnsp_auc,
    "bias_auc": lambda m: m.bias_auc,
    "jigsaw_score": lambda m: m.jigsaw_score,
    "fped": lambda m: m.fped,
    "fned": lambda m: m.fned,
    "demographic_parity_difference": lambda m: m.demographic_parity_difference,
    "equalized_odds_difference": lambda m: m.equalized_odds_difference,
}

METRICS: dict[str, Metric] = {name: Metric(direction(name), of) for name, of in _BY_NAME.items()}
"""Everything that :class:`rledit.Debias` can weigh, by name."""
