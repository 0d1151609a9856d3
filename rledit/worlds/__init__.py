"""The environments: an action is an edit, the reward is what the edit improves.

``vector``  MaskWorld and ShiftWorld, ``gymnasium.vector.VectorEnv`` over :class:`rledit.engine.Engine`
``single``  the same for one candidate, ``gymnasium.Env``
"""

import gymnasium

from .. import _moved
from ..engine import DIRECTIONS, DirectionKind
from .single import SingleMaskWorld, SingleShiftWorld, SingleWorld
from .vector import WORLDS, MaskWorld, ShiftWorld, World


def __getattr__(name: str) -> object:
    """Find a module under its name in version 0.1."""
    return _moved.attribute(__name__, name)


__all__ = [
    "DIRECTIONS",
    "WORLDS",
    "DirectionKind",
    "MaskWorld",
    "ShiftWorld",
    "SingleMaskWorld",
    "SingleShiftWorld",
    "SingleWorld",
    "World",
]

for _name in ("MaskWorld", "ShiftWorld"):
    if f"rledit/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(
            f"rledit/{_name}-v0",
            entry_point=f"rledit.worlds:Single{_name}",
            vector_entry_point=f"rledit.worlds:{_name}",
        )
