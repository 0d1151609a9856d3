"""Unlearning: forget one group, keep another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..samples import Samples
from ..tally import Tally
from .base import Objective


@dataclass(frozen=True)
class Unlearning(Objective):
    """Forget one group and keep another: ``retain_weight * acc(retain) - forget_weight * acc(forget)``.

    The sum of utility preservation and editing objective of S. Malik, "Reinforcement Learning for Neural
    Model Editing" (arXiv:2606.13461, 2026).

    Args:
        forget, retain: names of groups of the samples.
        forget_weight, retain_weight: of their accuracies.

    Raises:
        ValueError: for a weight that is not finite.
    """

    forget: str = "forget"
    retain: str = "retain"
    forget_weight: float = 1.0
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in (("forget_weight", self.forget_weight), ("retain_weight", self.retain_weight)):
            if not math.isfinite(weight):
                raise ValueError(f"{name}: expected a finite number, got {weight}")

    def check(self, samples: Samples) -> None:
        """Raise ValueError for a missing group."""
        for group in (self.forget, self.retain):
            if group not in samples.groups:
                raise ValueError(
                    f"objective: Unlearning needs a group {group!r}; the samples have "
                    f"{', '.join(samples.groups)}"
                )

    def __call__(self, tally: Tally) -> Tensor:
        return tally.weigh((self.retain, self.retain_weight), (self.forget, -self.forget_weight))

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        return {
            "forget_accuracy": tally.accuracy(self.forget),
            "retain_accuracy": tally.accuracy(self.retain),
        }
