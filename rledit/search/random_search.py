"""Random search: the least that a search must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import positive
from ..storage.files import Json
from .black_box import BlackBoxSearch


class RandomSearch(BlackBoxSearch):
    """Draws vectors from normal distributions around the identity and remembers the best.

    Nothing is learned: what it finds is what luck finds (J. Bergstra and Y. Bengio, "Random Search for
    Hyper-Parameter Optimization", JMLR 13, 2012). Each update draws from all scales alike, since nobody knows
    beforehand how large a good edit is.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, an engine, or several with actions of
            one size.
        seed: seed of the candidates.
        scales: standard deviations of the vectors' entries, in turn.
        elites: best candidates that are remembered for the choice on the validation split.

    Raises:
        TypeError, ValueError: for an environment that does not fit or a setting out of range.
    """

    def __init__(
        self,
        env: Any,
        seed: int = 0,
        *,
        scales: Sequence[float] = (0.125, 0.25, 0.5, 1.0, 2.0),
        elites: int = 32,
    ) -> None:
        super().__init__(env, seed, elites)
        if isinstance(scales, (str, bytes)) or not isinstance(scales, Sequence) or not scales:
            raise ValueError(f"scales: expected one positive number or several, got {scales!r}")
        self.scales = tuple(positive("scales", scale) for scale in scales)

    def ask(self) -> Tensor:
        scales = torch.tensor(self.scales, dtype=torch.float32, device=self.engine.device)
        # Goes on where the update before ended: all scales have their turn, however small a population is.
        turn = len(self.history) * self.population + torch.arange(self.population, device=self.engine.device)
        return scales[turn % len(scales), None] * self.noise(self.population, self.dimensions)

    def tell(self, fitness: Tensor) -> dict[str, float]:
        return {}

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """None: there are only elites."""
        return {}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {"scales": list(self.scales), "elites": self.elites.size}

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        return {}, {}

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        pass
