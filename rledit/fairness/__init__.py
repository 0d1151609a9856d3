"""Fairness of binary classifiers across identity groups.

``metrics``    error rates and AUCs of all candidates and groups at once, from one tally
``objective``  :class:`rledit.Debias`: less bias within a budget of utility
"""

from .metrics import METRICS, GroupMetrics, power_mean
from .objective import Debias

__all__ = ["METRICS", "Debias", "GroupMetrics", "power_mean"]
