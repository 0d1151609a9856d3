"""Before, after and the change of every figure of a test set, as report and console show them.

A test set is what ``metrics.json`` holds of one: figures "before" and "after", each with "per_group" and
"interval". Sets of newer runs also have "change", with intervals of the differences, "sizes" and "left_out";
without these, nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...objectives.metric_digits import Interval, known
from ...objectives.metric_names import direction

TestSet = Mapping[str, Any]

UTILITY = ("utility_accuracy", "utility_auc", "utility_f1", "utility_precision", "utility_recall")
LEVELS = (
    "false_positive_rate",
    "false_negative_rate",
    "bias_accuracy",
    "bias_f1",
    "bias_precision",
    "bias_recall",
    "bias_auc",
)
"""How good the classifier is on the bias set as a whole."""
DIFFERENCES = (
    "bpsn_auc",
    "subgroup_auc",
    "bnsp_auc",
    "fped",
    "fned",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
"""How much it differs between groups."""
PER_GROUP = (
    "false_positive_rate",
    "false_negative_rate",
    "bpsn_auc",
    "subgroup_auc",
    "bnsp_auc",
    "accuracy",
    "f1",
    "precision",
    "recall",
)
RATES = {
    "false_positive_rate": "harmless sentences called toxic",
    "false_negative_rate": "toxic sentences called harmless",
}
"""The error rates, and what they are shares of."""


@dataclass(frozen=True)
class Changed:
    """One figure before and after.

    Attributes:
        key: of the metric.
        before, after: None where it cannot be measured.
        before_interval, after_interval, interval: of the figures and of their difference, as far as known.
    """

    key: str
    before: float | None
    after: float | None
    before_interval: Interval = None
    after_interval: Interval = None
    interval: Interval = None

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "" for neither, where larger or smaller is known to be better."""
        gained = direction(self.key) * (self.change or 0.0)
        return "better" if gained > 0 else "worse" if gained < 0 else ""

    @property
    def wider(self) -> Interval:
        """Of before or after, whichever is less certain."""
        both = [ends for ends in map(known, (self.before_interval, self.after_interval)) if ends is not None]
        return max(both, key=lambda ends: ends[1] - ends[0], default=None)

    @property
    def beyond(self) -> bool | None:
        """Whether the interval of the change leaves zero out; None where it is unknown."""
        ends = known(self.interval)
        return None if ends is None else ends[0] > 0 or ends[1] < 0


@dataclass(frozen=True)
class Rise:
    """An error rate of a group that rose."""

    group: str
    figure: Changed


def changed(test: TestSet, key: str, group: str = "") -> Changed:
    """A figure of a test set, or of one of its groups."""

    def of(part: Mapping[str, Any]) -> Any:
        return (part.get("per_group", {}).get(group, {}) if group else part).get(key)

    before, after, change = (test.get(part) or {} for part in ("before", "after", "change"))
    intervals = [of(part.get("interval") or {}) for part in (before, after, change)]
    return Changed(key, of(before), of(after), *intervals)


def table(test: TestSet, keys: Iterable[str]) -> list[Changed]:
    """The figures that the set has, before or after."""
    rows = [changed(test, key) for key in keys]
    return [row for row in rows if row.before is not None or row.after is not None]


def groups_of(test: TestSet) -> list[str]:
    """The groups, worst first: by the larger of a group's two error rates after the edit, then by the
    smallest of its AUCs. Groups without any figure come last."""
    groups = {**test["before"].get("per_group", {}), **test["after"].get("per_group", {})}

    def badness(group: str) -> tuple[float, float, str]:
        figures = test["after"].get("per_group", {}).get(group, {})
        rates = [figures[key] for key in RATES if figures.get(key) is not None]
        aucs = [v for key, v in figures.items() if key.endswith("auc") and v is not None]
        return (-max(rates, default=-1.0), min(aucs, default=2.0), group)

    return sorted(groups, key=badness)


def keys_of(test: TestSet, keys: Iterable[str] = PER_GROUP) -> list[str]:
    """The figures that any group has."""
    groups = [figures for when in ("before", "after") for figures in test[when].get("per_group", {}).values()]
    return [key for key in keys if any(figures.get(key) is not None for figures in groups)]


def rises(test: TestSet) -> list[Rise]:
    """The error rates of groups that rose, the largest rise first."""
    found = [
        Rise(group, figure)
        for group in groups_of(test)
        for figure in (changed(test, key, group) for key in RATES)
        if (figure.change or 0.0) > 0
    ]
    return sorted(found, key=lambda rise: -(rise.figure.change or 0.0))


def sizes_of(metrics: Mapping[str, Any], name: str) -> Mapping[str, Sequence[int]]:
    """Harmless and toxic texts of each group in a test set, by group; {} where they are not known.

    Args:
        metrics: metrics.json.
        name: "test", or that of another set.
    """
    test = metrics["test"] if name == "test" else metrics["test"]["other"].get(name, {})
    known_sizes: Mapping[str, Sequence[int]] = test.get("sizes", {}).get("per_group", {})
    if known_sizes:
        return known_sizes
    sets = metrics.get("data", {}).get("sets", {})
    of_data: Mapping[str, Sequence[int]] = sets.get("bias, test" if name == "test" else name, {}).get(
        "groups", {}
    )
    return of_data
