"""Budgets: what an edit may lose, by name, relative to the unedited model.

A budget holds one metric, or, as ``NAME.worst``, one figure of every identity group. A loss is a fall where
larger is better and a rise where smaller is; that of ``NAME.worst`` is the largest of any group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from .fairness import METRICS, PER_GROUP, GroupMetrics
from .metric_names import METRIC_DISPLAYS, MetricDisplay, direction, label

ALIASES: Mapping[str, str] = {
    "auc": "utility_auc",
    "accuracy": "utility_accuracy",
    "f1": "utility_f1",
    "precision": "utility_precision",
    "recall": "utility_recall",
    "fpr": "false_positive_rate",
    "fnr": "false_negative_rate",
}
"""Short names: of utility's figures, and of the bias set's error rates."""

WORST = ".worst"
"""Ends the name of a budget that every group is held to."""

GROUP_ALIASES: Mapping[str, str] = {
    "auc": "subgroup_auc",
    "fpr": "false_positive_rate",
    "fnr": "false_negative_rate",
}
"""Short names before :data:`WORST`."""

LEVELS: Mapping[str, float] = {
    "false_positive_rate.worst": 0.02,
    "false_negative_rate.worst": 0.02,
    "bias_balanced_accuracy": 0.0,
}
"""What :class:`rledit.Debias` holds beside utility if nothing else is said. Equal error rates are had by
erring always: so no group's may rise by more than two points, and the bias set must be told apart as well as
before."""

BUDGETED = tuple(name for name in METRICS if direction(name))
PER_GROUP_BUDGETED = tuple(name for name in PER_GROUP if direction(name))

METRIC_DISPLAYS.update(
    {
        f"{name}{WORST}": MetricDisplay(
            f"largest {'rise' if direction(name) < 0 else 'fall'} of a group's {label(name)}",
            f"worst {label(name)}",
            percent=METRIC_DISPLAYS[name].percent,
            digits=METRIC_DISPLAYS[name].digits,
            direction=-1,
        )
        for name in PER_GROUP_BUDGETED
    }
)


def canonical(name: str, argument: str = "budgets") -> str:
    """The full name of a budget: "f1" is "utility_f1", "fnr.worst" is "false_negative_rate.worst".

    Raises:
        ValueError: for a name that is none, or of a figure of which neither more nor less is better.
    """
    plain = name.removesuffix(WORST)
    full = (GROUP_ALIASES if name.endswith(WORST) else ALIASES).get(plain, plain)
    known = PER_GROUP_BUDGETED if name.endswith(WORST) else BUDGETED
    if full not in known:
        short = ", ".join(ALIASES)
        groups = ", ".join(f"{each}{WORST}" for each in (*GROUP_ALIASES, *PER_GROUP_BUDGETED))
        raise ValueError(
            f"{argument}: expected the name of a metric ({short}, {', '.join(BUDGETED)}) or of the largest "
            f"loss of a group ({groups}); got {name!r}"
        )
    return full + WORST if name.endswith(WORST) else full


def checked(budgets: Mapping[str, float], argument: str = "budgets") -> dict[str, float]:
    """The same by their full names; infinity for what is not to be held.

    Raises:
        ValueError: for an unknown name, two names of one budget, or a number below 0 or NaN.
    """
    found: dict[str, float] = {}
    for name, number in budgets.items():
        full = canonical(name, argument)
        if full in found:
            raise ValueError(f"{argument}: expected one number for {full}, got several")
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0:
            raise ValueError(f"{argument}[{name!r}]: expected a number of at least 0, got {number}")
        found[full] = float(number)
    return found


def parsed(texts: Iterable[str], argument: str = "budget") -> tuple[float | None, dict[str, float]]:
    """Budgets as the command line has them, "0.005" or "f1=0.01".

    Returns:
        the number without a name, None without any, and the others by full name.

    Raises:
        ValueError: for anything else, for two numbers without a name, and see :func:`checked`.
    """
    plain: float | None = None
    named: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not value >= 0 or (equals and not name):
            raise ValueError(
                f"{argument}: expected a number of at least 0, or NAME=NUMBER such as f1=0.01; got {text!r}"
            )
        if not equals:
            if plain is not None:
                raise ValueError(f"{argument}: expected one number without a name, got {plain:g} and {text}")
            plain = value
            continue
        [(full, _)] = checked({name.strip(): value}, argument).items()
        if full in named:
            raise ValueError(f"{argument}: expected one number for {full}, got several")
        named[full] = value
    return plain, named


def levels(name: str, metrics: GroupMetrics) -> Tensor:
    """What a budget is about, float64 [N, K]: K groups, or 1 for a metric of a whole set."""
    if name.endswith(WORST):
        return metrics.table(name.removesuffix(WORST))[1]
    return metrics[name][:, None]


def held_groups(name: str, metrics: GroupMetrics) -> tuple[str, ...]:
    """The groups of :func:`levels` of a budget that every group is held to, in their order."""
    return tuple(metrics.table(name.removesuffix(WORST))[0])


def losses(name: str, metrics: GroupMetrics, before: Tensor | float) -> Tensor:
    """What N candidates lost, float64 [N, K] as :func:`levels`; negative where they gained.

    Args:
        name: of the budget, in full.
        metrics: of the candidates.
        before: :func:`levels` of the unedited model, float64 [K] on the metrics' device, or one number.
    """
    return direction(name.removesuffix(WORST)) * (before - levels(name, metrics))


def largest(lost: Tensor) -> Tensor:
    """Of losses [N, K] the largest of each candidate [N]; 0 where no group has any."""
    return lost.amax(1) if lost.shape[1] else lost.new_zeros(len(lost))
