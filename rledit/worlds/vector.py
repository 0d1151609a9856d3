"""MaskWorld and ShiftWorld: N candidates as a ``gymnasium.vector.VectorEnv``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from ..edits.edit import Edit
from ..engine.actions import ActionLayout
from ..engine.episodes import Episodes, Outcome
from ..engine.observations import make_observation
from ..engine.step_graph import StepGraph
from ..engine.workers import Pending, make_worker
from ..ops.rules import EditRule
from ..task import Task

Array = NDArray[Any]


class World(VectorEnv[Array, Array, Array]):
    """N candidates of one task, in lockstep. Use :class:`MaskWorld` or :class:`ShiftWorld`.

    Action: the flattened factors of all targets, see :class:`rledit.engine.actions.ActionLayout`; the zero
    action is the identity. What lies outside ``[-bound, bound]`` is clipped, NaN is an error.
    Observation: the targets' weights over their initial standard deviation, or per-neuron statistics.
    Reward: the objective's improvement over the previous step, so an episode's return is the whole
    improvement.
    Info: the objective as "value" and its figures, each float64 [N], with Gymnasium's masks ("_value").

    The last step terminates, and resets in the same step (``AutoresetMode.SAME_STEP``): the observation and
    infos are those of the reset, ``infos["final_obs"]`` and ``infos["final_info"]`` what it has replaced.
    All candidates start from one observation, so those rows share their memory and are read-only.

    An error while scoring comes out of :meth:`step_wait`; the episodes then start over.

    A model on a GPU is edited and scored there, on a stream of its own; what Gymnasium sees is copied to the
    host. PPO's policy lives there, too, and reads :meth:`wait` and :meth:`score_parts`, which copy nothing.

    Args:
        task: what to edit, and what for.
        num_envs: N, candidates scored together.
        rank: R of the factors, 1 to the smallest side of any target.
        episode_length: T, edits that compose in an episode.
        scale: s of the world's formula.
        bound: limit of the action's entries.
        observation: "weights", "neurons", or "auto" (whole weights while they are few).
        backend, precision: see :meth:`rledit.Task.scorer`.
        final_obs: whether ``infos["final_obs"]`` is filled, which costs edited weights of all candidates.
        graph: whether steps are captured in a CUDA graph once and replayed. The objective must then compute
            on the GPU only; those of rledit do.
        directions: where right factors may point: "all", or only along what differs between the samples that
            the objective compares, "strata" or "groups"; see
            :func:`rledit.engine.directions.find_directions`. The action is then shorter.

    Raises:
        ValueError: for a number out of range, an unknown name, or ``graph`` without a GPU or its kernels.
    """

    world: ClassVar[Literal["shift", "mask"]]
    metadata: dict[str, Any] = {  # noqa: RUF012 - declared so by the base class
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        task: Task,
        num_envs: int = 128,
        rank: int = 4,
        episode_length: int = 1,
        scale: float = 1.0,
        bound: float = 4.0,
        observation: str = "auto",
        backend: str = "auto",
        precision: str = "float32",
        final_obs: bool = True,
        graph: bool = False,
        directions: str = "all",
    ) -> None:
        for name, value in (("num_envs", num_envs), ("episode_length", episode_length)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
        for name, number in (("scale", scale), ("bound", bound)):
            if not np.isfinite(number) or number <= 0:
                raise ValueError(f"{name}: expected a positive number, got {number!r}")
        self.task = task
        self.device = task.editable.device
        if graph and self.device.type != "cuda":
            raise ValueError(f"graph: expected a model on a GPU for a CUDA graph, got one on {self.device}")
        scorer = task.scorer(backend, precision)
        if graph and scorer.backend not in ("triton", "cuda"):
            raise ValueError(
                f"graph: expected the backend 'triton' or 'cuda', got {scorer.backend!r}, which waits for "
                "the GPU in every call"
            )
        self.num_envs = num_envs
        self.rank = rank
        self.episode_length = episode_length
        self.scale = float(scale)
        self.bound = float(bound)
        self.directions = directions
        self.rule = EditRule(self.world, self.scale)
        self.layout = ActionLayout(task, self.rule, rank, directions)
        self.episodes = Episodes(scorer, self.layout, self.rule, episode_length)
        self.observe = make_observation(observation, task.weights())
        unedited = {name: weight[None] for name, weight in task.weights().items()}
        self.initial_observation = self.observe(unedited)  # [1, D], of every candidate
        self._final_obs = final_obs
        self._pending: Pending | None = None
        self._parts: list[Pending] = []
        self._actions = torch.empty(0)  # of the step under way, clipped
        self._worker = make_worker(self.device)
        self._graph = graph
        self._graphs: dict[int, StepGraph] = {}  # by number of candidates

        self.single_action_space = gymnasium.spaces.Box(-bound, bound, (self.layout.size,), np.float32)
        self.single_observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (self.observe.size,), np.float32
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    # ------------------------------------------------------------------------------------ stepping

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Back to the unedited weights. The world has no chance in it; ``seed`` only seeds ``np_random``."""
        if isinstance(seed, (list, tuple)):
            if len(seed) != self.num_envs:
                raise ValueError(f"seed: expected {self.num_envs} seeds, one per candidate, got {len(seed)}")
            seed = seed[0]
        super().reset(seed=seed)
        if options is not None and "reset_mask" in options:
            raise ValueError("options: 'reset_mask' is not supported, the candidates step together")
        self._abandon()
        self.episodes.reset()
        return self._observation(), self._initial_infos()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Array) -> None:
        """Start scoring actions [N, A] beside the caller and return at once.

        Raises:
            ValueError: for a wrong shape, or NaN.
            RuntimeError: if a step is under way already, or the world is closed.
        """
        self._check_idle("step_async")
        self._start(self.as_actions(actions, (self.num_envs, self.layout.size)))

    def start(self, actions: Tensor) -> None:
        """:meth:`step_async` of a policy's actions, float32 [N, A] on the task's device.

        Raises:
            ValueError: for another shape, dtype or device, or NaN.
            RuntimeError: as :meth:`step_async`.
        """
        self._check_idle("start")
        shape, got = (self.num_envs, self.layout.size), (actions.dtype, actions.device.type)
        if actions.shape != shape or got != (torch.float32, self.device.type):
            raise ValueError(
                f"actions: expected float32 {list(shape)} on {self.device}, got {actions.dtype} "
                f"{list(actions.shape)} on {actions.device}"
            )
        self._start(self.clip(actions))

    def _check_idle(self, method: str) -> None:
        if self.closed:
            raise RuntimeError(f"{method}: the world is closed")
        if self._pending is not None:
            raise RuntimeError(f"{method}: the step before has not been waited for (step_wait)")

    def _start(self, actions: Tensor) -> None:
        self._actions = actions
        self._pending = self._worker.submit(self._step, actions)

    def _step(self, actions: Tensor) -> Outcome:
        return self.episodes.step(actions, self._captured if self._graph else None)

    def _captured(self, actions: Tensor) -> Outcome:
        """:meth:`Episodes.advance` as a graph, captured at the first call with so many candidates."""
        candidates = len(actions)
        if candidates not in self._graphs:
            self._graphs[candidates] = StepGraph(self.episodes.advance, actions)
            self.episodes.begin(candidates, again=True)  # capturing has made steps of its own
        return self._graphs[candidates](actions)

    def step_wait(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """The result of the step under way: observations, rewards, terminations, truncations, infos.

        Raises:
            RuntimeError: if no step is under way.
            Exception: whatever scoring has raised; the episodes are then reset.
        """
        outcome = self.wait()
        figures = {"value": outcome.values, **outcome.metrics}
        infos = self._infos({name: figure.cpu().numpy().copy() for name, figure in figures.items()})
        over = self.episodes.done
        if over:
            finals: dict[str, Any] = {"final_info": infos}
            if self._final_obs:
                finals["final_obs"] = np.empty(self.num_envs, dtype=object)
                for i, observation in enumerate(self.edited_observation(self._actions)):
                    finals["final_obs"][i] = observation
            self.episodes.reset()
            infos = self._initial_infos() | self._infos(finals)
        terminations = np.full(self.num_envs, over)
        truncations = np.zeros(self.num_envs, dtype=bool)
        return self._observation(), outcome.rewards.cpu().numpy(), terminations, truncations, infos

    def wait(self) -> Outcome:
        """The outcome of the step under way, as tensors where they are, without resetting: what PPO reads."""
        if self._pending is None:
            raise RuntimeError("step_wait: no step is under way (step_async)")
        try:
            outcome = self._pending.result()
        except Exception:
            self._pending = None
            self.episodes.reset()
            raise
        self._pending = None  # not so after Ctrl-C: the step still runs, and can be waited for again
        return outcome

    @property
    def overlaps(self) -> bool:
        """Whether scoring may go on beside a policy's update: in one-step episodes, scored on a GPU or by the
        core. What torch scores on the CPU may round differently while its number of threads changes."""
        scorer = self.episodes.scorer
        core = scorer.way == "tail" and scorer.backend == "native"
        return self.episode_length == 1 and (core or self.device.type == "cuda")

    def score_parts(self, actions: Tensor, parts: int) -> list[Pending]:
        """Start scoring one-step episodes, actions float32 [N, A], in parts of like size, one after another.

        PPO learns from the first while the second is scored.

        Raises:
            ValueError: for NaN.
            RuntimeError: if the world is closed.
        """
        if self.closed:
            raise RuntimeError("score_parts: the world is closed")
        self._abandon()
        score = self._captured if self._graph and self.episode_length == 1 else self.episodes.score_whole
        self._parts = [self._worker.submit(score, part) for part in self.clip(actions).tensor_split(parts)]
        return self._parts

    def _abandon(self) -> None:
        """Wait for what is under way, if anything; neither result nor error is wanted any more."""
        self._worker.settle([*self._parts, *([] if self._pending is None else [self._pending])])
        self._pending = None
        self._parts = []

    def as_actions(self, actions: Array, shape: tuple[int, ...]) -> Tensor:
        """A float32 copy of someone's actions, clipped; ValueError for NaN or another shape."""
        with np.errstate(over="ignore"):  # beyond float32 is out of bounds, and clipped like the rest
            copied = np.array(np.asarray(actions), dtype=np.float32, order="C")
        if copied.shape != shape:
            raise ValueError(f"actions: expected shape {list(shape)}, got {list(copied.shape)}")
        return self.clip(torch.from_numpy(copied)).to(self.device)

    def clip(self, actions: Tensor) -> Tensor:
        """Actions within bounds; ValueError for NaN. Where they are; on a GPU it waits for them."""
        actions = actions.detach()
        if actions.device.type != "cpu":
            if bool(actions.isnan().any()):
                raise ValueError("actions: expected numbers, got NaN")
            return actions.clamp(-self.bound, self.bound)
        numbers = actions.numpy()  # NumPy for the reason in ActionLayout.factors
        if np.isnan(numbers).any():
            raise ValueError("actions: expected numbers, got NaN")
        return torch.from_numpy(np.clip(numbers, -self.bound, self.bound))

    def edited_observation(self, actions: Tensor) -> Array:
        """[N, D] after the step that took these actions; the episodes are not reset yet."""
        weights = self.episodes.weights
        if weights is None:  # episodes of one step never store them
            weights = self.episodes.edited(actions, None)
        return self.observe(weights).cpu().numpy()

    def _observation(self) -> Array:
        if self.episodes.weights is not None:
            return self.observe(self.episodes.weights).cpu().numpy()
        first: Array = self.initial_observation.cpu().numpy()
        return np.broadcast_to(first, (self.num_envs, self.observe.size))

    def _initial_infos(self) -> dict[str, Any]:
        figures = {"value": self.episodes.initial_value, **self.episodes.initial_metrics}
        return self._infos({name: np.full(self.num_envs, figure) for name, figure in figures.items()})

    def _infos(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Gymnasium's convention: ``_name`` tells which candidates ``name`` is given for."""
        return arrays | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in arrays}

    # --------------------------------------------------------------------------------------- edits

    def edit(self, actions: Tensor) -> Edit:
        """The actions [T, A] of one candidate's episode as an edit of the task's model."""
        return Edit(
            self.layout.edit_factors(self.clip(actions)),
            world=self.world,
            scale=self.scale,
            fingerprint=self.task.fingerprint,
        )

    def close_extras(self, **kwargs: Any) -> None:
        self._worker.close()
        self._graphs.clear()  # and their memory
        self._parts = []


class MaskWorld(World):
    """Multiplicative edits, W' = W * (1 + scale * (left @ right)). See :class:`World`."""

    world = "mask"


class ShiftWorld(World):
    """Additive edits, W' = W + scale * std(W) * (left @ right). See :class:`World`."""

    world = "shift"
