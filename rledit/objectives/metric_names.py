"""Names of metrics, and how they are shown to people: the one place for tables, figures and reports.

A metric is known by its key, the name that it has in ``metrics.json``, in a history and in an edit's
metadata. Keys never change; labels may. A key that is not listed gets a readable label from its words, so an
objective of your own can return metrics of any name; :data:`METRIC_DISPLAYS` may be extended by it. Audits
extend it, too: what their figures are called stands in their own modules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricDisplay:
    """How one metric is shown.

    Attributes:
        label: for people, in the middle of a sentence.
        short: for a legend, where the context says the rest.
        percent: whether a value, which is always a fraction, is shown as a percentage.
        digits: digits after the point, of the percentage where it is one; None for four significant digits.
        direction: 1 where larger is better, -1 where smaller is, 0 where it depends or is unknown.
    """

    label: str
    short: str = ""
    percent: bool = False
    digits: int | None = 4
    direction: int = 0


def _accuracy(label: str, short: str, direction: int) -> MetricDisplay:
    return MetricDisplay(label, short, percent=True, digits=2, direction=direction)


METRIC_DISPLAYS: dict[str, MetricDisplay] = {
    # every task
    "value": MetricDisplay("objective value", "objective", direction=1),
    "reward": MetricDisplay("reward", "reward", digits=None, direction=1),
    "reward_mean": MetricDisplay("mean reward", "mean of the update", digits=None, direction=1),
    "reward_best": MetricDisplay("best reward", "best candidate", digits=None, direction=1),
    "accuracy": _accuracy("accuracy", "accuracy", 1),
    "per_class_accuracy": _accuracy("accuracy per class", "per class", 0),
    # unlearning
    "forget_accuracy": _accuracy("forget accuracy", "forget", -1),
    "retain_accuracy": _accuracy("retain accuracy", "retain", 1),
    # debiasing, over all groups
    "utility_accuracy": _accuracy("utility accuracy", "utility", 1),
    "utility_auc": MetricDisplay("utility AUC", "utility", direction=1),
    "utility_precision": _accuracy("utility precision", "utility precision", 1),
    "utility_recall": _accuracy("utility recall", "utility recall", 1),
    "utility_f1": MetricDisplay("utility F1", "utility F1", direction=1),
    "subgroup_auc": MetricDisplay("subgroup AUC", "subgroup", direction=1),
    "bpsn_auc": MetricDisplay("BPSN AUC", "BPSN", direction=1),
    "bnsp_auc": MetricDisplay("BNSP AUC", "BNSP", direction=1),
    "bias_auc": MetricDisplay("bias AUC", "bias set", direction=1),
    "bias_accuracy": _accuracy("bias accuracy", "bias accuracy", 1),
    "bias_balanced_accuracy": _accuracy("balanced bias accuracy", "balanced", 1),
    "bias_precision": _accuracy("bias precision", "bias precision", 1),
    "bias_recall": _accuracy("bias recall", "bias recall", 1),
    "bias_f1": MetricDisplay("bias F1", "bias F1", direction=1),
    "jigsaw_score": MetricDisplay("Jigsaw score", "Jigsaw", direction=1),
    "fped": MetricDisplay("FPED", "FPED", direction=-1),
    "fned": MetricDisplay("FNED", "FNED", direction=-1),
    "demographic_parity_difference": MetricDisplay(
        "demographic parity difference", "demographic parity", direction=-1
    ),
    "equalized_odds_difference": MetricDisplay("equalized odds difference", "equalized odds", direction=-1),
    # debiasing, on the bias set as a whole and per group
    "false_positive_rate": _accuracy("false positive rate", "false positives", -1),
    "false_negative_rate": _accuracy("false negative rate", "false negatives", -1),
    "precision": _accuracy("precision", "precision", 1),
    "recall": _accuracy("recall", "recall", 1),
    "f1": MetricDisplay("F1", "F1", direction=1),
    "selection_rate": _accuracy("selection rate", "selected", 0),
}
"""Displays by key."""

_ABBREVIATIONS = ("AUC", "BPSN", "BNSP", "F1", "FNED", "FPED", "KL", "PPO")
_PERCENT = ("accuracy", "rate")  # the last word of keys whose values are shares


def display(key: str) -> MetricDisplay:
    """How a metric is shown; for an unlisted key, what its words suggest."""
    if key in METRIC_DISPLAYS:
        return METRIC_DISPLAYS[key]
    words = key.replace("_", " ").split()
    label = " ".join(word.upper() if word.upper() in _ABBREVIATIONS else word for word in words) or key
    if words and words[-1] in _PERCENT:
        return MetricDisplay(label, " ".join(words[:-1]), percent=True, digits=2)
    if words and words[-1].lower() == "auc":
        return MetricDisplay(label, " ".join(label.split()[:-1]))
    return MetricDisplay(label, digits=None)


def label(key: str) -> str:
    """The metric's name for people: ``label("bpsn_auc")`` is "BPSN AUC"."""
    return display(key).label


def short_label(key: str) -> str:
    """The name for a legend: ``short_label("forget_accuracy")`` is "forget"."""
    return display(key).short or display(key).label


def axis_label(key: str) -> str:
    """The name with its unit, for an axis or the head of a column: "forget accuracy (%)"."""
    return f"{label(key)} (%)" if display(key).percent else label(key)


def direction(key: str) -> int:
    """1 where larger is better, -1 where smaller is, 0 where it depends or is unknown."""
    return display(key).direction


def shown(key: str, value: float | None, *, unit: bool = True, digits: int | None = None) -> str:
    """A value for people: ``shown("accuracy", 0.9805)`` is "98.05%".

    Args:
        key: key of the metric.
        value: as it is stored, a fraction where it is a share; None and values that are not finite are
            shown as "n/a".
        unit: without it the percent sign is left out, below a head made by :func:`axis_label`.
        digits: digits after the point; by default the metric's own.
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    how = display(key)
    places = how.digits if digits is None else digits
    number = 100 * value if how.percent else value
    text = f"{number:.4g}" if places is None else f"{number:.{places}f}"
    return f"{text}%" if how.percent and unit else text
