"""Which edit is returned: the best on the validation split among a search's proposals and the elites."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..engine import Engine, Replay
from ..objectives.base import name_of
from .elites import Elites
from .result import Selection

logger = logging.getLogger("rledit")

SHRINKAGE = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""What is left of an edit's size where the objective has a constraint that small edits keep."""

ASKED = 2
"""Of each size so many edits, the best ones, are put to an objective that judges sample by sample."""

ENOUGH = 0.99
"""Share of the improvement that a smaller version of an edit must keep to be preferred to it."""


@torch.no_grad()
def select(engine: Engine, proposals: Mapping[str, Tensor], elites: Elites) -> Selection:
    """The edit with the largest objective on the validation split.

    Proposals come first, so they win ties: a policy's mean averages over many candidates, the elites are the
    luckiest of thousands. The unedited model comes last: an edit that does not improve it is none.

    An objective with a constraint is held to it: only edits count that keep it on the validation split. A
    constraint of what may be lost, which the unedited model keeps, is kept by smaller versions of every edit
    sooner than by the edit itself, so they are compared, too. Of the best edit, the smallest version is taken
    that keeps nearly all of its improvement: what an edit does beyond that, it does to samples that have not
    been measured. (The one-standard-error rule of L. Breiman et al., Classification and Regression Trees,
    1984, has the same reason.)

    An objective that judges sample by sample (:meth:`rledit.Objective.confirmation`) is asked about the best
    edits of each size, in order, until one passes; where none does, there is no edit.

    Where no edit reaches a level that the unedited model exceeds as well, the best in value is returned with
    a warning; its choice says ``admissible: 0``.

    Args:
        proposals: actions [1, T, A] within bounds, by origin.
    """
    edits = torch.cat([*proposals.values(), elites.actions])
    origins = [*proposals, *(f"elite {i}" for i in range(1, len(elites.actions) + 1))]
    objective = engine.task.objective
    shares = SHRINKAGE if objective.constrained and objective.unedited_admissible else ()
    actions = torch.cat(
        [
            edits,
            *(engine.shrunk(edits, share) for share in shares),
            edits.new_zeros(1, engine.episode_length, engine.layout.size),
        ]
    )
    origins += [f"{origin}, shrunk to {share:g}" for share in shares for origin in origins]
    origins.append("no edit")
    replay = engine.replay(actions, "validation")
    admissible = _admissible(replay, objective.unedited_admissible)
    if not bool(admissible.any()):
        logger.warning(
            "No edit keeps the constraint of %s on the validation split; the best in value is returned.",
            name_of(objective),
        )
    values = replay.outcome.values
    counting = values.where(admissible, -torch.inf) if bool(admissible.any()) else values
    ranking = torch.sort(counting, descending=True, stable=True).indices.tolist()
    confirmed = _judge(engine, actions)
    best = _first(ranking, engine, actions, confirmed, len(edits))
    choices = _choices(replay, admissible)
    if shares and best < len(actions) - 1:
        reached = [choice["value"] for choice in choices]
        enough = replay.initial_value + ENOUGH * (reached[best] - replay.initial_value)
        versions = range(best % len(edits), len(actions) - 1, len(edits))  # from large to small
        smallest = (i for i in reversed(versions) if choices[i]["admissible"] and reached[i] >= enough)
        best = next(i for i in smallest if i == best or confirmed(i))
    before = {**replay.initial_metrics, "value": replay.initial_value}
    after = {name: choices[best][name] for name in before}
    edit = engine.edit(
        actions[best], {"validation": {"before": before, "after": after}, "origin": origins[best]}
    )
    return Selection(edit, origins[best], choices)


def _judge(engine: Engine, actions: Tensor) -> Callable[[int], bool]:
    """Whether the objective, which judges sample by sample, lets one of the actions [K, T, A] pass."""
    objective, samples = engine.task.objective, engine.task.validation
    if not objective.confirms:
        return lambda _: True
    judge = objective.confirmation(samples, engine.logits(actions[0, :0], "validation"))
    if judge is None:
        return lambda _: True
    known: dict[int, bool] = {}

    def confirmed(i: int) -> bool:
        if i not in known:
            known[i] = judge(engine.logits(actions[i], "validation"))
        return known[i]

    return confirmed


def _first(
    ranking: Sequence[int], engine: Engine, actions: Tensor, confirmed: Callable[[int], bool], edits: int
) -> int:
    """The first that stays finite and is confirmed; the last of the actions, no edit, needs to be neither."""
    unedited = len(actions) - 1
    asked = Counter[int]()
    for i in ranking:
        if not engine.keeps_finite(actions[i]):
            continue
        if i == unedited:
            break
        size = i // edits
        if asked[size] < ASKED:
            asked[size] += 1
            if confirmed(i):
                return i
    return unedited


def _admissible(replay: Replay, unedited: bool) -> Tensor:
    """Bool [K], the last being the unedited model, which where it is said to be is admissible whatever
    rounding says."""
    if replay.admissible is None:
        return torch.ones_like(replay.outcome.values, dtype=torch.bool)
    kept = replay.admissible.clone()
    kept[-1] |= unedited
    return kept


def _choices(replay: Replay, admissible: Tensor) -> list[dict[str, float]]:
    outcome = replay.outcome
    figures = {**outcome.metrics, "value": outcome.values, "admissible": admissible.double()}
    columns = {name: figure.tolist() for name, figure in figures.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(admissible))]
