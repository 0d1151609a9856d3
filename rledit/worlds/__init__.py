"""The environments: an action is an edit, the reward is what the edit improves.

``actions``      the flat action as factors, and as an edit
``directions``   the part of the input space that edits act on
``observations`` what the agent sees of the weights
``episodes``     edits compose, values improve: the part that knows no Gymnasium
``vector``       MaskWorld and ShiftWorld, ``gymnasium.vector.VectorEnv``
``single``       the same for one candidate, ``gymnasium.Env``
"""

import gymnasium

from ..engine.directions import DIRECTIONS, DirectionKind
from .single import SingleMaskWorld, SingleShiftWorld, SingleWorld
from .vector import MaskWorld, ShiftWorld, World

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

WORLDS: dict[str, type[World]] = {"mask": MaskWorld, "shift": ShiftWorld}

for _name in ("MaskWorld", "ShiftWorld"):
    if f"rledit/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(
            f"rledit/{_name}-v0",
            entry_point=f"rledit.worlds:Single{_name}",
            vector_entry_point=f"rledit.worlds:{_name}",
        )
