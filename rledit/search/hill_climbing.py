"""Hill climbing: the best of a few steps from the current point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import positive
from ..runtime import plain_modes
from ..storage.files import Json
from .black_box import BlackBoxSearch

LIMITS = (1e-4, 10.0)
"""Limits of the step size: what is smaller changes no count, what is larger only meets the bounds."""


class HillClimbing(BlackBoxSearch):
    """A (1 + N) evolution strategy: N steps from one parent; the best takes its place unless it is worse.

    Step sizes are adapted by the share of steps that are better than the parent, the success rule of
    I. Rechenberg (Evolutionsstrategie, 1973) in the form for several offspring of C. Igel, N. Hansen and
    S. Roth, "Covariance Matrix Adaptation for Multi-objective Optimization" (Evolutionary Computation 15,
    2007, table 1), without the covariance: more than the target share makes steps larger, less smaller.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, or an engine; one task.
        seed: seed of the start and the steps.
        sigma: step size at the start, 0.0001 to 10, the limits within which it is kept.
        initial_right: standard deviation of the right factors at the start.
        elites: best candidates that are remembered for the choice on the validation split.

    Attributes:
        parent: float32 [D].
        parent_return: what it gained; 0 at the start, which is the identity.
        step_size: the present one.
        success: the smoothed share of steps that are better than the parent.

    Raises:
        TypeError, ValueError: for an environment that does not fit or a setting out of range.
    """

    def __init__(
        self, env: Any, seed: int = 0, *, sigma: float = 0.37, initial_right: float = 0.5, elites: int = 32
    ) -> None:
        super().__init__(env, seed, elites, several=False)
        self.sigma = positive("sigma", sigma)
        if not LIMITS[0] <= self.sigma <= LIMITS[1]:
            raise ValueError(f"sigma: expected {LIMITS[0]:g} to {LIMITS[1]:g}, got {sigma!r}")
        self.initial_right = positive("initial_right", initial_right)
        self._target = 1 / (5 + math.sqrt(self.population) / 2)
        self._rate = self._target * self.population / (2 + self._target * self.population)
        self._damping = 1 + self.dimensions / (2 * self.population)
        with plain_modes():
            self.parent = self.start(self.initial_right).to(self.engine.device)
        self.parent_return = 0.0
        self.step_size = self.sigma
        self.success = self._target
        self._vectors = torch.empty(0)

    def ask(self) -> Tensor:
        self._vectors = self.parent + self.step_size * self.noise(self.population, self.dimensions)
        return self._vectors

    def tell(self, fitness: Tensor) -> dict[str, float]:
        best = int(fitness.argmax())
        better, gained = torch.stack(
            [(fitness > self.parent_return).double().mean(), fitness[best].double()]
        ).tolist()
        if gained >= self.parent_return:  # also an equal one: on a plateau of counts it walks on
            self.parent = self._vectors[best].clone()
            self.parent_return = gained
        self.success += self._rate * (better - self.success)
        excess = (self.success - self._target) / (1 - self._target)
        self.step_size = min(max(self.step_size * math.exp(excess / self._damping), LIMITS[0]), LIMITS[1])
        return {"sigma": self.step_size, "success": self.success}

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """The parent."""
        return {"parent": self.proposal(self.parent, task)}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {"sigma": self.sigma, "initial_right": self.initial_right, "elites": self.elites.size}

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        return {"parent": self.parent}, {
            "parent_return": self.parent_return,
            "step_size": self.step_size,
            "success": self.success,
        }

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        if tensors["parent"].shape != self.parent.shape:
            raise ValueError(f"parent: expected {list(self.parent.shape)}")
        self.parent = tensors["parent"].to(self.parent)
        self.parent_return = state["parent_return"]
        self.step_size = state["step_size"]
        self.success = state["success"]
