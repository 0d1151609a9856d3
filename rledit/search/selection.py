"""Which edit is returned: the best on the validation split among a search's proposals and the elites."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ..engine import Engine, Replay
from ..objectives.base import name_of
from .elites import Elites
from .result import Selection

logger = logging.getLogger("rledit")

SHRINKAGE = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""What is left of an edit's size where the objective has a constraint that small edits keep."""

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
    best = next(i for i in ranking if engine.keeps_finite(actions[i]))
    choices = _choices(replay, admissible)
    if shares and best < len(actions) - 1:
        reached = [choice["value"] for choice in choices]
        enough = replay.initial_value + ENOUGH * (reached[best] - replay.initial_value)
        versions = range(best % len(edits), len(actions) - 1, len(edits))  # from large to small
        best = max(i for i in versions if choices[i]["admissible"] and reached[i] >= enough)
    before = {**replay.initial_metrics, "value": replay.initial_value}
    after = {name: choices[best][name] for name in before}
    edit = engine.edit(
        actions[best], {"validation": {"before": before, "after": after}, "origin": origins[best]}
    )
    return Selection(edit, origins[best], choices)


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
