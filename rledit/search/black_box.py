"""Black-box searches: a candidate is one vector, a whole episode of actions, and all that is learned from it
is its return."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import integer
from ..runtime import one_thread, plain_modes
from .figures import figures, read
from .result import Row
from .search import Search, SearchEnded

LARGEST = 1e9
"""A vector with an entry beyond this has run away: far beyond any bound, the reward does not depend on it."""


class BlackBoxSearch(Search):
    """A search that asks for a population of vectors and is told what each is worth.

    A subclass implements :meth:`ask`, :meth:`tell`, :meth:`proposals` and what of its state is learned; the
    scoring, elites and figures are here. There is no learner besides the engine, so a candidate costs little
    more than its score.

    Several tasks are searched with one vector, which all of them score; its fitness is then the mean of its
    centered ranks (:func:`centered_ranks`), so that no task's scale drowns another's.

    Args:
        env, seed, elites: see :class:`rledit.Search`.
        least: candidates that the search needs in a population.
        several: whether several tasks can be searched at once.

    Attributes:
        population: N, vectors per update: the engine's candidates.
        dimensions: D = T * A, entries of a vector.

    Raises:
        TypeError, ValueError: see :class:`rledit.Search`; also for too few candidates, several tasks where
            one is expected, or tasks whose vectors do not fit together.
    """

    def __init__(self, env: Any, seed: int, elites: int, *, least: int = 1, several: bool = True) -> None:
        super().__init__(env, seed, integer("elites", elites))
        if len(self.engines) > 1 and not several:
            raise ValueError(
                f"env: expected one world, {type(self).__name__} compares values that must be of one task; "
                f"got {len(self.engines)}"
            )
        for what, sizes in {
            "actions": {engine.layout.size for engine in self.engines},
            "episodes": {engine.episode_length for engine in self.engines},
            "num_envs": {engine.candidates for engine in self.engines},
        }.items():
            if len(sizes) > 1:
                raise ValueError(f"env: expected worlds with the same size of {what}, got {sorted(sizes)}")
        self.population = self.engine.candidates
        if self.population < least:
            raise ValueError(
                f"env: {type(self).__name__} needs at least {least} candidates at a time, "
                f"got {self.population}"
            )
        self.dimensions = self.engine.episode_length * self.engine.layout.size

    # ------------------------------------------------------------------------------ for subclasses

    @abstractmethod
    def ask(self) -> Tensor:
        """A population of vectors, float32 [N, D] on the engine's device."""

    @abstractmethod
    def tell(self, fitness: Tensor) -> dict[str, float]:
        """Learn what the vectors asked for last are worth, float64 [N], larger is better; figures of this
        search for the row, the same names in every update."""

    def start(self, initial_right: float) -> Tensor:
        """Where searches start, float32 [D] on the CPU, see :meth:`rledit.engine.ActionLayout.start`."""
        engine = self.engine
        generator = torch.Generator().manual_seed(self.seed)
        with plain_modes():
            return engine.layout.start(engine.episode_length, initial_right, generator).flatten()

    def noise(self, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers [rows, columns] of the search's generator, on the engine's device."""
        device = self.engine.device
        return torch.randn((rows, columns), generator=self.generator, device=device, dtype=dtype)

    def proposal(self, vector: Tensor, task: int) -> Tensor:
        """A vector [D] as actions [1, T, A] within bounds, on the engine's device."""
        engine = self.engines[task]
        actions = vector.to(engine.device, torch.float32)
        return engine.clip(actions.view(1, engine.episode_length, engine.layout.size))

    # ------------------------------------------------------------------------------------ searching

    @torch.no_grad()
    def step(self) -> Row:
        """Score a population and learn from it.

        Raises:
            SearchEnded: if the vectors are not finite any more.
        """
        started = time.perf_counter()
        with one_thread():
            vectors = self.ask()
            if not bool((vectors.abs() < LARGEST).all()):  # nor NaN
                self.stopped = f"{type(self).__name__} blew up: its vectors are not finite, or nearly so"
                raise SearchEnded(self.stopped)
        actions = vectors.view(self.population, self.engine.episode_length, self.engine.layout.size)
        asked = time.perf_counter()
        returns, metrics = self._score(actions)
        waited = time.perf_counter() - asked
        with one_thread():
            for engine, elites, gained in zip(self.engines, self.elites_of, returns, strict=True):
                best = elites.best(gained)
                elites.add(gained[best], engine.clip(actions[best]))
            own = self.tell(fitness_of(returns))
        elapsed = time.perf_counter() - started
        scored = len(self.engines) * self.population * self.engine.episode_length
        self.candidates += scored
        self.seconds["score"] += waited
        self.seconds["policy"] += elapsed - waited
        return {
            "candidates": float(self.candidates),
            **read(figures(returns, metrics, self.elites.returns[0])),
            **own,
            "seconds_score": waited,
            "seconds_policy": elapsed - waited,
            "candidates_per_second": scored / elapsed,
        }

    def _score(self, actions: Tensor) -> tuple[list[Tensor], Mapping[str, Tensor]]:
        """Returns of every task's candidates, each float64 [N], and the first task's metrics."""
        for engine in self.engines:
            engine.reset()
        returns: list[Tensor] = []
        for t in range(self.engine.episode_length):
            for engine in self.engines:
                engine.start(actions[:, t].contiguous())
            outcomes = [engine.wait() for engine in self.engines]
            rewards = [outcome.rewards for outcome in outcomes]
            returns = [a + b for a, b in zip(returns, rewards, strict=True)] if returns else rewards
        for engine in self.engines:
            engine.reset()
        return returns, outcomes[0].metrics


def fitness_of(returns: Sequence[Tensor]) -> Tensor:
    """One task's returns, or the mean over tasks of their centered ranks; float64 [N]."""
    return (
        returns[0] if len(returns) == 1 else torch.stack([centered_ranks(each) for each in returns]).mean(0)
    )


def centered_ranks(values: Tensor) -> Tensor:
    """Ranks of N values, from -0.5 to 0.5, as in T. Salimans et al. (arXiv:1703.03864, section 2.1).

    Equal values share the mean of their ranks. Returns are counts, so that many are equal, and ranks by
    order would prefer whichever half of a mirrored pair comes first.

    Returns:
        float64 [N], of mean zero; zeros where all values are equal.
    """
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks = (last - counts + last - 1).double() / 2
    centered: Tensor = ranks[place] / max(len(values) - 1, 1) - (0.5 if len(values) > 1 else 0.0)
    return centered
