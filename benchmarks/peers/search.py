"""Each opponent's best setting, found by trial.

A setting is how many candidates are processed at once (``chunk``), in how many blocks the samples are
processed (``blocks``: what one block of a chunk needs may then fit a cache), whether samples are the rows
or the columns (``layout``), and how a prediction is compared to the label (``counting``). All are things
that a user who wants speed from that tool would try. From a middling setting one value is changed at a
time, in the order of ``_moves``, and a change that makes the opponent at least 2 % faster is kept, until
none does or the time is up. Chunks are powers of two up to N.

Trials time a share of the candidates, so that settings that are far from the best cost little; the turns that
are quoted time all of them. The share is as many as take a moment in the first setting: with fewer, the
product that a low-rank opponent makes once would hide what the setting does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from ..scoring import Shape

Run = Callable[[int], Tensor]  # scores the first n candidates: counts [n, G] int64
MOST_BYTES = 2 << 30
BLOCKS = (1, 4, 16)
START_BYTES = 8 << 20  # hidden outputs of the first setting: about what the caches of a core or two hold
GAIN = 1.02


@dataclass(frozen=True)
class Setting:
    chunk: int = 1
    blocks: int = 1
    layout: str = "rows"  # rows: [S, I] @ [I, O]; columns: [O, I] @ [I, S]
    counting: str = "equality"  # has the label the largest logit; argmax: is the largest logit the label's


class Opponent(Protocol):
    name: str
    varies: frozenset[str]  # the fields of Setting that make a difference to it
    start: Setting | None  # where its search begins, if it knows better than the rest

    def configure(self, setting: Setting) -> Run: ...


@dataclass(frozen=True)
class Tuned:
    """An opponent at its best."""

    name: str
    setting: Setting
    run: Run
    rate: float  # candidates per second in the search
    trials: int


def tune(opponent: Opponent, shape: Shape, seconds: float, moment: float) -> Tuned:
    """Search for ``seconds`` at most, but try one setting; a trial takes a moment or more."""
    deadline = time.perf_counter() + seconds
    first = opponent.start or _start(opponent, shape)
    share = _share(opponent.configure(first), first.chunk, shape.candidates, moment)
    tried: set[Setting] = set()

    def attempt(setting: Setting) -> Tuned:
        tried.add(setting)
        run = opponent.configure(setting)
        return Tuned(opponent.name, setting, run, _rate(run, share, moment), len(tried))

    best = attempt(first)
    improved = True
    while improved:
        improved = False
        for setting in _moves(best.setting, opponent):
            if not _fits(setting, shape, share) or setting in tried:
                continue
            if time.perf_counter() > deadline:
                return replace(best, trials=len(tried))
            other = attempt(setting)
            if other.rate > GAIN * best.rate:
                best, improved = other, True
                break
    return replace(best, trials=len(tried))


def _moves(setting: Setting, opponent: Opponent) -> Iterator[Setting]:
    if "layout" in opponent.varies:
        yield replace(setting, layout="columns" if setting.layout == "rows" else "rows")
    if "counting" in opponent.varies:
        yield replace(setting, counting="argmax" if setting.counting == "equality" else "equality")
    together = [(4, 4), (1, 4), (0.25, 0.25), (1, 0.25)] if "blocks" in opponent.varies else []
    if "chunk" in opponent.varies:
        factors = [(4, 1), (0.25, 1), *together, (2, 1), (0.5, 1)]
    else:
        factors = [(chunk, blocks) for chunk, blocks in together if chunk == 1]
    for chunk, blocks in factors:
        yield replace(setting, chunk=int(setting.chunk * chunk), blocks=int(setting.blocks * blocks))


def _fits(setting: Setting, shape: Shape, share: int) -> bool:
    return (
        1 <= setting.chunk <= share
        and setting.blocks in BLOCKS
        and 3 * _hidden_bytes(setting, shape) <= MOST_BYTES
    )


def _hidden_bytes(setting: Setting, shape: Shape) -> int:
    return 4 * setting.chunk * (shape.samples // setting.blocks) * max(shape.outputs, shape.classes)


def _start(opponent: Opponent, shape: Shape) -> Setting:
    if "chunk" not in opponent.varies:
        return Setting()
    chunk = 1
    while 2 * chunk <= shape.candidates and _hidden_bytes(Setting(2 * chunk), shape) <= START_BYTES:
        chunk *= 2
    return Setting(chunk)


def _share(run: Run, chunk: int, candidates: int, moment: float) -> int:
    """How many candidates a trial scores."""
    share = min(max(4, chunk), candidates)
    while share < candidates:
        run(share)
        started = time.perf_counter()
        run(share)
        if time.perf_counter() - started >= moment:
            break
        share = min(4 * share, candidates)
    return share


def _rate(run: Run, share: int, moment: float) -> float:
    """Candidates per second, the best of as many calls as fit; the first call warms up and compiles."""
    run(share)
    best = float("inf")
    started = time.perf_counter()
    while best == float("inf") or time.perf_counter() - started < moment:
        before = time.perf_counter()
        run(share)
        best = min(best, time.perf_counter() - before)
    return share / best
