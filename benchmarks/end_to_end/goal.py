"""What is to be reached, and what a run that aims at it reports. The same for every contestant."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

ORIGINS = ("policy mean", "best candidate")
"""The two actions that are checked on the validation split after every update, in this order."""


@dataclass(frozen=True)
class Goal:
    """Accuracies on the validation split at which time stops, and when to give up."""

    forget: float = 0.005
    retain: float = 0.985
    limit_seconds: float = 900.0
    limit_updates: int | None = None

    def met(self, forget: float, retain: float) -> bool:
        return forget <= self.forget and retain >= self.retain


@dataclass
class Outcome:
    """A run that has ended.

    Attributes:
        reached: whether the goal was met; if not, the figures are those of the best of the last check.
        seconds: wall time of editing, checks included.
        setup_seconds: wall time before it: caching activations, building environments and agent.
        check_seconds: the part of ``seconds`` that the checks took.
        cpu_seconds: processor time of the process during ``seconds``. Far from wall time times threads, the
            machine was busy with something else.
        threads: how many threads torch had.
        origin: which of the two actions it was, one of ORIGINS.
        forget, retain: its accuracies on the validation split.
    """

    contestant: str
    world: str
    seed: int
    setup_seconds: float
    reached: bool = False
    seconds: float = 0.0
    check_seconds: float = 0.0
    cpu_seconds: float = 0.0
    updates: int = 0
    candidates: int = 0
    threads: int = 0
    origin: str = ""
    forget: float = 1.0
    retain: float = 0.0


@dataclass
class Stopwatch:
    """Keeps the time of one run, and knows when it is over.

    Checks are part of the time: every contestant makes the same one, of two actions, at the same point of its
    loop (after an update of the policy, before the next candidates).
    """

    goal: Goal
    outcome: Outcome
    _started: float = field(default_factory=time.perf_counter)
    _cpu: float = field(default_factory=time.process_time)

    def check(self, accuracies: Iterable[tuple[float, float]], began: float, candidates: int) -> bool:
        """Note a check; returns whether the run is over.

        Args:
            accuracies: forget and retain of each of ORIGINS on the validation split.
            began: ``time.perf_counter()`` from before they were computed.
            candidates: how many each update scores.
        """
        rows = [(*pair, origin) for pair, origin in zip(accuracies, ORIGINS, strict=True)]
        # one that meets the goal before one that does not, then the better by the objective
        best = max(rows, key=lambda row: (self.goal.met(*row[:2]), row[1] - row[0]))
        outcome = self.outcome
        outcome.forget, outcome.retain, outcome.origin = best
        outcome.reached = self.goal.met(*best[:2])
        outcome.updates += 1
        outcome.candidates += candidates
        now = time.perf_counter()
        outcome.check_seconds += now - began
        outcome.seconds = now - self._started
        outcome.cpu_seconds = time.process_time() - self._cpu
        return (
            outcome.reached
            or outcome.seconds >= self.goal.limit_seconds
            or outcome.updates == self.goal.limit_updates
        )
