"""PPO: the trainer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..policies.gaussian import Agent, NotFiniteError
from ..runtime import one_thread
from ..search.selection import Elites, select
from ..storage.files import Json
from ..worlds import World
from .config import PPOConfig
from .guard import Guard, learner_tensors, load_learner
from .rollout import Arriving, start
from .update import UpdateStats, update

logger = logging.getLogger("rledit")

Row = dict[str, float]

INTERRUPTED = "interrupted"


@dataclass
class Result:
    """What training gave.

    Attributes:
        edit: the best edit on the validation split, of the policy mean and the elites.
        origin, choices: see :class:`rledit.search.selection.Selection`.
        history: one row of figures per update.
        candidates: how many were scored for the reward.
        seconds: "score": waiting for the world; "policy": everything else, some of which may have gone on
            beside the world.
        stopped: why training ended before its budget, or "".
    """

    edit: Edit
    origin: str
    choices: list[dict[str, float]]
    history: list[Row]
    candidates: int
    seconds: dict[str, float] = field(default_factory=dict)
    stopped: str = ""


class PPO:
    """Learns a policy over a world's edits, on the world's device.

    The same seed gives the same edit, bit for bit, on the same CPU and number of threads. On a GPU sums of
    losses, and the block sizes that Triton finds fastest, may differ in the last bits from run to run.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`.
        seed: of the policy's initialisation and of everything random in training.
        config: the numbers of the algorithm.

    Raises:
        TypeError: for an environment that is none of the worlds.
        ValueError: for a negative seed.
    """

    def __init__(self, env: World, seed: int = 0, config: PPOConfig | None = None) -> None:
        if not isinstance(env, World):
            raise TypeError(f"env: expected a MaskWorld or ShiftWorld, got {type(env).__name__}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed: expected an integer of at least 0, got {seed!r}")
        self.env = env
        self.seed = seed
        self.config = config or PPOConfig()
        # On the world's device: actions and rewards never leave it.
        self.agent = Agent(env.observe.size, env.layout.right_mask(), self.config, seed).to(env.device)
        # Adam with epsilon 1e-5 (detail 3 of Huang et al.)
        self.optimizer = torch.optim.Adam(
            self.agent.parameters(), lr=self.config.learning_rate, eps=1e-5, fused=True
        )
        self.generator = torch.Generator(env.device).manual_seed(seed)
        self.elites = Elites(self.config.elites, env.episode_length, env.layout.size, env.device)
        self.guard = Guard(self.agent, self.optimizer)
        self.history: list[Row] = []
        self.candidates = 0
        self.seconds = {"score": 0.0, "policy": 0.0}
        self.stopped = ""

    def train(self, candidates: int = 20_000, on_update: Callable[[Row], Any] | None = None) -> Result:
        """Score at least this many candidates, then choose the edit.

        Ctrl-C ends training with the best edit so far; so does a policy that has blown up too often. If
        Ctrl-C comes amid an update, :meth:`state` is not that of an uninterrupted run; raise
        KeyboardInterrupt in ``on_update`` to stop between two.

        Args:
            candidates: budget over the whole life of this trainer.
            on_update: called with each update's row; may raise KeyboardInterrupt to stop.

        Raises:
            ValueError: for a budget below 1.
        """
        if candidates < 1:
            raise ValueError(f"candidates: expected at least 1, got {candidates}")
        if self.stopped == INTERRUPTED:
            self.stopped = ""
        try:
            while self.candidates < candidates and not self.stopped:
                row = self.update()
                if on_update is not None:
                    on_update(row)
        except KeyboardInterrupt:
            if not self.history:
                raise  # nothing has been learned yet
            self.stopped = INTERRUPTED
        except NotFiniteError as error:
            logger.warning("%s", error)
        return self.result()

    def update(self) -> Row:
        """One batch of episodes and one update of the policy; returns its row of figures.

        Raises:
            NotFiniteError: if no sound policy is left to collect with; :attr:`stopped` says so, too.
        """
        # Beside the core's threads, torch's would wait for each other longer than they work.
        with one_thread() if self.env.overlaps else nullcontext():
            return self._update()

    def _update(self) -> Row:
        started = time.perf_counter()
        arriving = self._collect()
        self.guard.keep()
        try:
            with one_thread():
                stats = update(self.agent, self.optimizer, arriving, self.config, self.generator)
        except NotFiniteError as error:
            self._recover(str(error))
            stats = UpdateStats()
        rollout = arriving.whole()
        self.elites.add(rollout, self.env)
        elapsed = time.perf_counter() - started
        scored = self.env.num_envs * self.env.episode_length
        self.candidates += scored
        self.seconds["score"] += rollout.score_seconds
        self.seconds["policy"] += elapsed - rollout.score_seconds
        best = int(rollout.returns.argmax())
        figures = {
            "reward_mean": rollout.returns.mean(),
            "reward_best": rollout.returns[best],
            "reward_elite": self.elites.returns[0],
            "entropy": self.agent.policy.entropy().detach(),
        }
        for name in self.env.episodes.initial_metrics:
            figures[name] = rollout.metrics[name].mean()
            figures[f"{name}_best"] = rollout.metrics[name][best]
        read = dict(zip(figures, torch.stack([f.double() for f in figures.values()]).tolist(), strict=True))
        entropy = read.pop("entropy")
        row: Row = {"update": len(self.history) + 1, "candidates": self.candidates, **read}
        row |= {
            "policy_loss": stats.policy_loss,
            "value_loss": stats.value_loss,
            "entropy": entropy,
            "kl": stats.kl,
            "clipped": stats.clipped,
            "optimizer_steps": stats.steps,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "recoveries": self.guard.recoveries,
            "seconds_score": rollout.score_seconds,
            "seconds_policy": elapsed - rollout.score_seconds,
            "candidates_per_second": scored / elapsed,
        }
        self.history.append(row)
        return row

    def _collect(self) -> Arriving:
        """A batch of a sound agent: the present one, or else the last that was."""
        while True:
            try:
                if not self.agent.finite():
                    raise NotFiniteError("the policy's parameters are not finite")
                return start(self.env, self.agent, self.config, self.generator)
            except NotFiniteError as error:
                self._recover(str(error))
                if self.stopped:
                    raise NotFiniteError(self.stopped) from error

    def _recover(self, reason: str) -> None:
        rate = self.guard.restore()
        logger.warning(
            "Update %d: %s. The last good policy is back, the learning rate is now %.2g.",
            len(self.history) + 1,
            reason,
            rate,
        )
        if self.guard.recoveries > self.config.recoveries:
            self.stopped = f"the policy blew up {self.guard.recoveries} times ({reason})"

    def result(self) -> Result:
        """The best edit so far; training can go on afterwards."""
        chosen = select(self.env, self.agent, self.elites)
        return Result(
            edit=chosen.edit,
            origin=chosen.origin,
            choices=chosen.choices,
            history=list(self.history),
            candidates=self.candidates,
            seconds=dict(self.seconds),
            stopped=self.stopped,
        )

    # ---------------------------------------------------------------------------------- checkpoint

    def _identity(self) -> dict[str, Json]:
        """What must be the same for a checkpoint to fit."""
        env = self.env
        return {
            "weights": env.task.fingerprint,
            "samples": env.task.samples.fingerprint(),
            "unedited": env.episodes.initial_value,  # other inputs would hardly give the same
            "targets": list(env.task.weights()),
            "device": env.device.type,  # random numbers differ
            "world": env.world,
            "num_envs": env.num_envs,
            "rank": env.rank,
            "episode_length": env.episode_length,
            "scale": env.scale,
            "bound": env.bound,
            "directions": env.directions,
            "observation": env.observe.name,
            "precision": env.episodes.scorer.precision,
            "seed": self.seed,
            "config": asdict(self.config),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """Everything that a later process needs to go on as if nothing had happened."""
        tensors = learner_tensors(self.agent, self.optimizer)
        tensors["generator"] = self.generator.get_state()
        tensors["elites.returns"] = self.elites.returns
        tensors["elites.actions"] = self.elites.actions
        for name, found in self.env.layout.directions.items():
            tensors[f"directions.{name}"] = found.rows
        columns = list(self.history[0]) if self.history else []
        tensors["history"] = torch.tensor(
            [[row[name] for name in columns] for row in self.history], dtype=torch.float64, device="cpu"
        ).view(len(self.history), len(columns))
        state: dict[str, Json] = {
            "trainer": self._identity(),
            "columns": list(columns),
            "candidates": self.candidates,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "recoveries": self.guard.recoveries,
            "seconds": dict(self.seconds),
            "stopped": self.stopped,
        }
        return tensors, state

    def _check_directions(self, tensors: dict[str, Tensor]) -> None:
        """Coefficients of other directions would be another edit. The kind, and so the names, is the same."""
        for name, found in self.env.layout.directions.items():
            theirs = tensors[f"directions.{name}"].to(found.rows.device)
            if theirs.shape != found.rows.shape or not torch.allclose(theirs, found.rows, atol=1e-4):
                raise ValueError(
                    f"checkpoint: it does not belong to this trainer (directions of {name} differ)"
                )

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from :meth:`state` of a trainer with the same environment, seed and config.

        Raises:
            ValueError: if it belongs to another one, or lacks something.
        """
        try:
            theirs, ours = state["trainer"], self._identity()
            if other := [name for name in ours if theirs.get(name) != ours[name]]:
                differences = ", ".join(f"{n}: {theirs.get(n)!r}, here {ours[n]!r}" for n in other)
                raise ValueError(f"checkpoint: it does not belong to this trainer ({differences})")
            self._check_directions(tensors)
            load_learner(self.agent, self.optimizer, tensors)
            for group in self.optimizer.param_groups:
                group["lr"] = state["learning_rate"]
            self.generator.set_state(tensors["generator"])
            self.elites.load(tensors["elites.returns"], tensors["elites.actions"])
            columns = state["columns"]
            self.history = [dict(zip(columns, row, strict=True)) for row in tensors["history"].tolist()]
            self.candidates = state["candidates"]
            self.guard = Guard(self.agent, self.optimizer)
            self.guard.recoveries = state["recoveries"]
            self.seconds = dict(state["seconds"])
            self.stopped = state["stopped"]
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"checkpoint: it does not belong to this trainer ({error})") from error
