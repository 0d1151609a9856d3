"""Metrics of a binary classifier across demographic groups, of all candidates at once, from one tally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from .metric_names import direction
from .rates import Figure, Rates

POWER = -5.0
"""Power of the generalized mean over groups, which the worst groups dominate."""

NEEDS = frozenset({"correct", "confusion", "concordant"})
"""The parts of a tally that :class:`GroupMetrics` reads."""


def power_mean(values: Tensor, power: float = POWER) -> Tensor:
    """Generalized mean over the last dimension of values in 0..1; 0 if any of them is 0 and ``power`` < 0.

    D. Borkan, L. Dixon, J. Sorensen, N. Thain, L. Vasserman, "Nuanced metrics for measuring unintended bias
    with real data for text classification" (arXiv:1903.04561), as in the Jigsaw challenge of 2019.
    """
    return values.clamp(min=0).pow(power).mean(-1).pow(1 / power)


class GroupMetrics(Rates):
    """Metrics of N candidates: :class:`rledit.objectives.rates.Rates`, and what needs an order of the samples
    or compares groups. Figures per group are float64 [N, K], the others float64 [N].

    The AUCs are those of Borkan et al. 2019 (arXiv:1903.04561): ``subgroup``, within the identity group;
    ``bpsn``, background positives against subgroup negatives, low where harmless sentences about the group
    score higher than toxic ones elsewhere; ``bnsp``, background negatives against subgroup positives. The
    background of a group is the rest of ``everyone``.

    Reading a metric raises ValueError if no group has the figure it is made of.

    Args:
        tally: with the parts of :data:`NEEDS`.
        identities, everyone, utility, least, sizes: see :class:`rledit.objectives.rates.Rates`.
    """

    def per_group(self, name: str) -> dict[str, Tensor]:
        """One of :data:`PER_GROUP` by name, float64 [N] of each group that has it."""
        groups, values = self.table(name)
        return dict(zip(groups, values.unbind(1), strict=True)) if groups else {}

    def table(self, name: str) -> tuple[tuple[str, ...], Tensor]:
        """One of :data:`PER_GROUP` by name: the groups that have it, and their values, float64 [N, K]."""
        if name not in PER_GROUP:
            raise KeyError(f"metric: expected one of {', '.join(PER_GROUP)}; got {name!r}")
        groups = self.groups_with(PER_GROUP[name].figure)
        none = torch.empty(self.tally.candidates, 0, dtype=torch.float64, device=self.tally.device)
        return groups, PER_GROUP[name].of(self) if groups else none

    @cached_property
    def utility_auc(self) -> Tensor:
        return self.tally.auc(self.utility)

    # ------------------------------------------------------------------------------ AUCs, per group

    def _pairs(self, positives: int | Tensor, negatives: int | Tensor) -> Tensor:
        """Those that are ranked right, float64 [N, K]; picked first, since most are never looked at."""
        return self.tally.concordant.counts[:, positives, negatives].double()

    @cached_property
    def _within(self) -> Tensor:
        rows = self._rows("auc")
        return self._pairs(rows, rows)

    @cached_property
    def subgroup_aucs(self) -> Tensor:
        within = self._within
        negatives, positives = self._counts("auc")
        return within / (2 * positives * negatives)

    @cached_property
    def bpsn_aucs(self) -> Tensor:
        mixed = self._pairs(self._all, self._rows("auc")) - self._within
        negatives, positives = self._counts("auc")
        _, everyone = self._labels_of(self.everyone)
        aucs: Tensor = mixed / (2 * (everyone[..., None] - positives) * negatives)
        return aucs

    @cached_property
    def bnsp_aucs(self) -> Tensor:
        mixed = self._pairs(self._rows("auc"), self._all) - self._within
        negatives, positives = self._counts("auc")
        everyone, _ = self._labels_of(self.everyone)
        aucs: Tensor = mixed / (2 * positives * (everyone[..., None] - negatives))
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


@dataclass(frozen=True)
class Metric:
    """A metric that :class:`rledit.Debias` can weigh.

    Attributes:
        direction: 1 where larger is better, -1 where smaller is.
        of: its values, float64 [N].
        figures: what it takes from the groups.
        whole: "utility" or "bias" for a figure of that set as a whole, "" for one that compares groups.
        labels: those that the set must have.
    """

    direction: int
    of: Callable[[GroupMetrics], Tensor]
    figures: tuple[Figure, ...] = ()
    whole: Literal["", "utility", "bias"] = ""
    labels: tuple[int, ...] = ()


def _utility(of: Callable[[GroupMetrics], Tensor], *labels: int) -> Callable[[str], Metric]:
    return lambda name: Metric(direction(name), of, (), "utility", labels)


def _bias(of: Callable[[GroupMetrics], Tensor], *labels: int) -> Callable[[str], Metric]:
    return lambda name: Metric(direction(name), of, (), "bias", labels)


def _groups(of: Callable[[GroupMetrics], Tensor], *figures: Figure) -> Callable[[str], Metric]:
    return lambda name: Metric(direction(name), of, figures)


_BY_NAME: dict[str, Callable[[str], Metric]] = {
    "utility_auc": _utility(lambda m: m.utility_auc, 0, 1),
    "utility_accuracy": _utility(lambda m: m.utility_accuracy),
    "utility_precision": _utility(lambda m: m.utility_precision),
    "utility_recall": _utility(lambda m: m.utility_recall, 1),
    "utility_f1": _utility(lambda m: m.utility_f1),
    "subgroup_auc": _groups(lambda m: m.subgroup_auc, "auc"),
    "bpsn_auc": _groups(lambda m: m.bpsn_auc, "auc"),
    "bnsp_auc": _groups(lambda m: m.bnsp_auc, "auc"),
    "bias_auc": _bias(lambda m: m.bias_auc, 0, 1),
    "bias_accuracy": _bias(lambda m: m.bias_accuracy),
    "bias_balanced_accuracy": _bias(lambda m: m.bias_balanced_accuracy, 0, 1),
    "bias_precision": _bias(lambda m: m.bias_precision),
    "bias_recall": _bias(lambda m: m.bias_recall, 1),
    "bias_f1": _bias(lambda m: m.bias_f1),
    "false_positive_rate": _bias(lambda m: m.false_positive_rate, 0),
    "false_negative_rate": _bias(lambda m: m.false_negative_rate, 1),
    "jigsaw_score": _groups(lambda m: m.jigsaw_score, "auc"),
    "fped": _groups(lambda m: m.fped, "false_positive_rate"),
    "fned": _groups(lambda m: m.fned, "false_negative_rate"),
    "demographic_parity_difference": _groups(lambda m: m.demographic_parity_difference, "selection_rate"),
    "equalized_odds_difference": _groups(
        lambda m: m.equalized_odds_difference, "false_positive_rate", "false_negative_rate"
    ),
}

METRICS: dict[str, Metric] = {name: make(name) for name, make in _BY_NAME.items()}
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
    "accuracy": PerGroup("selection_rate", lambda m: m.accuracies),
    "precision": PerGroup("false_negative_rate", lambda m: m.precisions),
    "recall": PerGroup("false_negative_rate", lambda m: m.recalls),
    "f1": PerGroup("false_negative_rate", lambda m: m.f1s),
    "selection_rate": PerGroup("selection_rate", lambda m: m.selection_rates),
}
"""Figures of single groups, by name."""
