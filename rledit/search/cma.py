"""CMA-ES, full and separable, of the package cmaes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import positive
from ..extras import require
from ..storage.files import Json
from .black_box import BlackBoxSearch

MOST_DIMENSIONS = 2_000
"""The largest full covariance matrix, which is decomposed in every update and learned from few candidates."""

MOST_NUMBERS = 2**28
"""The largest N * D * D: the package forms every candidate's outer product, 2 GiB of them at this number."""

_ARRAYS = ("_mean", "_C", "_p_sigma", "_pc")
_NUMBERS = ("_sigma", "_g")


class CovarianceAdaptation(BlackBoxSearch):
    """What both have in common: cmaes adapts, from a population that is drawn here.

    The package draws one vector at a time, from numbers of its own. Here all are drawn in one product, from
    the search's generator, whose state a checkpoint has.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, an engine, or several with actions of
            one size; at least 4 candidates at a time, which are the population.
        seed: seed of the start and the candidates.
        sigma: step size at the start.
        initial_right: standard deviation of the right factors at the start.
        elites: best candidates that are remembered for the choice on the validation split.

    Attributes:
        optimizer: the package's.

    Raises:
        MissingExtraError: (an ImportError) the package cmaes is not installed: ``rledit[search]``.
        TypeError, ValueError: for an environment that does not fit or a setting out of range.
    """

    def __init__(
        self, env: Any, seed: int = 0, *, sigma: float = 0.37, initial_right: float = 0.5, elites: int = 32
    ) -> None:
        super().__init__(env, seed, elites, least=4)
        self.sigma = positive("sigma", sigma)
        self.initial_right = positive("initial_right", initial_right)
        package = require("cmaes", "search", type(self).__name__)
        start = self.start(self.initial_right).double().numpy()
        self.optimizer: Any = self._make(package, start)
        self._vectors = np.empty((0, self.dimensions))

    @abstractmethod
    def _make(self, package: Any, start: Any) -> Any:
        """The package's optimizer."""

    @abstractmethod
    def _spread(self, normal: Any) -> Any:
        """Standard normal rows [N, D] as rows of the present covariance, without the step size."""

    def ask(self) -> Tensor:
        normal = self.noise(self.population, self.dimensions, torch.float64).cpu().numpy()
        self._vectors = self.optimizer.mean + self.optimizer._sigma * self._spread(normal)
        return torch.from_numpy(self._vectors).to(self.engine.device, torch.float32)

    def tell(self, fitness: Tensor) -> dict[str, float]:
        losses = (-fitness).tolist()
        self.optimizer.tell(list(zip(self._vectors, losses, strict=True)))
        return {"sigma": float(self.optimizer._sigma)}

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """The mean; none if it is not finite."""
        mean = torch.from_numpy(self.optimizer.mean)
        return {"mean": self.proposal(mean, task)} if bool(mean.isfinite().all()) else {}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {"sigma": self.sigma, "initial_right": self.initial_right, "elites": self.elites.size}

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        # Nothing else of the optimizer changes, but for what it makes anew and a history that is not asked.
        numbers = [float(getattr(self.optimizer, name)) for name in _NUMBERS]
        return {
            **{name[1:]: torch.tensor(getattr(self.optimizer, name)) for name in _ARRAYS},
            "numbers": torch.tensor(numbers, dtype=torch.float64),
        }, {}

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        for name in _ARRAYS:
            value = tensors[name[1:]].cpu().numpy().copy()
            if value.shape != getattr(self.optimizer, name).shape:
                raise ValueError(f"{name[1:]}: expected {getattr(self.optimizer, name).shape}")
            setattr(self.optimizer, name, value)
        sigma, generation = tensors["numbers"].tolist()
        self.optimizer._sigma, self.optimizer._g = sigma, int(generation)
        self.optimizer._B = self.optimizer._D = None  # decompositions of another moment


class SepCMAES(CovarianceAdaptation):
    """Separable CMA-ES: the mean, a step size, and a variance for each entry are adapted.

    R. Ros and N. Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity"
    (PPSN X, 2008), as the package cmaes has it: M. Nomura and M. Shibata (arXiv:2402.01373). An update costs
    O(N * D). Arguments: see :class:`CovarianceAdaptation`.
    """

    def _make(self, package: Any, start: Any) -> Any:
        return package.SepCMA(mean=start, sigma=self.sigma, population_size=self.population, seed=0)

    def _spread(self, normal: Any) -> Any:
        return self.optimizer._eigen_decomposition() * normal


class CMAES(CovarianceAdaptation):
    """CMA-ES: the mean, a step size and the whole covariance matrix are adapted.

    N. Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772), as the package cmaes has it:
    M. Nomura and M. Shibata (arXiv:2402.01373). An update costs O(N * D^2 + D^3), so it is for edits of few
    numbers: a low rank, a small layer, or directions. Arguments: see :class:`CovarianceAdaptation`.

    Raises:
        ValueError: also for more than ``MOST_DIMENSIONS`` dimensions, or N * D * D beyond ``MOST_NUMBERS``.
    """

    def _make(self, package: Any, start: Any) -> Any:
        most = min(MOST_DIMENSIONS, int((MOST_NUMBERS / self.population) ** 0.5))
        if self.dimensions > most:
            raise ValueError(
                f"env: expected actions of at most {most:,} entries in all with {self.population} candidates "
                f"at a time, a covariance matrix has their square; got {self.dimensions:,}. SepCMAES or ES "
                "takes any number"
            )
        return package.CMA(mean=start, sigma=self.sigma, population_size=self.population, seed=0)

    def _spread(self, normal: Any) -> Any:
        vectors, roots = self.optimizer._eigen_decomposition()
        return (normal * roots) @ vectors.T
