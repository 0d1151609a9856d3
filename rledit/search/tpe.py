"""The tree-structured Parzen estimator, of the package optuna."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..checks import integer
from ..extras import require
from ..runtime import alone, plain_modes
from ..storage.files import Json
from .ablations import Ablations
from .black_box import BlackBoxSearch

MOST_DIMENSIONS = 64
"""The most dimensions: beyond it the estimator's densities, products of one-dimensional ones, tell nothing
apart."""


class TPE(BlackBoxSearch):
    """Searches ablation strengths and directions, as the program Heretic does with the same package.

    J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011), made for few numbers and
    few trials. The factors are far too many, so the space is that of
    :class:`rledit.search.ablations.Ablations`: a direction and a strength per target, of rank 1. It is
    another and smaller space than that of the other searches: it needs groups that differ in what the target
    reads, and what it cannot express it does not find.

    A batch is asked for at once, with running trials taken for bad ones (optuna's ``constant_liar``). An
    update takes longer, the more trials there are (with 256, some 20 ms of a core per candidate); ``memory``
    bounds it.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, or an engine; one task, one step.
        seed: seed of the sampler.
        startup: trials that are drawn at random first.
        memory: trials that the estimator looks at: the best half of them so far, and the latest.
        elites: best candidates that are remembered for the choice on the validation split.

    Attributes:
        trials: numbers in 0..1 of the trials remembered, float64 [n, dimensions].
        values: what each of them gained, float64 [n].

    Raises:
        MissingExtraError: (an ImportError) the package optuna is not installed: ``rledit[search]``.
        TypeError, ValueError: for an environment that does not fit (see :class:`Ablations`), more than
            ``MOST_DIMENSIONS`` numbers, or a setting out of range.
    """

    def __init__(
        self, env: Any, seed: int = 0, *, startup: int = 64, memory: int = 256, elites: int = 32
    ) -> None:
        super().__init__(env, seed, elites, several=False)
        self.startup = integer("startup", startup)
        self.memory = integer("memory", memory, least=2)
        self._optuna = require("optuna", "search", "TPE")
        with plain_modes():
            self._space = Ablations(self.engine)
        size = self._space.dimensions
        if size > MOST_DIMENSIONS:
            raise ValueError(
                f"env: expected at most {MOST_DIMENSIONS} strengths and coefficients in all, got {size}; use "
                'fewer targets, or directions="groups"'
            )
        self._ranges = {
            f"x{i:02d}": self._optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(size)
        }
        with plain_modes():
            self.trials = self._asked = torch.empty(0, size, dtype=torch.float64)
            self.values = torch.empty(0, dtype=torch.float64)

    def ask(self) -> Tensor:
        with _quiet(self._optuna):
            study = self._study()
            numbers = [list(study.ask(self._ranges).params.values()) for _ in range(self.population)]
        self._asked = torch.tensor(numbers, dtype=torch.float64)
        return self._space.actions(self._asked).to(self.engine.device)

    def _study(self) -> Any:
        """A study of the trials remembered. Its sampler is made anew for every update, with a seed of its
        own: it then has no state besides the trials."""
        seed = int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        sampler = self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup, multivariate=True, constant_liar=True
        )
        study = self._optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(
            [
                self._optuna.trial.create_trial(
                    params=dict(zip(self._ranges, numbers, strict=True)),
                    distributions=self._ranges,
                    value=value,
                )
                for numbers, value in zip(self.trials.tolist(), self.values.tolist(), strict=True)
            ]
        )
        return study

    def tell(self, fitness: Tensor) -> dict[str, float]:
        trials = torch.cat([self.trials, self._asked])
        values = torch.cat([self.values, fitness.cpu()])
        if len(values) > self.memory:
            order = torch.sort(values, descending=True, stable=True).indices
            kept = torch.zeros(len(values), dtype=torch.bool)
            kept[order[: self.memory // 2]] = True
            latest = (~kept).nonzero().flatten()[-(self.memory - self.memory // 2) :]
            kept[latest] = True
            trials, values = trials[kept], values[kept]
        self.trials, self.values = trials, values
        return {"trials": float(len(values))}

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """None: the estimator has no mean that is an edit; the best trials are elites."""
        return {}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {
            "startup": self.startup,
            "memory": self.memory,
            "optuna": str(self._optuna.__version__).split(".")[0],  # others draw otherwise
            "elites": self.elites.size,
        }

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        return {"trials": self.trials, "values": self.values}, {}

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        trials, values = tensors["trials"].cpu(), tensors["values"].cpu()
        if trials.shape != (len(values), self._space.dimensions):
            raise ValueError(f"trials: expected [{len(values)}, {self._space.dimensions}]")
        self.trials, self.values = trials, values


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Neither a line for every study nor warnings of options that are experimental in some versions. Both are
    switched off for the whole process, so one search at a time; all of this is Python's work anyway."""
    with alone():
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                yield
        finally:
            optuna.logging.set_verbosity(before)
