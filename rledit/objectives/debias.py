"""Debias: less bias, within budgets of what may be lost."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..samples import Samples
from ..tally import Tally
from .base import Objective
from .budgets import LEVELS, WORST, checked, held_groups, largest, levels, losses
from .fairness import METRICS, NEEDS, PER_GROUP, GroupMetrics
from .metric_names import label
from .paired import Comparison, Resamples, margins_of_logits
from .rates import FIGURES, KINDS, REQUIRED, Figure, lacking
from .soft import SoftTally

logger = logging.getLogger("rledit")

ROUNDING = 1e-9
"""An unedited model has spent nothing, a budget of 0 included."""

MOST_NAMED = 8
"""Groups that a message names."""

SOFT_LEVELS: Mapping[str, int] = {f"false_positive_rate{WORST}": 0, f"false_negative_rate{WORST}": 1}
"""Budgets of which :meth:`Debias.soft` knows, and the label whose errors they are about."""

UTILITY = ("utility_auc", "utility_accuracy")
BIAS: Mapping[str, float] = {
    "bpsn_auc": 1.0,
    "subgroup_auc": 0.5,
    "bnsp_auc": 0.5,
    "fped": 0.02,
    "fned": 0.05,
}


@dataclass(frozen=True)
class Debias(Objective):
    """Improve bias metrics while nothing that has a budget loses more than that.

    ``sum of weight * improvement - penalty * (what was lost beyond each budget)``: inside the budgets only
    bias counts, beyond one every point costs ``penalty`` points. Where every group is held to a budget, what
    they lost beyond it costs in their mean: the worst of a hundred rates, each of a few dozen sentences, is
    beyond it for nearly every candidate, and hardly tells which way is better. What is returned keeps the
    budget in every group.

    Improvements and losses are differences to the unedited model on the same samples. Beside utility, the
    levels of the bias set have budgets: making the classifier useless, or wrong for everybody alike, never
    pays. An edit that spends a budget on the samples it was chosen on spends more on others; hence the
    ``reserve``, and the bound that the returned edit must keep on the validation split
    (:meth:`confirmation`).

    Args:
        utility: metrics that have the ``budget``, names of :data:`rledit.objectives.METRICS`.
        bias: weight of each metric that is to improve, by name; for those where less is better (fped) an
            improvement is a decrease.
        budget: what each metric of ``utility`` may lose, absolute (0.005 is half a point of AUC).
        penalty: penalty of each unit beyond what may be spent.
        reserve: share of each budget that is not spent, 0 to 1.
        utility_group, bias_group: names of groups of the samples.
        identities: names of the identity groups, all within the bias group; by default all other groups.
        budgets: what else may be lost, by name (:mod:`rledit.objectives.budgets`): a metric, or
            ``NAME.worst`` for every group's figure. They come on top of ``utility`` and of
            :data:`rledit.objectives.budgets.LEVELS` and take their place where the name is the same;
            infinity is no budget.
        least_group: samples of each label that an identity group needs, so many as a figure is made of, to
            count in it.
        confidence: of the one-sided bound that each budget is held to on the validation split, 0.5 to 1.

    Raises:
        ValueError: for an unknown metric, or a number out of range.
    """

    utility: tuple[str, ...] = UTILITY
    bias: Mapping[str, float] = field(default_factory=lambda: dict(BIAS))
    budget: float = 0.005
    penalty: float = 20.0
    reserve: float = 0.5
    utility_group: str = "utility"
    bias_group: str = "bias"
    identities: tuple[str, ...] = ()
    budgets: Mapping[str, float] = field(default_factory=dict)
    least_group: int = 20
    confidence: float = 0.9
    before: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    """Metrics of the unedited model; set by :meth:`relative_to`."""
    before_groups: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)
    """Its figures of each group, for the budgets that all groups are held to."""
    held_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)
    """The names of these groups."""

    needs = NEEDS

    def __post_init__(self) -> None:
        for argument, names in (("utility", self.utility), ("bias", tuple(self.bias))):
            if not names:
                raise ValueError(f"{argument}: expected at least one metric, got none")
            for name in names:
                if name not in METRICS:
                    raise ValueError(f"{argument}: expected some of {', '.join(METRICS)}; got {name!r}")
        for name, weight in self.bias.items():
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"bias[{name!r}]: expected a positive weight, got {weight}")
        for name in ("budget", "penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")
        if not 0 <= self.reserve <= 1:
            raise ValueError(f"reserve: expected a share in 0..1, got {self.reserve}")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence: expected a share in 0.5..1, below 1; got {self.confidence}")
        if self.least_group < 1:
            raise ValueError(f"least_group: expected at least 1, got {self.least_group}")
        object.__setattr__(self, "budgets", checked(self.budgets))

    @property
    def held(self) -> dict[str, float]:
        """Every budget by its full name, those of ``utility`` first; what is not limited is left out."""
        asked = {**dict.fromkeys(self.utility, self.budget), **LEVELS, **self.budgets}
        return {name: number for name, number in asked.items() if math.isfinite(number)}

    @property
    def spendable(self) -> float:
        """The budget of utility without its reserve."""
        return self.held.get("utility_auc", self.budget) * (1 - self.reserve)

    def identities_of(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """The identity groups among the groups of some samples."""
        return self.identities or tuple(g for g in groups if g not in (self.utility_group, self.bias_group))

    def compared_groups(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """The identity groups: bias is what differs between them."""
        return self.identities_of(groups)

    def check(self, samples: Samples) -> None:
        """Warn of identity groups that lack what a metric is made of, and so are left out of it.

        Raises:
            ValueError: for a missing group, an identity group that is not within the bias group, labels other
                than 0 and 1, or a metric for which no group has what it needs.
        """
        if int(samples.labels.max()) > 1:
            raise ValueError(f"labels: Debias expects 0 and 1, got {int(samples.labels.max())}")
        identities = self.identities_of(samples.group_names)
        for group in (self.utility_group, self.bias_group, *identities):
            if group not in samples.groups:
                raise ValueError(
                    f"objective: Debias needs a group {group!r}; the samples have {', '.join(samples.groups)}"
                )
        if not identities:
            raise ValueError("objective: Debias needs identity groups besides the utility and the bias group")
        everyone = samples.groups[self.bias_group]
        for group in identities:
            if bool((samples.groups[group] & ~everyone).any()):
                raise ValueError(f"groups[{group!r}]: expected samples of {self.bias_group!r} only")
        self._check_sets(samples)
        self._check_figures(samples, identities)

    @property
    def _weighed(self) -> tuple[str, ...]:
        """The names of all metrics that are weighed or have a budget, utility's first."""
        plain = (name for name in self.held if not name.endswith(WORST))
        return tuple(dict.fromkeys((*self.utility, *self.bias, *plain)))

    @property
    def _every_group(self) -> tuple[str, ...]:
        """The budgets that all groups are held to."""
        return tuple(name for name in self.held if name.endswith(WORST))

    def _made_of(self) -> dict[str, tuple[Figure, ...]]:
        """What of the groups each metric and budget is made of."""
        made: dict[str, tuple[Figure, ...]] = {name: METRICS[name].figures for name in self._weighed}
        worst = {name: (PER_GROUP[name.removesuffix(WORST)].figure,) for name in self._every_group}
        return {**made, **worst}

    def _check_sets(self, samples: Samples) -> None:
        """Raise ValueError for a metric of a whole group that lacks a label."""
        groups = {"utility": self.utility_group, "bias": self.bias_group}
        for name in self._weighed:
            metric = METRICS[name]
            group = groups.get(metric.whole, "")
            if not group:
                continue
            labels = _labels(samples, samples.groups[group])
            for needed in metric.labels:
                if not labels[needed]:
                    both = "both labels" if len(metric.labels) == 2 else KINDS[needed]
                    raise ValueError(
                        f"groups[{group!r}]: expected {both} for the {label(name)}, "
                        f"there are no {KINDS[needed]}{self._lifted([name])}"
                    )

    def _check_figures(self, samples: Samples, identities: tuple[str, ...]) -> None:
        total = _labels(samples, samples.groups[self.bias_group])
        own = {group: _labels(samples, samples.groups[group]) for group in identities}
        made = self._made_of()
        for figure in FIGURES:
            names = [label(name) for name in made if figure in made[name]]
            missing = {
                group: lacking(labels, total, figure, self.least_group) for group, labels in own.items()
            }
            left_out = {group: what for group, what in missing.items() if what}
            least = f" (at least {self.least_group} of each, see least_group)" if self.least_group > 1 else ""
            if names and len(left_out) == len(identities):
                raise ValueError(
                    f"objective: Debias needs an identity group with {REQUIRED[figure]}{least} for "
                    f"{', '.join(names)}; "
                    + _some([f"{group} has {what}" for group, what in left_out.items()])
                    + self._lifted([name for name in made if figure in made[name]])
                )
            if names and left_out:
                logger.warning(
                    "Left out of %s: %s.",
                    ", ".join(names),
                    _some([f"{group} ({what})" for group, what in left_out.items()]),
                )

    def _lifted(self, names: Sequence[str]) -> str:
        """How to go without what cannot be measured, where nobody asked for it."""
        unasked = [name for name in names if name in LEVELS and name not in (*self.budgets, *self.bias)]
        if not unasked:
            return ""
        return f". Without a budget it is not needed: {', '.join(f'{name}=inf' for name in unasked)}"

    def of(self, tally: Tally) -> GroupMetrics:
        """All metrics of the candidates, those that are not weighed too."""
        return GroupMetrics(
            tally,
            self.identities_of(tally.groups),
            everyone=self.bias_group,
            utility=self.utility_group,
            least=self.least_group,
        )

    def relative_to(self, unedited: Tally) -> Debias:
        """The same objective, which now knows the unedited model's metrics."""
        metrics = self.of(unedited)
        return replace(
            self,
            before={name: float(metrics[name][0]) for name in self._weighed},
            before_groups={name: levels(name, metrics)[0] for name in self._every_group},
            held_groups={name: held_groups(name, metrics) for name in self._every_group},
        )

    def __call__(self, tally: Tally) -> Tensor:
        metrics, before = self.of(tally), self._known
        value = torch.zeros(tally.candidates, dtype=torch.float64, device=tally.device)
        for name, weight in self.bias.items():
            value += weight * METRICS[name].direction * (metrics[name] - before[name])
        for name, budget in self.held.items():
            lost = losses(name, metrics, self._unedited(name))
            excess = (lost - (1 - self.reserve) * budget).clamp(min=0)
            value -= self.penalty * excess.mean(1)
        return value

    def soft(self, tally: SoftTally) -> Tensor:
        """``-cross_entropy(utility)``, less the mean cross-entropy over the identity groups' samples of each
        label: where every group is classified well at one threshold, groups are treated alike. Less, for
        every group that is held to an error rate, by how much that rises above the unedited model's: without
        it a group whose samples are few and unlike the others' pays for the rest. The other budgets are
        judged by the counts alone."""
        value = -tally.cross_entropy(self.utility_group)
        value = value - tally.stratified_cross_entropy(self.identities_of(tuple(tally.groups)))
        for name, wrong in SOFT_LEVELS.items():
            if groups := self.held_groups.get(name):
                rise = tally.error_rates(groups, wrong) - self.before_groups[name].to(value)
                value = value - rise.clamp(min=0).sum(1)
        return value

    def admissible(self, tally: Tally) -> Tensor:
        """Whether every budget is kept less its reserve, bool [N]."""
        return (torch.stack(self._overspent(self.of(tally))) <= ROUNDING).all(0)

    def confirmation(self, samples: Samples, unedited: Tensor) -> Callable[[Tensor], bool]:
        """Whether a one-sided bound of each loss keeps its budget: on a small split a loss is known badly,
        and an edit is given less to spend. From bootstrap resamples of the rows, the same for both models."""
        resamples = Resamples(
            samples,
            self.identities_of(samples.group_names),
            everyone=self.bias_group,
            utility=self.utility_group,
            least=self.least_group,
        )
        before = resamples.measure(margins_of_logits(unedited))

        def kept(edited: Tensor) -> bool:
            found = Comparison(resamples, before, resamples.measure(margins_of_logits(edited)))
            return all(
                found.bound(name, self.confidence) <= budget + ROUNDING for name, budget in self.held.items()
            )

        return kept

    def spent(self, tally: Tally) -> dict[str, Tensor]:
        """What candidates lost of each budget, float64 [N] by full name; negative where they gained."""
        metrics = self.of(tally)
        return {name: self._lost(name, metrics) for name in self.held}

    @property
    def _known(self) -> Mapping[str, float]:
        if self.before is None:
            raise ValueError("objective: Debias compares with the unedited model; call relative_to() first")
        return self.before

    def _lost(self, name: str, metrics: GroupMetrics) -> Tensor:
        """What was lost of a budget, by the group that lost most, float64 [N]."""
        return largest(losses(name, metrics, self._unedited(name)))

    def _unedited(self, name: str) -> Tensor | float:
        before = self._known
        return self.before_groups[name] if name.endswith(WORST) else before[name]

    def _overspent(self, metrics: GroupMetrics) -> list[Tensor]:
        """Per budget: by how much a loss exceeds what may be spent; negative within it."""
        share = 1 - self.reserve
        return [self._lost(name, metrics) - share * budget for name, budget in self.held.items()]

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        """Every metric that is weighed or has a budget; of those that all groups are held to the largest
        loss."""
        metrics = self.of(tally)
        figures = {name: metrics[name] for name in self._weighed}
        if self.before is not None:
            figures |= {name: self._lost(name, metrics) for name in self._every_group}
        return figures


def _some(groups: Sequence[str]) -> str:
    """What there is to say of the first few."""
    more = len(groups) - MOST_NAMED
    return "; ".join(groups[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _labels(samples: Samples, mask: Tensor) -> list[int]:
    counts: list[int] = torch.bincount(samples.labels[mask], minlength=2).tolist()
    return counts
