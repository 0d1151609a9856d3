"""Objectives: from a tally to one value per candidate, larger is better.

``base``          what every objective is, and the values that it gives
``unlearning``    :class:`rledit.Unlearning`: forget one group, keep another, keep levels
``debias``        :class:`rledit.Debias`: less bias within a budget of utility
``function``      :class:`rledit.Function`: a plain function as an objective
``accept``        what a task takes for an objective
``soft``          soft counterparts of what is counted, for searches that follow a slope
``identity``      which objective a checkpoint belongs to
``rates``         levels of a classifier, on whole sets and by demographic group
``fairness``      those, AUCs and differences between groups, of all candidates at once, from one tally
``budgets``       what may be lost, by name
``resampling``    bootstrap resamples, and what is counted in them
``paired``        two classifiers on the same resamples: what changed, what was spent, with intervals
``metric_names``  names of metrics, and how they are shown
"""

from .accept import as_objective
from .base import Objective
from .debias import Debias
from .fairness import METRICS, PER_GROUP, GroupMetrics, power_mean
from .function import Function
from .metric_names import METRIC_DISPLAYS, MetricDisplay
from .soft import SoftTally
from .unlearning import Unlearning

__all__ = [
    "METRICS",
    "METRIC_DISPLAYS",
    "PER_GROUP",
    "Debias",
    "Function",
    "GroupMetrics",
    "MetricDisplay",
    "Objective",
    "SoftTally",
    "Unlearning",
    "as_objective",
    "power_mean",
]
