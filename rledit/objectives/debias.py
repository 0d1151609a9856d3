"""Debias: less bias, within a budget of utility."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..samples import Samples
from ..tally import Tally
from .base import Objective
from .fairness import METRICS, NEEDS, GroupMetrics
from .metric_names import label
from .rates import FIGURES, REQUIRED, lacking

logger = logging.getLogger("rledit")

ROUNDING = 1e-9
"""An unedited model has spent nothing, a budget of 0 included."""

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
    """Improve bias metrics while utility metrics fall by no more than a budget.

    ``sum of weight * improvement - penalty * (what each utility metric lost beyond the budget)``: inside the
    budget only bias counts, beyond it every point of utility costs ``penalty`` points, so that making the
    classifier useless never pays. Improvements and losses are differences to the unedited model on the same
    samples. An edit that spends the budget on the samples it was chosen on spends more on others; hence the
    ``reserve``.

    Args:
        utility: metrics of the utility group that must not fall, names of :data:`rledit.objectives.METRICS`.
        bias: weight of each metric that is to improve, by name; for those where less is better (fped) an
            improvement is a decrease.
        budget: what each utility metric may lose, absolute (0.005 is half a point of AUC).
        penalty: of each unit beyond what may be spent.
        reserve: share of the budget that is not spent, 0 to 1.
        utility_group, bias_group: names of groups of the samples.
        identities: names of the identity groups, all within the bias group; by default all other groups.

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
    before: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    """Metrics of the unedited model; set by :meth:`relative_to`."""

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

    @property
    def spendable(self) -> float:
        """The budget without its reserve."""
        return self.budget * (1 - self.reserve)

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
            raise ValueError("objective: Debias needs identity groups beside the utility and the bias group")
        everyone = samples.groups[self.bias_group]
        for group in identities:
            if bool((samples.groups[group] & ~everyone).any()):
                raise ValueError(f"groups[{group!r}]: expected samples of {self.bias_group!r} only")
        self._check_aucs(samples)
        self._check_figures(samples, identities)

    @property
    def _weighed(self) -> tuple[str, ...]:
        """The names of all metrics, utility's first."""
        return tuple(dict.fromkeys((*self.utility, *self.bias)))

    def _check_aucs(self, samples: Samples) -> None:
        """Raise ValueError for an AUC over a whole group that lacks a label."""
        for name, group in (("utility_auc", self.utility_group), ("bias_auc", self.bias_group)):
            negatives, positives = _labels(samples, samples.groups[group])
            if name in self._weighed and not (negatives and positives):
                missing = "positives" if negatives else "negatives"
                raise ValueError(
                    f"groups[{group!r}]: expected both labels for the {label(name)}, there are no {missing}"
                )

    def _check_figures(self, samples: Samples, identities: tuple[str, ...]) -> None:
        total = _labels(samples, samples.groups[self.bias_group])
        own = {group: _labels(samples, samples.groups[group]) for group in identities}
        for figure in FIGURES:
            names = [label(name) for name in self._weighed if figure in METRICS[name].figures]
            missing = {group: lacking(labels, total, figure) for group, labels in own.items()}
            left_out = {group: what for group, what in missing.items() if what}
            if names and len(left_out) == len(identities):
                raise ValueError(
                    f"objective: Debias needs an identity group with {REQUIRED[figure]} for "
                    f"{', '.join(names)}; "
                    + "; ".join(f"{group} has {what}" for group, what in left_out.items())
                )
            if names and left_out:
                logger.warning(
                    "Left out of %s: %s.",
                    ", ".join(names),
                    "; ".join(f"{group} ({what})" for group, what in left_out.items()),
                )

    def of(self, tally: Tally) -> GroupMetrics:
        """All metrics of the candidates, those that are not weighed too."""
        return GroupMetrics(
            tally, self.identities_of(tally.groups), everyone=self.bias_group, utility=self.utility_group
        )

    def relative_to(self, unedited: Tally) -> Debias:
        """The same objective, which now knows the unedited model's metrics."""
        metrics = self.of(unedited)
        return replace(self, before={name: float(metrics[name][0]) for name in self._weighed})

    def __call__(self, tally: Tally) -> Tensor:
        if self.before is None:
            raise ValueError("objective: Debias compares with the unedited model; call relative_to() first")
        metrics = self.of(tally)
        value = torch.zeros(tally.candidates, dtype=torch.float64, device=tally.device)
        for name, weight in self.bias.items():
            value += weight * METRICS[name].direction * (metrics[name] - self.before[name])
        for overspent in self._overspent(metrics, self.before):
            value -= self.penalty * overspent.clamp(min=0)
        return value

    def admissible(self, tally: Tally) -> Tensor:
        """Whether every utility metric stays within what may be spent, bool [N]."""
        if self.before is None:
            raise ValueError("objective: Debias compares with the unedited model; call relative_to() first")
        overspent = torch.stack(self._overspent(self.of(tally), self.before))
        return (overspent <= ROUNDING).all(0)

    def _overspent(self, metrics: GroupMetrics, before: Mapping[str, float]) -> list[Tensor]:
        """Per utility metric: by how much its loss exceeds what may be spent; negative within it."""
        return [
            METRICS[name].direction * (before[name] - metrics[name]) - self.spendable for name in self.utility
        ]

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        metrics = self.of(tally)
        return {name: metrics[name] for name in self._weighed}


def _labels(samples: Samples, mask: Tensor) -> list[int]:
    counts: list[int] = torch.bincount(samples.labels[mask], minlength=2).tolist()
    return counts
