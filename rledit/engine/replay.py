"""Episodes of known actions, scored once more, such as on the split that picks the edit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..objectives.base import admissible_of
from .episodes import Episodes, Outcome


@dataclass(frozen=True)
class Replay:
    """What episodes of known actions gave on a split.

    Attributes:
        outcome: outcome of the last step, K candidates.
        admissible: whether each keeps the objective's constraint, bool [K]; None without a constraint.
        initial_value, initial_metrics: value and metrics of the unedited model on that split.
    """

    outcome: Outcome
    admissible: Tensor | None
    initial_value: float
    initial_metrics: dict[str, float]


@torch.no_grad()
def replay(episodes: Episodes, actions: Tensor) -> Replay:
    """Step fresh episodes through actions [K, T, A], within bounds."""
    for t in range(episodes.length):
        outcome = episodes.step(actions[:, t]).check()
    admissible = admissible_of(episodes.scorer.objective, outcome.tally)
    return Replay(outcome, admissible, episodes.initial_value, episodes.initial_metrics)
