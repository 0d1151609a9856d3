"""The engine: candidates as tensors in, outcomes as tensors out.

Everything that steps, replays and identifies candidates of a task, without Gymnasium and without a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import integer, positive
from ..edits import Edit
from ..ops.rules import EditRule
from ..runtime import clipped, plain_modes
from ..scoring.scorer import BackendName, Precision
from ..storage.files import Json
from ..task import Split, Task
from .actions import ActionLayout
from .directions import DirectionKind
from .episodes import Episodes, Outcome
from .observations import ObservationKind, make_observation
from .replay import Replay, replay
from .step_graph import StepGraphs, check_capturable
from .workers import Pending, make_worker

SETTINGS = ("candidates", "rank", "episode_length", "bound", "directions")


class Engine:
    """N candidates of one task that are edited and scored in lockstep.

    An action [A] holds the factors of all targets, see :class:`rledit.engine.actions.ActionLayout`; the zero
    action is the identity. Episodes have T steps whose edits compose. A reward is the objective's improvement
    over the step before, so an episode's return is the whole improvement.

    Scoring is asynchronous: :meth:`start` returns at once, :meth:`wait` gives the outcome. A model on
    a GPU is edited and scored there, on a stream of its own, and nothing here copies to the host.

    Args:
        task: what to edit, and what for.
        rule: how factors change a weight.
        candidates: N.
        rank: R of the factors, 1 to the smallest side of any target.
        episode_length: T.
        bound: limit of the action's entries; what lies beyond is clipped.
        observation: "weights", "neurons", or "auto" (all weights while they are few); see
            :func:`rledit.engine.observations.make_observation`.
        backend, precision: see :meth:`rledit.Task.scorer`.
        directions: "all", "strata" or "groups"; see :func:`rledit.engine.directions.find_directions`.
        graph: whether steps are captured in a CUDA graph once and replayed. The objective must then compute
            on the GPU only; those of rledit do.

    Attributes:
        layout: where each factor lies in an action.
        observe: from weights per target [N, O, I] to observations float32 [N, D].
        initial_observation: float32 [1, D], of every candidate at the start.
        initial_value, initial_metrics: the objective and its metrics of the unedited model.
        device: where actions, weights and outcomes are.

    Raises:
        ValueError: for a number out of range, an unknown name, or ``graph`` without a GPU or its kernels.
    """

    def __init__(
        self,
        task: Task,
        rule: EditRule,
        *,
        candidates: int = 128,
        rank: int = 4,
        episode_length: int = 1,
        bound: float = 4.0,
        observation: ObservationKind = "auto",
        backend: BackendName = "auto",
        precision: Precision = "float32",
        directions: DirectionKind = "all",
        graph: bool = False,
    ) -> None:
        if not isinstance(task, Task):
            raise TypeError(f"task: expected a rledit.Task, got {type(task).__name__}")
        if not isinstance(rule, EditRule):
            raise TypeError(f"rule: expected an EditRule, got {type(rule).__name__}")
        self.task = task
        self.rule = rule
        self.candidates = integer("candidates", candidates)
        self.rank = integer("rank", rank)
        self.episode_length = integer("episode_length", episode_length)
        self.bound = positive("bound", bound)
        self.directions = directions
        self.backend, self.precision = backend, precision
        self.device = task.editable.device
        with plain_modes():
            scorer = task.scorer(backend, precision)
            if graph:
                check_capturable(self.device, scorer.backend)
            self.layout = ActionLayout(task, rule, self.rank, directions)
            self.episodes = Episodes(scorer, self.layout, rule, self.episode_length)
            self.observe = make_observation(observation, task.editable.weights())
            unedited = {name: weight[None] for name, weight in task.editable.weights().items()}
            self.initial_observation = self.observe(unedited)
        self.initial_value = self.episodes.initial_value
        self.initial_metrics = self.episodes.initial_metrics
        self.closed = False
        self._worker = make_worker(self.device)
        self._pending: Pending | None = None
        self._actions = torch.empty(0)  # of the last step, within bounds
        self._parts: list[Pending] = []
        self._graph = graph
        self._captured = StepGraphs(self.episodes)

    def __repr__(self) -> str:
        return f"Engine({self.describe()})"

    def describe(self) -> str:
        """One line on how candidates are scored."""
        scorer = self.episodes.scorer
        names = ", ".join(self.layout.shapes)
        return (
            f"{self.candidates} candidates of rank {self.rank} ({self.rule}) on {names}, "
            f"{len(scorer.samples):,} samples, way={scorer.way}, backend={scorer.backend}, "
            f"precision={scorer.precision}"
        )

    @property
    def way(self) -> str:
        """How candidates are scored, see :attr:`rledit.Scorer.way`."""
        return self.episodes.scorer.way

    # ------------------------------------------------------------------------------------ stepping

    @property
    def done(self) -> bool:
        """Whether the episodes are over."""
        return self.episodes.done

    def reset(self) -> None:
        """Return to the unedited weights; a step under way is abandoned."""
        self._abandon()
        self.episodes.reset()

    def clip(self, actions: Tensor) -> Tensor:
        """Actions within bounds, float32, where they are; ValueError for NaN. On a GPU it waits for them."""
        return clipped(actions, self.bound)

    def start(self, actions: Tensor) -> None:
        """Start scoring a step and return at once.

        Args:
            actions: float32 [N, A] on the engine's device.

        Raises:
            ValueError: for another shape, dtype or device, or NaN.
            RuntimeError: if a step is under way already, or the engine is closed.
        """
        self.check_idle("start")
        self.layout.check(actions, self.candidates, self.device)
        self._actions = self.clip(actions)
        self._pending = self._worker.submit(self._step, self._actions)

    def check_idle(self, method: str) -> None:
        """RuntimeError if a step is under way, or the engine is closed."""
        if self.closed:
            raise RuntimeError(f"{method}: it is closed")
        if self._pending is not None:
            raise RuntimeError(f"{method}: the previous step has not been waited for")

    def wait(self) -> Outcome:
        """The outcome of the step under way, on the engine's device.

        Raises:
            RuntimeError: if no step is under way.
            Exception: whatever scoring has raised; the episodes are then reset.
        """
        if self._pending is None:
            raise RuntimeError("wait: no step is under way")
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
        """Whether scoring may go on during a policy's update: in one-step episodes, scored on a GPU or by the
        core. What torch scores on the CPU may round differently while its number of threads changes."""
        scorer = self.episodes.scorer
        core = scorer.way == "tail" and scorer.backend == "native"
        return self.episode_length == 1 and (core or self.device.type == "cuda")

    def score_parts(self, actions: Tensor, parts: int) -> list[Pending]:
        """Start scoring one-step episodes, actions float32 [n, A] of any n, in parts of similar size,
        one after another.

        A search learns from the first while the second is scored.

        Raises:
            ValueError: for NaN.
            RuntimeError: if the engine is closed.
        """
        if self.closed:
            raise RuntimeError("score_parts: it is closed")
        self.layout.check(actions, len(actions), self.device)
        if not 1 <= parts <= len(actions):
            raise ValueError(f"parts: expected 1..{len(actions)}, got {parts}")
        self._abandon()
        score = self._captured if self._graph and self.episode_length == 1 else self.episodes.score_whole
        self._parts = [self._worker.submit(score, part) for part in self.clip(actions).tensor_split(parts)]
        return self._parts

    def _step(self, actions: Tensor) -> Outcome:
        return self.episodes.step(actions, self._captured if self._graph else None)

    def _abandon(self) -> None:
        """Wait for what is under way, if anything; neither result nor error is wanted any more."""
        self._worker.settle([*self._parts, *([] if self._pending is None else [self._pending])])
        self._pending = None
        self._parts = []

    def close(self) -> None:
        """End the worker; the engine can still replay and make edits."""
        if not self.closed:
            self.closed = True
            self._worker.close()
            self._captured.clear()  # and their memory
            self._parts = []

    # ---------------------------------------------------------------------------------- observations

    @property
    def observation(self) -> Tensor:
        """Observation of the candidates' weights now: float32 [N, D], or [1, D] while all are the same."""
        weights = self.episodes.weights
        with plain_modes():
            return self.initial_observation if weights is None else self.observe(weights)

    @property
    def final_observation(self) -> Tensor:
        """Float32 [N, D] after the last step, before the episodes are reset."""
        weights = self.episodes.weights
        with plain_modes():
            return self.observe(self.edited(self._actions) if weights is None else weights)

    def edited(self, actions: Tensor, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Weights [N, O, I] per target after an edit by actions [N, A] (within bounds).

        Args:
            weights: what is edited, in place; by default the unedited weights, copied.
        """
        with plain_modes():
            return self.episodes.edited(actions, weights)

    # ----------------------------------------------------------------------------------------- edits

    def replay(self, actions: Tensor, split: Split) -> Replay:
        """Score episodes of known actions [K, T, A], within bounds, on the "reward" or "validation" split."""
        if actions.dim() != 3 or actions.shape[1:] != (self.episode_length, self.layout.size):
            raise ValueError(
                f"actions: expected [K, {self.episode_length}, {self.layout.size}], got {list(actions.shape)}"
            )
        with plain_modes():
            scorer = self.task.scorer(self.backend, self.precision, split)
            return replay(Episodes(scorer, self.layout, self.rule, self.episode_length), actions)

    @torch.no_grad()
    def keeps_finite(self, actions: Tensor) -> bool:
        """Whether the weights stay finite under the actions [T, A] of one episode."""
        weights: dict[str, Tensor] | None = None
        for action in actions:
            weights = self.edited(action[None], weights)
        return all(bool(weight.isfinite().all()) for weight in (weights or {}).values())

    @torch.no_grad()
    def logits(self, actions: Tensor, split: Split) -> Tensor:
        """Of the model that the actions [T, A] of one episode make, on a split, [S, C]; of the unedited model
        where there are none, T = 0."""
        weights: dict[str, Tensor] | None = None
        for action in self.clip(actions):
            weights = self.edited(action[None], weights)
        samples = self.task.samples if split == "reward" else self.task.validation
        own = {name: weight[0] for name, weight in (weights or {}).items()}
        return self.task.editable.logits(own, samples)

    def shrunk(self, actions: Tensor, share: float) -> Tensor:
        """Actions [..., A] that change the weights by ``share`` as much."""
        return self.layout.shrunk(actions, share)

    def edit(self, actions: Tensor, metrics: Mapping[str, Json] | None = None) -> Edit:
        """The actions [T, A] of one candidate's episode as an edit of the task's model."""
        if actions.dim() != 2 or actions.shape[1] != self.layout.size:
            raise ValueError(f"actions: expected [T, {self.layout.size}], got {list(actions.shape)}")
        return Edit(
            self.layout.edit_factors(self.clip(actions)),
            world=self.rule.kind,
            scale=self.rule.scale,
            fingerprint=self.task.fingerprint,
            casts=self.task.casts,
            metrics=metrics,
        )

    # -------------------------------------------------------------------------------------- identity

    def identity(self) -> dict[str, Json]:
        """All that must be the same for a search's state to fit."""
        return {
            "weights": self.task.fingerprint,
            "samples": self.task.samples.fingerprint(),
            "validation": self.task.validation.fingerprint(),
            "objective": self.task.objective.identity(),
            "unedited": self.initial_value,
            "targets": list(self.layout.shapes),
            "device": self.device.type,  # random numbers differ
            "rule": self.rule.kind,
            "scale": self.rule.scale,
            "observation": self.observe.name,
            "precision": self.precision,
            **{name: getattr(self, name) for name in SETTINGS},
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of :meth:`identity`: coefficients of other directions would be another edit."""
        return self.layout.tensors()

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless these are :meth:`tensors`, up to rounding."""
        self.layout.check_tensors(tensors)


def engine_of(env: Any, argument: str = "env") -> Engine:
    """An engine itself, or that of a world; TypeError for anything else."""
    engine = env if isinstance(env, Engine) else getattr(env, "engine", None)
    if not isinstance(engine, Engine):
        raise TypeError(
            f"{argument}: expected a MaskWorld or ShiftWorld, or an Engine; got {type(env).__name__}"
        )
    return engine
