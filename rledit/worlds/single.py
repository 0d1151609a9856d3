"""The worlds for one candidate, as a plain ``gymnasium.Env``: for debugging and for other people's agents."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
from numpy.typing import NDArray

from ..task import Task
from .vector import MaskWorld, ShiftWorld, World, figures_of

Array = NDArray[Any]


class SingleWorld(gymnasium.Env[Array, Array]):
    """One candidate of a :class:`rledit.worlds.World`; takes its arguments but ``num_envs``.

    Unlike the vector environment it does not reset itself: after the last step, call :meth:`reset`.
    """

    vector: ClassVar[type[World]]
    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - declared so by the base class

    def __init__(self, task: Task, **arguments: Any) -> None:
        self.world = self.vector(task, num_envs=1, final_obs=False, **arguments)
        self.action_space = self.world.single_action_space
        self.observation_space = self.world.single_observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        observation, infos = self.world.reset(seed=seed, options=options)
        return observation[0].copy(), _first(infos)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Raises RuntimeError after the last step of an episode, and ValueError as the vector world does."""
        engine = self.world.engine
        if engine.done:
            raise RuntimeError("step: the episode is over, call reset()")
        actions = self.world.as_actions(action, (self.world.layout.size,))[None]
        engine.start(actions)
        outcome = engine.wait()
        observation = engine.final_observation[0].cpu().numpy()
        info = {name: float(figure[0]) for name, figure in figures_of(outcome).items()}
        return observation, float(outcome.rewards[0]), engine.done, False, info

    def close(self) -> None:
        self.world.close()


def _first(infos: dict[str, Any]) -> dict[str, Any]:
    return {name: float(value[0]) for name, value in infos.items() if not name.startswith("_")}


class SingleMaskWorld(SingleWorld):
    """One candidate of :class:`rledit.MaskWorld`."""

    vector = MaskWorld


class SingleShiftWorld(SingleWorld):
    """One candidate of :class:`rledit.ShiftWorld`."""

    vector = ShiftWorld
