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
from .fairness import METRICS, NEEDS, GroupMetrics, lacking

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
class Debias:
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
    before: Mapping[str, float] | None = None
    """Metrics of the unedited model; set by :meth:`relative_to`."""

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

    @property
    def needs(self) -> frozenset[str]:
        return NEEDS

    def identities_of(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """The identity groups among the groups of some samples."""
        return self.identities or tuple(g for g in groups if g not in (self.utility_group, self.bias_group))

    def compared_groups(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """The identity groups: bias is what differs between them."""
        return self.identities_of(groups)

    def check(self, samples: Samples) -> None:
        """Warns of identity groups without an AUC, which are left out.

        Raises:
            ValueError: for a missing group, an identity group that is not within the bias group, labels other
                than 0 and 1, or no identity group that has AUCs.
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
        total = _labels(samples, everyone)
        left_out = {}
        for group in identities:
            mask = samples.groups[group]
            if bool((mask & ~everyone).any()):
                raise ValueError(f"groups[{group!r}]: expected samples of {self.bias_group!r} only")
            if missing := lacking(_labels(samples, mask), total):
                left_out[group] = missing
        if len(left_out) == len(identities):
            raise ValueError(
                "objective: Debias needs an identity group with positives and negatives, both outside too; "
                + "; ".join(f"{group} has {missing}" for group, missing in left_out.items())
            )
        if left_out:
            logger.warning(
                "Left out, because their AUCs are undefined: %s.",
                "; ".join(f"{group} ({missing})" for group, missing in left_out.items()),
            )

    def of(self, tally: Tally) -> GroupMetrics:
        return GroupMetrics(
            tally, self.identities_of(tally.groups), everyone=self.bias_group, utility=self.utility_group
        )

    def relative_to(self, unedited: Tally) -> Debias:
        """The same objective that knows the unedited model's metrics. Scorers call it, each for its split."""
        metrics = self.of(unedited)
        names = {*self.utility, *self.bias}
        return replace(self, before={name: float(metrics[name][0]) for name in names})

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
        return {name: metrics[name] for name in dict.fromkeys((*self.utility, *self.bias))}


def _labels(samples: Samples, mask: Tensor) -> list[int]:
    counts: list[int] = torch.bincount(samples.labels[mask], minlength=2).tolist()
    return counts
