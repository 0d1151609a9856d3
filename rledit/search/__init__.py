"""Search: what every way to spend candidates has in common.

``search``         budget, callback, state
``elites``         the best candidates so far
``selection``      the choice of the edit on the validation split
``result``         what a search gives
``figures``        what is in every row of a history
``black_box``      what searches over one vector have in common
``es``             evolution strategies
``ascent``         their steps: Adam, SGD with momentum
``perturbations``  their noise, on factors or of low rank
``gradient``       up the slope of an objective's soft counterpart
``cma``            CMA-ES, full and separable
``tpe``            the tree-structured Parzen estimator
``ablations``      its space: directions and strengths
``random_search``  random candidates, the least that others must beat
``hill_climbing``  the best of a few steps

PPO is a package of its own, ``rledit.ppo``.
"""

from .black_box import BlackBoxSearch
from .cma import CMAES, SepCMAES
from .elites import Elites
from .es import ES
from .gradient import GradientSearch
from .hill_climbing import HillClimbing
from .random_search import RandomSearch
from .result import INTERRUPTED, Result, Row, Selection
from .search import Search, SearchEnded
from .selection import select
from .tpe import TPE

__all__ = [
    "CMAES",
    "ES",
    "INTERRUPTED",
    "TPE",
    "BlackBoxSearch",
    "Elites",
    "GradientSearch",
    "HillClimbing",
    "RandomSearch",
    "Result",
    "Row",
    "Search",
    "SearchEnded",
    "Selection",
    "SepCMAES",
    "select",
]
