"""Gradients: up the slope of the objective's soft counterpart, judged by its counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import integer, positive
from ..engine.relaxation import Relaxation
from ..runtime import plain_modes
from ..storage.files import Json
from .ascent import Adam
from .figures import figures, read
from .result import Row
from .search import Search, SearchEnded


class GradientSearch(Search):
    """Adam on the factors themselves, where the objective has a soft counterpart.

    That is :meth:`rledit.Objective.soft`. What can be differentiated need not be searched for: a gradient
    tells about all entries at once what a population tells about one direction at a time. Where a level asks
    for features that no probe can read, the soft probe is a logistic regression whose steps are
    differentiated, too (unrolled, as the inner problem of L. Franceschi et al., "Bilevel Programming for
    Hyperparameter Optimization and Meta-Learning", arXiv:1806.04910). Candidates are still scored by counts,
    elites are the best by counts, and the validation split picks the edit, as in every search. What has no
    slope, a plain function of a tally or a black box, needs one of the other searches.

    An update takes ``steps`` steps of Adam with each of ``restarts`` candidates, on a batch of samples each,
    and then scores them. A gradient counts as one evaluation, as a score does, though it takes longer.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, or an engine; one task, episodes of
            one step.
        seed: seed of the start and the batches.
        restarts: candidates that are improved side by side, each from a start of its own.
        steps: steps of Adam per update.
        batch: samples per step, each stratum in proportion; all, where there are fewer. Restarts and samples
            run together, and what is between the cut and the logits is kept for the slope: on a large network
            take fewer.
        learning_rate: step size of Adam, in units of the actions.
        initial_right: standard deviation of the right factors at the start.
        patience: updates without a better candidate after which the search ends.
        elites: best candidates that are remembered for the choice on the validation split.

    Attributes:
        actions: what is learned, float32 [restarts, A].

    Raises:
        TypeError: for an environment that is not one of rledit's worlds, or a black box.
        ValueError: for several tasks, episodes of several steps, an objective that can only be counted, or a
            setting out of range.
    """

    def __init__(
        self,
        env: Any,
        seed: int = 0,
        *,
        restarts: int = 2,
        steps: int = 10,
        batch: int = 2048,
        learning_rate: float = 0.01,
        initial_right: float = 1.0,
        patience: int = 30,
        elites: int = 32,
    ) -> None:
        super().__init__(env, seed, integer("elites", elites))
        if len(self.engines) > 1:
            raise ValueError(f"env: expected one world, got {len(self.engines)}")
        self.restarts = integer("restarts", restarts)
        self.steps = integer("steps", steps)
        self.batch = integer("batch", batch)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.initial_right = positive("initial_right", initial_right)
        self.patience = integer("patience", patience)
        with plain_modes():
            self._relaxation = Relaxation(self.engine)
            generator = torch.Generator().manual_seed(self.seed)
            start = self.engine.layout.start(self.restarts, self.initial_right, generator)
            self.actions = self.engine.clip(start.to(self.engine.device))
            self._ascent = Adam(self.actions, self.learning_rate)
        self._waited = 0  # updates since there was a better candidate

    def step(self) -> Row:
        """Improve the candidates and score them.

        Raises:
            SearchEnded: once nothing has got better for ``patience`` updates, or values are not finite.
        """
        if self._waited >= self.patience:
            self.stopped = f"settled: no better candidate in {self.patience} updates"
            raise SearchEnded(f"GradientSearch has {self.stopped}")
        started = time.perf_counter()
        soft = self._climb()
        climbed = time.perf_counter()
        with torch.no_grad():
            best = float(self.elites.returns[0]) if len(self.elites.returns) else -torch.inf
            outcome = self.engine.score_parts(self.actions, 1)[0].result().check()
            self.elites.add(outcome.rewards, self.actions[:, None].clone())
            self._waited = 0 if float(self.elites.returns[0]) > best else self._waited + 1
            own = read(figures([outcome.rewards], outcome.metrics, self.elites.returns[0]))
        waited = time.perf_counter() - climbed
        scored = self.restarts * (self.steps + 1)
        self.candidates += scored
        self.seconds["score"] += waited
        self.seconds["policy"] += climbed - started
        return {
            "candidates": float(self.candidates),
            **own,
            "soft": soft,
            "seconds_score": waited,
            "seconds_policy": climbed - started,
            "candidates_per_second": scored / (waited + climbed - started),
        }

    def _climb(self) -> float:
        """``steps`` steps; the mean soft value at the last one."""
        mean = 0.0
        for _ in range(self.steps):
            actions = self.actions.detach().requires_grad_()
            value = self._relaxation(actions, *self._relaxation.draw(self.batch, self.generator))
            (slope,) = torch.autograd.grad(value.sum(), actions)
            sound = value.isfinite() & slope.isfinite().all(1)
            if not bool(sound.any()):
                self.stopped = "its soft values or their slopes are not finite"
                raise SearchEnded(f"GradientSearch has blown up: {self.stopped}")
            self._ascent.step_(self.actions, slope.where(sound[:, None], 0.0))  # one that is lost stays
            self.actions = self.engine.clip(self.actions)
            mean = float(value.detach()[sound].mean())
        return mean

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """Where each restart stands."""
        return {f"restart {n}": self.actions[n].view(1, 1, -1) for n in range(self.restarts)}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {
            "restarts": self.restarts,
            "steps": self.steps,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "initial_right": self.initial_right,
            "patience": self.patience,
            "elites": self.elites.size,
        }

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        return {"actions": self.actions.clone(), **self._ascent.kept()}, {
            "steps": self._ascent.steps,
            "waited": self._waited,
        }

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        if tensors["actions"].shape != self.actions.shape:
            raise ValueError(f"actions: expected {list(self.actions.shape)}")
        self._ascent.load(tensors, state["steps"])
        self.actions.copy_(tensors["actions"])  # which are not ours to move
        self._waited = state["waited"]
