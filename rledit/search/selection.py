"""Which edit is returned: the best on the validation split among the policy mean and the elites."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..engine.episodes import Episodes, Outcome
from ..objectives.base import admissible_of
from ..policies.gaussian import Agent
from ..ppo.rollout import Rollout
from ..storage.files import Json
from ..worlds import World


class Elites:
    """The candidates with the largest returns so far, best first; of equals the earlier one.

    Attributes:
        returns: float64 [k].
        actions: float32 [k, T, A], clipped to the world's bounds.
    """

    def __init__(self, size: int, steps: int, actions: int, device: torch.device | str = "cpu") -> None:
        self._size = size
        self.returns = torch.empty(0, dtype=torch.float64, device=device)
        self.actions = torch.empty(0, steps, actions, device=device)

    def add(self, rollout: Rollout, world: World) -> None:
        best = torch.sort(rollout.returns, descending=True, stable=True).indices[: self._size]
        returns = torch.cat([self.returns, rollout.returns[best]])
        actions = torch.cat([self.actions, world.clip(rollout.actions[:, best].transpose(0, 1))])
        order = torch.sort(returns, descending=True, stable=True).indices[: self._size]
        self.returns, self.actions = returns[order], actions[order]

    def load(self, returns: Tensor, actions: Tensor) -> None:
        self.returns, self.actions = returns.to(self.returns.device), actions.to(self.actions.device)


@torch.no_grad()
def mean_actions(world: World, agent: Agent) -> Tensor:
    """The actions [1, T, A] of an episode in which the policy takes its mean."""
    actions = [world.clip(agent.policy(world.initial_observation))]
    weights: dict[str, Tensor] | None = None
    for _ in range(world.episode_length - 1):
        weights = world.episodes.edited(actions[-1], weights)
        actions.append(world.clip(agent.policy(world.observe(weights))))
    return torch.stack(actions, dim=1)


def replay(world: World, actions: Tensor, split: str) -> tuple[Episodes, Outcome]:
    """Score episodes of known actions [K, T, A] on a split; the outcome is the last step's."""
    scorer = world.task.scorer(world.episodes.scorer.backend, world.episodes.scorer.precision, split)
    episodes = Episodes(scorer, world.layout, world.rule, world.episode_length)
    for t in range(world.episode_length):
        outcome = episodes.step(actions[:, t]).check()
    return episodes, outcome


SHRINKAGE = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""What is left of an edit's size where the objective has a constraint."""


ENOUGH = 0.99
"""Of the improvement, which a smaller version of an edit must keep to be preferred to it."""


@dataclass(frozen=True)
class Selection:
    """The chosen edit.

    Attributes:
        edit: its ``metrics`` have those of the validation split before and after, and the origin.
        origin: "policy mean", "elite k", either of them "shrunk to x", or "no edit".
        choices: validation metrics of everything that was compared, and "value" and "admissible" (1 or 0).
    """

    edit: Edit
    origin: str
    choices: list[dict[str, float]]


@torch.no_grad()
def select(world: World, agent: Agent, elites: Elites) -> Selection:
    """The edit with the largest objective on the validation split.

    The policy mean comes first, so it wins ties: it is an average over many candidates, the elites are the
    luckiest of thousands. The unedited model comes last: an edit that does not improve it is none. An agent
    that has never been sound has no mean.

    An objective with a constraint (:attr:`rledit.Objective.constrained`) is kept to it: what the reward split
    allows may be too much for the validation split, so smaller versions of every edit are compared, too, and
    only those that keep the constraint count. Of the best edit, the smallest version is taken that keeps
    nearly all of its improvement: what an edit does beyond need, it does to samples that nobody has measured.
    (The rule of one standard error of L. Breiman et al., Classification and Regression Trees, 1984, has the
    same reason.)
    """
    origins, actions = [f"elite {i}" for i in range(1, len(elites.actions) + 1)], elites.actions
    if agent.finite():
        origins.insert(0, "policy mean")
        actions = torch.cat([mean_actions(world, agent), actions])
    whole = len(actions)
    constrained = world.task.objective.constrained
    shares = SHRINKAGE if constrained else ()
    origins += [f"{origin}, shrunk to {share:g}" for share in shares for origin in origins]
    origins.append("no edit")
    smaller = [_shrunk(world, actions, share) for share in shares]
    actions = torch.cat([actions, *smaller, elites.actions.new_zeros(1, *elites.actions.shape[1:])])
    episodes, outcome = replay(world, actions, "validation")
    admissible = torch.ones(len(actions), dtype=torch.bool, device=world.device)
    if constrained:
        kept = admissible_of(episodes.scorer.objective, outcome.tally)
        if kept is not None:
            admissible = kept.to(world.device)  # it may compute on the host
        admissible[-1] = True  # the unedited model, whatever rounding says
    ranking = torch.sort(
        outcome.values.where(admissible, -torch.inf), descending=True, stable=True
    ).indices.tolist()
    best = next(i for i in ranking if _applicable(world, actions[i]))
    figures = {**outcome.metrics, "value": outcome.values, "admissible": admissible.double()}
    columns = {name: figure.tolist() for name, figure in figures.items()}
    if constrained and best < len(actions) - 1:
        values = columns["value"]
        enough = episodes.initial_value + ENOUGH * (values[best] - episodes.initial_value)
        versions = range(best % whole, len(actions) - 1, whole)  # from large to small
        best = max(i for i in versions if columns["admissible"][i] and values[i] >= enough)
    origin = origins[best]
    edit = world.edit(actions[best])
    compared = [{name: column[i] for name, column in columns.items()} for i in range(len(actions))]
    before: dict[str, Json] = {**episodes.initial_metrics, "value": episodes.initial_value}
    after: dict[str, Json] = {name: compared[best][name] for name in before}
    edit.metrics["validation"] = {"before": before, "after": after}
    edit.metrics["origin"] = origin
    return Selection(edit, origin, compared)


def _shrunk(world: World, actions: Tensor, share: float) -> Tensor:
    """The actions [K, T, A] with every change of the weights scaled."""
    return torch.where(world.layout.right_mask().to(actions.device), actions, share * actions)


def _applicable(world: World, actions: Tensor) -> bool:
    """Whether the weights stay finite under the actions [T, A] of one episode."""
    weights = None
    for action in actions:
        weights = world.episodes.edited(action[None], weights)
    assert weights is not None
    return all(bool(weight.isfinite().all()) for weight in weights.values())
