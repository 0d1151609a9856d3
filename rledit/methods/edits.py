"""rledit's own rows: an edit that a search has found."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from ..objectives import Unlearning
from ..ops.rules import Kind
from ..ppo import PPO
from ..search import Search
from ..task import Task
from ..worlds import WORLDS
from .base import Budget, MethodFunction, MethodResult, UnlearningProblem, method

RANK = 4

SearchFactory = Callable[[Any, int], Search]
"""From a world and a seed to a search."""


def edit_method(
    name: str,
    title: str,
    world: Kind,
    search: SearchFactory,
    *,
    source: str = "Malik 2026, arXiv:2606.13461",
) -> MethodFunction:
    """Enter a search over edits of the problem's targets into :data:`rledit.methods.METHODS`.

    The edit has rank 4, or the full rank of a smaller target, and is found for :class:`rledit.Unlearning` on
    the reward split with ``budget.candidates`` evaluations; the validation split picks it, as everywhere in
    rledit.

    Args:
        name, title, source: as :func:`rledit.methods.base.method` has them.
        world: "mask" or "shift".
        search: makes the search.

    Raises:
        ValueError: for a name that is taken.
    """

    @method(name, title=title, source=source, needs=("forget data", "retain data"))
    def run(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
        task = Task(
            problem.model,
            targets=problem.targets,
            samples=problem.reward,
            objective=Unlearning(),
            validation=problem.validation,
        )
        rank = min(RANK, *(min(weight.shape) for weight in task.weights().values()))
        env = WORLDS[world](task, num_envs=128, rank=rank, final_obs=False)
        result = search(env, seed).train(budget.candidates)
        model = deepcopy(problem.model).eval()
        result.edit.apply_(model)
        return MethodResult(
            model,
            result.edit,
            evaluations=result.candidates,
            settings={"world": world, "rank": rank, "origin": result.origin},
        )

    return run


rledit_mask = edit_method("rledit_mask", "rledit, mask", "mask", lambda env, seed: PPO(env, seed=seed))
rledit_shift = edit_method("rledit_shift", "rledit, shift", "shift", lambda env, seed: PPO(env, seed=seed))
