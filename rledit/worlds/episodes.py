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
            name: float(value[0]) for name, value in scorer.objective.metrics(unedited).items()
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
        """Edit and score N candidates by actions [N, A], within bounds and finite.

        Raises:
            ValueError: for an objective that is not finite. After any error the episodes are reset: weights
                that were edited but not scored are of no use.
        """
        try:
            outcome = self._outcome(self._score(actions), self._previous)
        except BaseException:
            self.reset()
            raise
        self._previous = outcome.values
        self.steps += 1
        return outcome

    def score_whole(self, actions: Tensor) -> Outcome:
        """Whole episodes of one step, from actions [n, A] of any n, beside the episodes under way."""
        tally = self.scorer.score(self.layout.factors(actions), self.world, self.scale)
        return self._outcome(tally, self.initial_value)

    def _outcome(self, tally: Tally, previous: Tensor | float) -> Outcome:
        values = self._values(tally)
        return Outcome(values - previous, values, self.scorer.objective.metrics(tally), tally)

    def _score(self, actions: Tensor) -> Tally:
        if self.length == 1:
            return self.scorer.score(self.layout.factors(actions), self.world, self.scale)
        self.weights = self.edited(actions, self.weights)
        return self.scorer.score({}, self.world, self.scale, weights=self.weights)

    @torch.no_grad()
    def edited(self, actions: Tensor, weights: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """``weights`` [N, O, I] per target after one more edit, in place; None stands for the unedited."""
        if weights is None:
            weights = {
                name: weight.expand(len(actions), -1, -1).clone()
                for name, weight in self.scorer.editable.weights().items()
            }
        for name, (left, right) in self.layout.factors(actions).items():
            self._backend.apply_lowrank_(weights[name], left, right, self.world, self.scale)
        return weights

    def _values(self, tally: Tally) -> Tensor:
        values = self.scorer.objective(tally).double()
        if values.shape != (tally.candidates,):
            raise ValueError(
                f"objective: expected one value per candidate, shape [{tally.candidates}], "
                f"got {list(values.shape)}"
            )
        if not bool(values.isfinite().all()):
            worst = int((~values.isfinite()).nonzero()[0, 0])
            raise ValueError(f"objective: expected finite values, got {float(values[worst])}")
        return values
