"""One line of the table: everybody at his best, checked, and then turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from . import limit, opponents_jax, opponents_torch, search, turns
from .reference import Truth, tolerance
from .report import Row
from .shapes import Problem

LEAST_TURNS = 3
SEARCHING = 0.6  # the share of the time that finding the settings may take
MOMENT = 1 / 500  # of the time: what is shorter is repeated; 0.15 s in a whole run


def compare(
    problem: Problem,
    precision: str,
    known: Truth,
    *,
    budget: float,
    most_turns: int,
    compiled: bool,
    inference: bool,
) -> Row:
    """Measure one problem in one precision in about ``budget`` seconds.

    Raises:
        SystemExit: if anybody's counts are wrong.
    """
    shape = problem.shape
    started, moment = time.perf_counter(), MOMENT * budget
    allowed = tolerance(problem, precision)
    scorer = problem.task().scorer("native", precision=precision)
    factors = {"fc1": (problem.left, problem.right)}

    def ours() -> Tensor:
        return scorer.score(factors, problem.world, problem.scale).counts.correct

    known.check("rledit", ours(), allowed)
    opponents, missing = _opponents(problem, precision, compiled)
    tuned = _tune(opponents, problem, known, allowed, SEARCHING * budget, moment)
    runs: dict[str, Callable[[], object]] = {"rledit": ours}
    runs |= {name: partial(opponent.run, shape.candidates) for name, opponent in tuned.items()}
    if inference:
        unedited = opponents_torch.Inference("inference", problem, precision)
        plain = search.tune(unedited, shape, budget / 20, moment)
        runs["inference"] = partial(plain.run, shape.candidates)
    used = turns.take_turns(
        runs, {"rledit", "inference"}, min(LEAST_TURNS, most_turns), most_turns, started + budget, moment
    )
    rates = {name: shape.candidates / turns.median_seconds(used, name) for name in runs}
    best = max(tuned, key=lambda name: rates[name])
    row: Row = {
        "network": str(shape),
        "N": shape.candidates,
        "rank": shape.rank,
        "world": problem.world,
        "precision": precision,
        "rledit": rates["rledit"],
        "best": best,
        "ratio": turns.median_ratio(used, best, "rledit"),
        "limit": {
            "operations": limit.operations(shape, problem.world),
            "bytes": limit.moved_bytes(shape),
        },
        "opponents": {
            name: {
                "rate": rates[name],
                "setting": asdict(opponent.setting),
                "trials": opponent.trials,
                "turns": sum(name in turn.times for turn in used),
            }
            for name, opponent in tuned.items()
        }
        | {name: {"missing": why} for name, why in missing.items()},
        "samples_near_a_tie": known.band(allowed),
        "turns": len(used),
        "others": max(turn.others for turn in used),
    }
    if inference:
        row["inference"] = {
            "share": turns.median_ratio(used, "inference", "rledit"),
            "setting": asdict(plain.setting),
        }
    return row | {"seconds": time.perf_counter() - started}


def _opponents(
    problem: Problem, precision: str, compiled: bool
) -> tuple[list[search.Opponent], dict[str, str]]:
    """The opponents that can take part, the compiled ones last, and why others cannot."""
    eager = opponents_torch.opponents(problem, precision)
    there: list[search.Opponent] = [*eager]
    missing = {}
    if why := opponents_jax.missing():
        missing["JAX"] = why
    else:
        there += opponents_jax.opponents(problem, precision)
    if compiled:
        again = opponents_torch.compiled(eager)
        if why := opponents_torch.cannot_compile():
            missing |= {opponent.name: why for opponent in again}
        else:
            there += again
    return there, missing


def _tune(
    opponents: list[search.Opponent],
    problem: Problem,
    known: Truth,
    allowed: float,
    budget: float,
    moment: float,
) -> dict[str, search.Tuned]:
    """Everybody at his best, checked on all candidates."""
    torch._dynamo.reset()
    tuned: dict[str, search.Tuned] = {}
    for opponent in opponents:
        if isinstance(opponent, opponents_torch.Compiled):
            opponent.start = tuned[opponent.original].setting
        best = search.tune(opponent, problem.shape, budget / len(opponents), moment)
        known.check(opponent.name, best.run(problem.shape.candidates), allowed)
        tuned[opponent.name] = best
    return tuned
