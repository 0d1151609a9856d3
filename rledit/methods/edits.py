"""rledit's own rows: an edit that a search has found."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from ..objectives import Unlearning
from ..ops.rules import Kind
from ..ppo import PPO
from ..search import ES, GradientSearch, Search
from ..task import Task
from ..worlds import WORLDS
from .base import Budget, MethodFunction, MethodResult, Need, UnlearningProblem, method

RANK = 4

SearchFactory = Callable[[Any, int], Search]
"""A function from a world and a seed to a search."""


def edit_method(
    name: str,
    title: str,
    world: Kind,
    search: SearchFactory,
    *,
    source: str = "Malik 2026, arXiv:2606.13461",
    objective: Unlearning | None = None,
    needs: tuple[Need, ...] = ("forget data", "retain data"),
    at_most: int | None = None,
) -> MethodFunction:
    """Enter a search over edits of the problem's targets into :data:`rledit.methods.METHODS`.

    The edit has rank 4, or the full rank of a smaller target, and is found for an objective on the reward
    split with ``budget.candidates`` evaluations; the validation split picks it, as everywhere in rledit.

    Args:
        name, title, source: as :func:`rledit.methods.base.method` has them.
        world: "mask" or "shift".
        search: makes the search.
        objective: by default :class:`rledit.Unlearning` without levels.
        needs: as :func:`rledit.methods.base.method` has them.
        at_most: evaluations, for a search that is done before others are; None for the whole budget.

    Raises:
        ValueError: for a name that is taken.
    """

    @method(name, title=title, source=source, needs=needs)
    def run(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
        task = Task(
            problem.model,
            targets=problem.targets,
            samples=problem.reward,
            objective=objective or Unlearning(),
            validation=problem.validation,
        )
        rank = min(RANK, *(min(weight.shape) for weight in task.weights().values()))
        env = WORLDS[world](task, num_envs=min(128, budget.candidates), rank=rank, final_obs=False)
        result = search(env, seed).train(min(budget.candidates, at_most or budget.candidates))
        model = deepcopy(problem.model).eval()
        result.edit.apply_(model)
        return MethodResult(
            model,
            result.edit,
            evaluations=result.candidates + len(result.choices),  # those on the validation split, too
            settings={"world": world, "rank": rank, "origin": result.origin},
        )

    return run


def _ppo(env: Any, seed: int) -> Search:
    return PPO(env, seed=seed)


def _es(env: Any, seed: int) -> Search:
    return ES(env, seed=seed)


def _gradient(env: Any, seed: int) -> Search:
    return GradientSearch(env, seed=seed)


AUDITED = Unlearning(probe=0.95, nearest=0.95)
"""Besides the accuracies, neither a ridge probe nor the nearest class mean may recall more than 95% of what
is forgotten."""

AUDITED_SOFTLY = Unlearning(probe=0.9, nearest=0.9, classifier="logistic")
"""The same with the probe that is harder to deceive, at somewhat lower levels: an edit that is at a level
by soft values is near it, on either side, by counts."""

GRADIENTS = 1100
"""Evaluations of a search by gradients, 500 steps of two restarts and their scores: more changed little on
the validation split of class 7, seed 0."""

rledit_mask = edit_method("rledit_mask", "rledit, mask", "mask", _ppo)
rledit_shift = edit_method("rledit_shift", "rledit, shift", "shift", _ppo)
rledit_mask_levels = edit_method(
    "rledit_mask_levels",
    "rledit, mask, with levels",
    "mask",
    _ppo,
    objective=AUDITED,
)
rledit_shift_levels = edit_method(
    "rledit_shift_levels",
    "rledit, shift, with levels",
    "shift",
    _ppo,
    objective=AUDITED,
)
rledit_shift_es = edit_method(
    "rledit_shift_es",
    "rledit, shift, by evolution strategies",
    "shift",
    _es,
    source="Salimans et al. 2017, arXiv:1703.03864",
)

_by_gradients = partial(
    edit_method,
    search=_gradient,
    source="differentiated probes, see rledit.GradientSearch",
    objective=AUDITED_SOFTLY,
    needs=("gradients", "forget data", "retain data"),
    at_most=GRADIENTS,
)
rledit_mask_gradient = _by_gradients(
    "rledit_mask_gradient", "rledit, mask, with levels, by gradients", "mask"
)
rledit_shift_gradient = _by_gradients(
    "rledit_shift_gradient", "rledit, shift, with levels, by gradients", "shift"
)
