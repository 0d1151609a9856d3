"""The engine: actions in, outcomes out; knows neither Gymnasium nor a policy.

``actions``       an action as factors, and as an edit
``directions``    the part of the input space that edits act on
``observations``  what a policy sees of the weights
``episodes``      edits compose, values improve
``replay``        episodes of known actions, scored once more
``workers``       who scores while the caller goes on
``step_graph``    a step as a CUDA graph
``engine``        :class:`Engine`, which puts them together
``relaxation``    the objective's soft value as a differentiable function of actions
"""

from .actions import ActionLayout
from .directions import DIRECTIONS, DirectionKind
from .engine import Engine, engine_of
from .episodes import Outcome
from .observations import ObservationKind
from .replay import Replay

__all__ = [
    "DIRECTIONS",
    "ActionLayout",
    "DirectionKind",
    "Engine",
    "ObservationKind",
    "Outcome",
    "Replay",
    "engine_of",
]
