"""MaskWorld and ShiftWorld: an engine as a ``gymnasium.vector.VectorEnv``."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from ..checks import integer, positive
from ..edits import Edit
from ..engine import ActionLayout, DirectionKind, Engine, ObservationKind, Outcome
from ..ops.rules import EditRule, check_kind
from ..scoring.scorer import BackendName, Precision
from ..task import Task

Array = NDArray[Any]

WORLDS: dict[str, type[World]] = {}
"""The environments by their kind of edit rule; a subclass of :class:`World` adds itself."""


class World(VectorEnv[Array, Array, Array]):
    """N candidates of one task, in lockstep. Use :class:`MaskWorld` or :class:`ShiftWorld`.

    Action: the flattened factors of all targets, see :class:`rledit.engine.actions.ActionLayout`; the zero
    action is the identity. What lies outside ``[-bound, bound]`` is clipped, NaN is an error.
    Observation: the targets' weights over their initial standard deviation, or per-neuron statistics.
    Reward: the objective's improvement over the previous step, so an episode's return is the whole
    improvement.
    Info: the objective as "value" and its metrics, each float64 [N], with Gymnasium's masks ("_value").

    The last step terminates and resets in the same step (``AutoresetMode.SAME_STEP``): the observation and
    infos are those of the reset, ``infos["final_obs"]`` and ``infos["final_info"]`` what it replaced.
    All candidates start from one observation, so those rows share their memory and are read-only.

    An error while scoring is raised by :meth:`step_wait`; the episodes then start over.

    This class only translates between Gymnasium and :attr:`engine`, which learners talk to directly.

    Args:
        task: what to edit, and what for.
        num_envs: N, candidates scored together.
        rank: R of the factors, 1 to the smallest side of any target.
        episode_length: T, edits that compose in an episode.
        scale: s of the rule's formula.
        bound: limit of the action's entries.
        observation: "weights", "neurons", or "auto" (all weights while they are few).
        backend, precision: see :meth:`rledit.Task.scorer`.
        final_obs: whether ``infos["final_obs"]`` is filled, which costs edited weights of all candidates.
        graph: whether steps are captured in a CUDA graph once and replayed. The objective must then compute
            on the GPU only; those of rledit do.
        directions: where right factors may point: "all", or only along what differs between the samples that
            the objective compares, "strata" or "groups"; see
            :func:`rledit.engine.directions.find_directions`. The action is then shorter.

    Attributes:
        engine: the :class:`rledit.engine.Engine` underneath.

    Raises:
        ValueError: for a number out of range, an unknown name, or ``graph`` without a GPU or its kernels.
    """

    world: ClassVar[str]
    """The kind of edit rule, of :data:`rledit.ops.rules.KINDS`."""
    metadata: dict[str, Any] = {  # noqa: RUF012 - declared so by the base class
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "world" in cls.__dict__:
            WORLDS.setdefault(check_kind(cls.world), cls)

    def __init__(
        self,
        task: Task,
        num_envs: int = 128,
        rank: int = 4,
        episode_length: int = 1,
        scale: float = 1.0,
        bound: float = 4.0,
        observation: ObservationKind = "auto",
        backend: BackendName = "auto",
        precision: Precision = "float32",
        final_obs: bool = True,
        graph: bool = False,
        directions: DirectionKind = "all",
    ) -> None:
        self.num_envs = integer("num_envs", num_envs)
        self.engine = Engine(
            task,
            EditRule(self.world, positive("scale", scale)),
            candidates=num_envs,
            rank=rank,
            episode_length=episode_length,
            bound=bound,
            observation=observation,
            backend=backend,
            precision=precision,
            directions=directions,
            graph=graph,
        )
        self._final_obs = final_obs
        size, seen = self.layout.size, self.engine.observe.size
        self.single_action_space = gymnasium.spaces.Box(-self.bound, self.bound, (size,), np.float32)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (seen,), np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.engine.describe()})"

    # ------------------------------------------------------------------------------------ stepping

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Return to the unedited weights. Nothing here is random; ``seed`` only seeds ``np_random``."""
        if isinstance(seed, (list, tuple)):
            if len(seed) != self.num_envs:
                raise ValueError(f"seed: expected {self.num_envs} seeds, one per candidate, got {len(seed)}")
            seed = seed[0]
        super().reset(seed=seed)
        if options is not None and "reset_mask" in options:
            raise ValueError("options: 'reset_mask' is not supported, the candidates step together")
        self.engine.reset()
        return self._observation(), self._initial_infos()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Array) -> None:
        """Start scoring actions [N, A] in the background and return at once.

        Raises:
            ValueError: for a wrong shape, or NaN.
            RuntimeError: if a step is under way already, or the world is closed.
        """
        self.engine.check_idle("step_async")
        self.engine.start(self.as_actions(actions, (self.num_envs, self.layout.size)))

    def step_wait(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """The result of the step under way: observations, rewards, terminations, truncations, infos.

        Raises:
            RuntimeError: if no step is under way.
            Exception: whatever scoring has raised; the episodes are then reset.
        """
        outcome = self.engine.wait()
        infos = self._infos(
            {name: figure.cpu().numpy().copy() for name, figure in figures_of(outcome).items()}
        )
        over = self.engine.done
        if over:
            finals: dict[str, Any] = {"final_info": infos}
            if self._final_obs:
                finals["final_obs"] = np.empty(self.num_envs, dtype=object)
                for i, observation in enumerate(self.engine.final_observation.cpu().numpy()):
                    finals["final_obs"][i] = observation
            self.engine.reset()
            infos = self._initial_infos() | self._infos(finals)
        terminations = np.full(self.num_envs, over)
        truncations = np.zeros(self.num_envs, dtype=bool)
        return self._observation(), outcome.rewards.cpu().numpy(), terminations, truncations, infos

    def as_actions(self, actions: Array, shape: tuple[int, ...]) -> Tensor:
        """A float32 copy of someone's actions on the engine's device; ValueError for another shape."""
        with np.errstate(over="ignore"):  # beyond float32 is out of bounds, and clipped like the rest
            copied = np.array(np.asarray(actions), dtype=np.float32, order="C")
        if copied.shape != shape:
            raise ValueError(f"actions: expected shape {list(shape)}, got {list(copied.shape)}")
        return torch.from_numpy(copied).to(self.device)

    def _observation(self) -> Array:
        rows: Array = self.engine.observation.cpu().numpy()
        return np.broadcast_to(rows, (self.num_envs, rows.shape[1])) if len(rows) == 1 else rows

    def _initial_infos(self) -> dict[str, Any]:
        figures = {"value": self.engine.initial_value, **self.engine.initial_metrics}
        return self._infos({name: np.full(self.num_envs, figure) for name, figure in figures.items()})

    def _infos(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Gymnasium's convention: ``_name`` tells which candidates ``name`` is given for."""
        return arrays | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in arrays}

    def close_extras(self, **kwargs: Any) -> None:
        self.engine.close()

    # ------------------------------------------------------------------------------------ the engine's

    @property
    def task(self) -> Task:
        return self.engine.task

    @property
    def layout(self) -> ActionLayout:
        """Where each factor lies in an action."""
        return self.engine.layout

    @property
    def device(self) -> torch.device:
        """Where candidates are scored."""
        return self.engine.device

    @property
    def rank(self) -> int:
        return self.engine.rank

    @property
    def episode_length(self) -> int:
        return self.engine.episode_length

    @property
    def scale(self) -> float:
        return self.engine.rule.scale

    @property
    def bound(self) -> float:
        return self.engine.bound

    @property
    def directions(self) -> str:
        return self.engine.directions

    def edit(self, actions: Tensor) -> Edit:
        """The actions [T, A] of one candidate's episode as an edit of the task's model."""
        return self.engine.edit(actions)

    def edited_observation(self, actions: Tensor) -> Array:
        """Deprecated: :attr:`rledit.engine.Engine.final_observation`, on the host."""
        warnings.warn("edited_observation is deprecated, use engine.final_observation", DeprecationWarning, 2)
        return self.engine.final_observation.cpu().numpy()

    def __getattr__(self, name: str) -> Any:
        """Find names of version 0.1 that are the engine's now."""
        if name not in _ENGINES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warnings.warn(
            f"{type(self).__name__}.{name} is deprecated, use {type(self).__name__}.engine.{name} instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(self.engine, name)


_ENGINES = frozenset(
    {"clip", "episodes", "initial_observation", "observe", "overlaps", "score_parts", "start", "wait"}
)


def figures_of(outcome: Outcome) -> dict[str, Tensor]:
    """The figures of an outcome that infos hold, each float64 [N]."""
    return {"value": outcome.values, **outcome.metrics}


class MaskWorld(World):
    """Multiplicative edits, W' = W * (1 + scale * (left @ right)). See :class:`World`."""

    world = "mask"


class ShiftWorld(World):
    """Additive edits, W' = W + scale * std(W) * (left @ right). See :class:`World`."""

    world = "shift"
