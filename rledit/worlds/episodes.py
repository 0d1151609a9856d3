"""Episodes: candidates whose edits compose step by step. Knows no Gymnasium and no policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import Backend
from ..ops import backend as find_backend
from ..scoring import Scorer
from ..tally import Tally
from .actions import ActionLayout


@dataclass(frozen=True)
class Outcome:
    """What one step gave N candidates.

    Attributes:
        rewards: improvement of the objective over the step before, float64 [N].
        values: the objective itself, float64 [N].
        metrics: the objective's figures, each float64 [N].
        tally: the counts they come from.
    """

    rewards: Tensor
    values: Tensor
    metrics: dict[str, Tensor]
    tally: Tally


class Episodes:
    """N episodes of T steps in lockstep.

    With T = 1 the candidates are scored from their factors and no edited weight is ever stored. With T > 1
    each candidate's weights are edited in place, [N, O, I] per target, and persist until :meth:`reset`.
    """

    def __init__(self, scorer: Scorer, layout: ActionLayout, world: str, scale: float, length: int) -> None:
        self.scorer = scorer
        self.layout = layout
        self.world = world
        self.scale = scale
        self.length = length
        self._backend: Backend = find_backend(scorer.backend)
        unedited = scorer.score({}, world)
        self.initial_value = float(self._values(unedited)[0])
        self.initial_metrics = {
            name: float(value[0]) for name, value in scorer.task.objective.metrics(unedited).items()
        }
        self.reset()

    def reset(self) -> None:
        """Back to the unedited weights."""
        self.steps = 0
        self.weights: dict[str, Tensor] | None = None  # per target [N, O, I]; None: unedited
        self._previous: Tensor | float = self.initial_value

    @property
    def done(self) -> bool:
        return self.steps >= self.length

    def step(self, actions: Tensor) -> Outcome:
        """Edit and score N candidates by actions [N, A], within bounds and finite."""
        factors = self.layout.factors(actions)
        if self.length == 1:
            tally = self.scorer.score(factors, self.world, self.scale)
        else:
            self.weights = self.edited(factors)
            tally = self.scorer.score({}, self.world, self.scale, weights=self.weights)
        values = self._values(tally)
        rewards = values - self._previous
        self._previous = values
        self.steps += 1
        return Outcome(rewards, values, self.scorer.task.objective.metrics(tally), tally)

    @torch.no_grad()
    def edited(self, factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """The current weights after one more edit, [N, O, I] per target; in place where they exist."""
        weights = self.weights
        if weights is None:
            n = next(iter(factors.values()))[0].shape[0]
            weights = {
                name: weight.expand(n, -1, -1).clone() for name, weight in self.scorer.task.weights().items()
            }
        for name, (left, right) in factors.items():
            self._backend.apply_lowrank_(weights[name], left, right, self.world, self.scale)
        return weights

    def _values(self, tally: Tally) -> Tensor:
        values = self.scorer.task.objective(tally)
        if not bool(values.isfinite().all()):
            worst = int((~values.isfinite()).nonzero()[0, 0])
            raise ValueError(f"objective: expected finite values, got {float(values[worst])}")
        return values
