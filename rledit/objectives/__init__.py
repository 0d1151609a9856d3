"""Objectives: from a tally to one value per candidate, larger is better.

``base``      what every objective is, and a plain function as one
``fairness``  error rates and AUCs of all candidates and demographic groups at once, from one tally
``debias``    :class:`rledit.Debias`: less bias within a budget of utility
"""

from .base import Function, Objective, Unlearning, as_objective
from .debias import Debias
from .fairness import METRICS, GroupMetrics, power_mean

__all__ = [
    "METRICS",
    "Debias",
    "Function",
    "GroupMetrics",
    "Objective",
    "Unlearning",
    "as_objective",
    "power_mean",
]
