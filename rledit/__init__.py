"""Edit pretrained neural networks by reinforcement learning.

An agent proposes low-rank edits of weight matrices, a compiled core scores hundreds of them at once on
cached activations, the score is the reward, and PPO improves the agent. See README.md for the five lines
that edit a model of your own.
"""

try:
    from . import _native
except ImportError as error:  # pragma: no cover - seen only from a source tree
    raise ImportError(
        "rledit: the compiled core rledit._native is missing. If this is the source tree, install the "
        "package first (pip install .) and run Python from another folder, or use pip install -e ."
    ) from error

__version__ = "0.2.0.dev0"

from typing import TYPE_CHECKING

from . import _moved
from ._native import num_threads, set_num_threads
from .edits import Edit, EditFileError, Ledger, LedgerFileError
from .engine import Engine
from .extras import MissingExtraError
from .objectives import Debias, Function, Objective, Unlearning
from .ops.rules import EditRule
from .policies import Policy
from .ppo import PPO, AgentLostError, NotFiniteError, PPOConfig, Result
from .samples import Samples, forget_groups
from .scoring import MismatchError, Scorer, TracingError
from .search import CMAES, ES, TPE, GradientSearch, HillClimbing, RandomSearch, Search, SearchEnded, SepCMAES
from .tally import Tally
from .task import Task
from .worlds import MaskWorld, ShiftWorld, World

if TYPE_CHECKING:
    from .recipes.debiasing.api import DebiasResult, debias
    from .recipes.debiasing.intersections import intersections

_moved.install()

_LATE = {
    "DebiasResult": "recipes.debiasing.api",
    "debias": "recipes.debiasing.api",
    "intersections": "recipes.debiasing.intersections",
}
"""Whole runs, and all that they need, are imported when they are asked for."""


def __getattr__(name: str) -> object:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    return _moved.attribute(__name__, name)


__all__ = [
    "CMAES",
    "ES",
    "PPO",
    "TPE",
    "AgentLostError",
    "Debias",
    "DebiasResult",
    "Edit",
    "EditFileError",
    "EditRule",
    "Engine",
    "Function",
    "GradientSearch",
    "HillClimbing",
    "Ledger",
    "LedgerFileError",
    "MaskWorld",
    "MismatchError",
    "MissingExtraError",
    "NotFiniteError",
    "Objective",
    "PPOConfig",
    "Policy",
    "RandomSearch",
    "Result",
    "Samples",
    "Scorer",
    "Search",
    "SearchEnded",
    "SepCMAES",
    "ShiftWorld",
    "Tally",
    "Task",
    "TracingError",
    "Unlearning",
    "World",
    "__version__",
    "_native",
    "debias",
    "forget_groups",
    "intersections",
    "num_threads",
    "set_num_threads",
]
