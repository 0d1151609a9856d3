"""A search: any way to spend candidates. What all of them share: budget, callback, state, and the choice of
the edit."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..checks import integer
from ..engine import Engine, engine_of
from ..runtime import one_thread, plain_modes
from ..storage.files import Json
from .elites import Elites
from .result import INTERRUPTED, Result, Row
from .selection import select

logger = logging.getLogger("rledit")

State = tuple[dict[str, Tensor], dict[str, Json]]
"""Tensors and JSON that a later process can go on from."""


class SearchEnded(Exception):
    """There is nothing left to search with; :attr:`Search.stopped` says why."""


class Search(ABC):
    """Spends candidates on one task, or on several at once.

    A subclass implements :meth:`step`, which scores a batch of candidates of each engine, learns from them,
    and calls :meth:`spent`; :meth:`proposals`; and what of its state :meth:`learned` and :meth:`learn_again`
    carry. Everything else is here.

    Args:
        env: what candidates are scored by: a world, an engine, or a sequence of them.
        seed: seed of everything random.
        elites: best candidates that are remembered for the choice on the validation split.

    Attributes:
        engines: engines of all tasks; ``engine`` is the first.
        generator: random numbers, on the engine's device.
        history: a row of figures per update.
        candidates: scored so far.
        seconds: spent on "score" and "policy".
        stopped: why the search ended before its budget, or "".

    Raises:
        TypeError: for an environment that is not one of rledit's worlds.
        ValueError: for a negative seed, no engine, or engines on different devices.
    """

    def __init__(self, env: Any, seed: int, elites: int) -> None:
        several = isinstance(env, (list, tuple))
        self.engines: list[Engine] = [engine_of(each) for each in env] if several else [engine_of(env)]
        if not self.engines:
            raise ValueError("env: expected at least one world, got none")
        if len({engine.device for engine in self.engines}) > 1:
            raise ValueError("env: expected worlds on one device, got several")
        self.env = env
        self.engine = self.engines[0]
        self.seed = integer("seed", seed, least=0)
        self.generator = torch.Generator(self.engine.device).manual_seed(self.seed)
        self.elites_of = [
            Elites(elites, engine.episode_length, engine.layout.size, engine.device)
            for engine in self.engines
        ]
        self.history: list[Row] = []
        self.candidates = 0
        self.seconds = {"score": 0.0, "policy": 0.0}
        self.stopped = ""
        self._resting: State | None = None  # while an update is under way: the state before it

    @property
    def elites(self) -> Elites:
        """The elites of the first task."""
        return self.elites_of[0]

    def __repr__(self) -> str:
        engines = "; ".join(engine.describe() for engine in self.engines)
        return f"{type(self).__name__}({engines}; seed {self.seed}, {self.candidates:,} candidates scored)"

    # ------------------------------------------------------------------------------ for subclasses

    @abstractmethod
    def step(self) -> Row:
        """Score a batch of candidates of each engine and learn from it; the row of figures that it gave.

        Raises:
            SearchEnded: if there is nothing left to search with; :attr:`stopped` says so, too.
        """

    @abstractmethod
    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """What is compared with the elites of one task: actions [1, T, A] within bounds, by origin."""

    @abstractmethod
    def settings(self) -> dict[str, Json]:
        """All that must be the same for a state to fit, besides the engines and the seed."""

    @abstractmethod
    def learned(self) -> State:
        """What has been learned. The tensors must not change afterwards."""

    @abstractmethod
    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take on what :meth:`learned` gave."""

    # ------------------------------------------------------------------------------------ searching

    def train(
        self, candidates: int | float = 20_000, on_update: Callable[[Row], Any] | None = None
    ) -> Result:
        """Score at least this many candidates, then choose the edit.

        Ctrl-C ends the search with the best edit so far. If it comes during an update, the update is taken
        back: :meth:`state` is always one between two updates.

        Args:
            candidates: budget over the whole life of this search; a larger one extends it.
            on_update: called with each update's row; may raise KeyboardInterrupt to stop.

        Raises:
            ValueError: for a budget below 1.
        """
        whole = isinstance(candidates, float) and candidates.is_integer()  # 1e5
        budget = integer("candidates", int(candidates) if whole else candidates)
        if self.stopped == INTERRUPTED:
            self.stopped = ""
        try:
            while self.candidates < budget and not self.stopped:
                row = self.update()
                if on_update is not None:
                    on_update(row)
        except KeyboardInterrupt:
            self._resume()  # or the state before would take the place of what is said next
            if not self.history:
                raise  # nothing has been learned yet
            self.stopped = INTERRUPTED
        except SearchEnded as error:
            logger.warning("%s", error)
        return self.result()

    def update(self) -> Row:
        """One batch of candidates; returns its row of figures.

        Whatever ends it early, be it Ctrl-C or an error while scoring, the search is as it was before.

        Raises:
            SearchEnded: if there is nothing left to search with; :attr:`stopped` says so, too.
        """
        # Beside the core's threads, torch's would wait for each other longer than they work.
        alone = one_thread() if any(engine.overlaps for engine in self.engines) else nullcontext()
        with plain_modes(grad=True), alone:
            self._resume()
            self._resting = self._state()
            try:
                row = {"update": float(len(self.history) + 1), **self.step()}
            except SearchEnded:
                self._resting = None  # what it has learned of its end is kept
                raise
            except BaseException:
                self._resume()
                raise
        self.history.append(row)
        self._resting = None
        return row

    def _resume(self) -> None:
        """Take back an update that did not finish."""
        if self._resting is not None:
            for engine in self.engines:
                engine.reset()
            self._load(*self._resting)
            self._resting = None

    def result(self) -> Result:
        """The best edit so far; the search can go on afterwards."""
        self._resume()
        with plain_modes():
            selections = [
                select(engine, self.proposals(task), self.elites_of[task])
                for task, engine in enumerate(self.engines)
            ]
        return Result(
            edit=selections[0].edit,
            origin=selections[0].origin,
            choices=selections[0].choices,
            history=list(self.history),
            candidates=self.candidates,
            seconds=dict(self.seconds),
            stopped=self.stopped,
            selections=selections,
        )

    def close(self) -> None:
        """End the engines' workers."""
        for engine in self.engines:
            engine.close()

    # ---------------------------------------------------------------------------------------- state

    def identity(self) -> dict[str, Json]:
        """What must be the same for a state to fit."""
        tasks: list[Json] = [engine.identity() for engine in self.engines]
        return {"search": type(self).__name__, "seed": self.seed, **self.settings(), "tasks": tasks}

    def state(self) -> State:
        """Everything that a later process needs to go on as if nothing had happened: of the last moment
        between two updates, also while one is under way or was cut off.

        Tensors are on any device; of the JSON, floats are finite.
        """
        tensors, state = self._state() if self._resting is None else self._resting
        tensors = dict(tensors)
        for task, engine in enumerate(self.engines):
            tensors |= {f"{task}.{name}": value for name, value in engine.tensors().items()}
        rows = self.history[: int(state["updates"])]  # type: ignore[arg-type]
        columns = list(rows[0]) if rows else []
        tensors["history"] = torch.tensor(
            [[row[name] for name in columns] for row in rows], dtype=torch.float64, device="cpu"
        ).view(len(rows), len(columns))
        return tensors, {**state, "columns": list(columns), "identity": self.identity()}

    def _state(self) -> State:
        """The state at this moment, without what never changes and the rows of the history."""
        learned, more = self.learned()
        tensors = {f"learned.{name}": value for name, value in learned.items()}
        tensors["generator"] = self.generator.get_state()
        for task, elites in enumerate(self.elites_of):
            tensors[f"{task}.elites.returns"] = elites.returns
            tensors[f"{task}.elites.actions"] = elites.actions
        return tensors, {
            "learned": more,
            "updates": len(self.history),
            "candidates": self.candidates,
            "seconds": dict(self.seconds),
            "stopped": self.stopped,
        }

    def _load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take on what :meth:`_state` gave."""
        learned = {
            name.removeprefix("learned."): value
            for name, value in tensors.items()
            if name.startswith("learned.")
        }
        self.learn_again(learned, state["learned"])
        self.generator.set_state(tensors["generator"])
        for task, elites in enumerate(self.elites_of):
            elites.load(tensors[f"{task}.elites.returns"], tensors[f"{task}.elites.actions"])
        del self.history[int(state["updates"]) :]
        self.candidates = state["candidates"]
        self.seconds = dict(state["seconds"])
        self.stopped = state["stopped"]

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from :meth:`state` of a search with the same tasks, seed and settings.

        Raises:
            ValueError: if it belongs to another one, or lacks something. The search is then as it was.
        """
        before = self._state() if self._resting is None else self._resting
        history = self.history
        try:
            if "identity" not in state:
                raise ValueError("checkpoint: it was written by another version of rledit")
            if other := differences(state["identity"], self.identity()):
                raise ValueError(f"checkpoint: it does not belong to this search ({'; '.join(other)})")
            for task, engine in enumerate(self.engines):
                prefix = f"{task}."
                engine.check_tensors(
                    {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                )
            columns = state["columns"]
            self.history = [dict(zip(columns, row, strict=True)) for row in tensors["history"].tolist()]
            self._resting = None
            self._load(tensors, state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self.history = history
            self._load(*before)
            if str(error).startswith("checkpoint: "):
                raise
            raise ValueError(f"checkpoint: it does not belong to this search ({error})") from error


def differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, each with its name."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        keys = dict.fromkeys([*ours, *theirs])
        prefix = f"{name}." if name else ""
        return [
            line
            for key in keys
            for line in differences(theirs.get(key, "(absent)"), ours.get(key, "(absent)"), f"{prefix}{key}")
        ]
    if isinstance(theirs, (list, tuple)) and isinstance(ours, (list, tuple)) and len(theirs) == len(ours):
        return [
            line
            for i, pair in enumerate(zip(theirs, ours, strict=True))
            for line in differences(*pair, f"{name}[{i}]")
        ]
    return [] if theirs == ours else [f"{name}: {theirs!r}, here {ours!r}"]
