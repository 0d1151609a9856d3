"""Evolution strategies with mirrored noise, as OpenAI's, and with noise of low rank, as EGGROLL's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..checks import integer, positive, real
from ..runtime import plain_modes
from ..storage.files import Json
from .ascent import Adam, Ascent, Momentum
from .black_box import BlackBoxSearch, centered_ranks
from .perturbations import FactorNoise, LowRankNoise, Perturbation

OptimizerName = Literal["adam", "sgd"]

DEFAULTS = {False: (0.3, 0.05), True: (0.6, 0.1)}
"""Noise and step size without and with low rank: the best of four and of two pairs on the validation split of
MNIST, class 3, one seed."""


class ES(BlackBoxSearch):
    """Follows the gradient of the mean reward of noisy candidates, estimated from the candidates themselves.

    T. Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning"
    (arXiv:1703.03864): half of a population has noise added to the mean, the other half the same noise taken
    away (section 2, mirrored sampling); returns are replaced by their centered ranks u (fitness shaping), and
    the mean goes along ``sum(u * noise) / (N * sigma)`` (algorithm 1), by Adam or by SGD with momentum. Of an
    odd population one candidate is the mean itself, of which nothing is learned.

    Unlike :class:`rledit.PPO` it has neither a network nor several passes over a batch, and its noise keeps
    its size. The same seed gives the same edit, bit for bit, on the same machine.

    **Low rank.** B. Sarkar et al., "Evolution Strategies at the Hyperscale" (EGGROLL, arXiv:2511.16652), save
    memory by noise of low rank on each weight matrix. Here every candidate is of low rank anyway, being
    scored from its factors: the default, noise on the factors, costs as little. What ``low_rank=r`` changes
    is the space: noise of rank r is added to the *product* of the factors, r of the edit's ranks carry it,
    and the other R - r the mean, which is learned as a whole matrix and cut to that rank. The mean starts at
    zero, where the product, unlike its factors, has a slope. It has O * I numbers instead of (O + I) * R, a
    singular value decomposition of which is part of every update.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, an engine, or several with actions of
            one size; at least 2 candidates at a time.
        seed: seed of the start and the noise.
        sigma: standard deviation of the noise, of each entry of the factors, or of the product; by default
            0.3, with low rank 0.6.
        learning_rate: step size of the optimizer; by default 0.05, with low rank 0.1. The defaults are for
            Adam; SGD's steps are of the gradient's size and want a larger one.
        optimizer: "adam", or "sgd" with momentum.
        momentum: momentum of SGD, 0 to below 1; Adam's is 0.9.
        low_rank: rank of the noise, or 0 for noise on the factors.
        initial_right: standard deviation of the right factors at the start; not used with low rank.
        elites: best candidates that are remembered for the choice on the validation split.

    Attributes:
        center: what is learned, float32 [D], or with low rank the products [O * I] of all steps and targets.

    Raises:
        TypeError, ValueError: for an environment that does not fit or a setting out of range.
    """

    def __init__(
        self,
        env: Any,
        seed: int = 0,
        *,
        sigma: float | None = None,
        learning_rate: float | None = None,
        optimizer: OptimizerName = "adam",
        momentum: float = 0.9,
        low_rank: int = 0,
        initial_right: float = 0.5,
        elites: int = 32,
    ) -> None:
        super().__init__(env, seed, elites, least=2)
        self.low_rank = integer("low_rank", low_rank, least=0)
        default_sigma, default_rate = DEFAULTS[self.low_rank > 0]
        self.sigma = positive("sigma", default_sigma if sigma is None else sigma)
        self.learning_rate = positive(
            "learning_rate", default_rate if learning_rate is None else learning_rate
        )
        self.momentum = real("momentum", momentum, "a number from 0 to below 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number from 0 to below 1, got {momentum!r}")
        if optimizer not in get_args(OptimizerName):
            raise ValueError(
                f"optimizer: expected one of {', '.join(get_args(OptimizerName))}; got {optimizer!r}"
            )
        self.initial_right = positive("initial_right", initial_right)
        self._optimizer_name = optimizer
        self._perturbation: Perturbation = (
            LowRankNoise(self.engine, self.low_rank) if self.low_rank else FactorNoise(self.dimensions)
        )
        with plain_modes():
            start = torch.zeros(self._perturbation.size) if self.low_rank else self.start(self.initial_right)
            self.center = start.to(self.engine.device)
            self._ascent: Ascent = (
                Adam(self.center, self.learning_rate)
                if optimizer == "adam"
                else Momentum(self.center, self.learning_rate, self.momentum)
            )
        self._noise: Any = None

    def ask(self) -> Tensor:
        self._noise = self._perturbation.draw(self.population // 2, self.generator)
        plus, minus = self._perturbation.vectors(self.center, self._noise, self.sigma)
        odd = [self._perturbation.middle(self.center)[None]] if self.population % 2 else []
        return torch.cat([plus, minus, *odd])

    def tell(self, fitness: Tensor) -> dict[str, float]:
        pairs = self.population // 2
        utility = centered_ranks(fitness).float()
        weights = (utility[:pairs] - utility[pairs : 2 * pairs]) / (2 * pairs * self.sigma)
        gradient = self._perturbation.weighted(self._noise, weights)
        self._noise = None
        self._ascent.step_(self.center, gradient)
        norms = torch.stack([gradient.norm(), self.center.norm()]).tolist()
        return {"gradient_norm": norms[0], "center_norm": norms[1]}

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """The mean; none if it is not finite."""
        if not bool(self.center.isfinite().all()):
            return {}
        return {"mean": self.proposal(self._perturbation.middle(self.center), task)}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {
            "sigma": self.sigma,
            "learning_rate": self.learning_rate,
            "optimizer": self._optimizer_name,
            "momentum": self.momentum,
            "low_rank": self.low_rank,
            "initial_right": self.initial_right,
            "elites": self.elites.size,
        }

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        return {"center": self.center.clone(), **self._ascent.kept()}, {"steps": self._ascent.steps}

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.center.copy_(tensors["center"].view_as(self.center))
        self._ascent.load(tensors, state["steps"])
