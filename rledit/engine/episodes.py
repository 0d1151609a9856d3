"""Episodes: candidates whose edits compose step by step. Uses neither Gymnasium nor a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..objectives import Objective
from ..objectives.base import check_finite, values_of
from ..ops import Backend
from ..ops import backend as find_backend
from ..ops.rules import EditRule
from ..scoring import Scorer
from ..tally import Tally
from .actions import ActionLayout


@dataclass(frozen=True)
class Outcome:
    """What one step gave N candidates, on the device that scored them.

    Attributes:
        rewards: improvement of the objective over the step before, float64 [N].
        values: the objective itself, float64 [N].
        metrics: the objective's figures, each float64 [N].
        tally: the counts they come from.
        objective: what made values and metrics of them.
    """

    rewards: Tensor
    values: Tensor
    metrics: dict[str, Tensor]
    tally: Tally
    objective: Objective

    def check(self) -> Outcome:
        """The outcome, if its values are finite; else ValueError. Waits for a GPU."""
        check_finite(self.values, self.objective)
        return self

    def clone(self) -> Outcome:
        metrics = {name: figure.clone() for name, figure in self.metrics.items()}
        return Outcome(self.rewards.clone(), self.values.clone(), metrics, self.tally.clone(), self.objective)

    def tensors(self) -> list[Tensor]:
        return [self.rewards, self.values, *self.metrics.values(), *self.tally.counts]


class Episodes:
    """N episodes of T steps in lockstep.

    With T = 1 the candidates are scored from their factors and no edited weight is ever stored. With T > 1
    each candidate's weights are edited in place, [N, O, I] per target, and persist until :meth:`reset`.

    On a GPU a step starts kernels and waits for none: nothing is read on the host, nothing crosses the bus,
    and state is changed in place, so that a step can be captured in a CUDA graph (:class:`StepGraph`).
    """

    def __init__(self, scorer: Scorer, layout: ActionLayout, rule: EditRule, length: int) -> None:
        self.scorer = scorer
        self.layout = layout
        self.rule = rule
        self.length = length
        self._backend: Backend = find_backend(scorer.backend)
        unedited = scorer.score({})
        values = check_finite(self._values(unedited), scorer.objective)
        self.initial_value = float(values[0])
        self.initial_metrics = {
            name: float(figure[0]) for name, figure in scorer.objective.metrics(unedited).items()
        }
        self._edited: dict[str, Tensor] = {}  # per target [N, O, I], kept from episode to episode
        self._previous = torch.empty(0)  # values after the step before, float64 [N]
        self.reset()

    def reset(self) -> None:
        """Return to the unedited weights."""
        self.steps = 0
        self.weights: dict[str, Tensor] | None = None  # per target [N, O, I]; None: unedited

    @property
    def done(self) -> bool:
        return self.steps >= self.length

    def step(self, actions: Tensor, advance: Callable[[Tensor], Outcome] | None = None) -> Outcome:
        """Edit and score N candidates by actions [N, A], within bounds and finite.

        After an error the episodes are reset: weights that were edited but not scored are of no use. Values
        that are not finite are found by :meth:`Outcome.check`.

        Args:
            advance: takes the place of :meth:`advance`.
        """
        try:
            self.begin(len(actions))
            outcome = (advance or self.advance)(actions)
        except BaseException:
            self.reset()
            raise
        self.steps += 1
        return outcome

    def begin(self, candidates: int, again: bool = False) -> None:
        """Prepare an episode's first step: unedited weights and values for N candidates.

        ``again`` goes back to them in the middle of an episode.
        """
        if self.length == 1 or (self.weights is not None and not again):
            return
        if len(self._previous) != candidates:
            self._edited = self._unedited(candidates)
            device = self.scorer.editable.device
            self._previous = torch.empty(candidates, dtype=torch.float64, device=device)
        else:
            for name, weight in self.scorer.editable.weights().items():
                self._edited[name].copy_(weight)
        self._previous.fill_(self.initial_value)
        self.weights = self._edited

    def advance(self, actions: Tensor) -> Outcome:
        """Make a step after :meth:`begin`."""
        if self.length == 1:
            return self.score_whole(actions)
        assert self.weights is not None
        self._edit(actions, self.weights)
        tally = self.scorer.count({}, self.rule, self.weights)
        values = self._values(tally)
        rewards = values - self._previous
        self._previous.copy_(values)
        return Outcome(rewards, values, self._metrics(tally), tally, self.scorer.objective)

    def score_whole(self, actions: Tensor) -> Outcome:
        """Score whole one-step episodes, actions [n, A] of any n, apart from the episodes under way."""
        tally = self.scorer.count(self.layout.factors(actions), self.rule)
        values = self._values(tally)
        return Outcome(
            values - self.initial_value, values, self._metrics(tally), tally, self.scorer.objective
        )

    @torch.no_grad()
    def edited(self, actions: Tensor, weights: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """``weights`` [N, O, I] per target after one more edit, in place; None stands for the unedited."""
        if weights is None:
            weights = self._unedited(len(actions))
        self._edit(actions, weights)
        return weights

    def _unedited(self, candidates: int) -> dict[str, Tensor]:
        weights = self.scorer.editable.weights()
        return {name: weight.expand(candidates, -1, -1).clone() for name, weight in weights.items()}

    def _edit(self, actions: Tensor, weights: dict[str, Tensor]) -> None:
        for name, (left, right) in self.layout.factors(actions).items():
            self._backend.edit_(weights[name], left, right, self.rule)

    def _values(self, tally: Tally) -> Tensor:
        return values_of(self.scorer.objective, tally)

    def _metrics(self, tally: Tally) -> dict[str, Tensor]:
        figures = self.scorer.objective.metrics(tally)
        return {name: figure.to(tally.device) for name, figure in figures.items()}
