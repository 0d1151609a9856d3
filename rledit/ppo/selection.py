"""Which edit is returned: the best on the validation split among the policy mean and the elites."""

from __future__ import annotations

import torch
from torch import Tensor

from ..edit import Edit
from ..files import Json
from ..worlds import World
from ..worlds.episodes import Episodes, Outcome
from .policy import Agent
from .rollout import Rollout


class Elites:
    """The candidates with the largest returns so far, best first; of equals the earlier one.

    Attributes:
        returns: float64 [k].
        actions: float32 [k, T, A], clipped to the world's bounds.
    """

    def __init__(self, size: int, steps: int, actions: int) -> None:
        self._size = size
        self.returns = torch.empty(0, dtype=torch.float64)
        self.actions = torch.empty(0, steps, actions)

    def add(self, rollout: Rollout, world: World) -> None:
        best = torch.sort(rollout.returns, descending=True, stable=True).indices[: self._size]
        returns = torch.cat([self.returns, rollout.returns[best]])
        actions = torch.cat([self.actions, world.clip(rollout.actions[:, best].transpose(0, 1))])
        order = torch.sort(returns, descending=True, stable=True).indices[: self._size]
        self.returns, self.actions = returns[order], actions[order]

    def load(self, returns: Tensor, actions: Tensor) -> None:
        self.returns, self.actions = returns, actions


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
    episodes = Episodes(scorer, world.layout, world.world, world.scale, world.episode_length)
    for t in range(world.episode_length):
        outcome = episodes.step(actions[:, t])
    return episodes, outcome


def _applicable(world: World, actions: Tensor) -> Tensor:
    """Whether the weights stay finite under the actions [T, A] of one episode: a scalar bool."""
    weights = None
    for action in actions:
        weights = world.episodes.edited(action[None], weights)
    assert weights is not None
    return torch.stack([weight.isfinite().all() for weight in weights.values()]).all()


def select(world: World, agent: Agent, elites: Elites) -> tuple[Edit, str]:
    """The edit with the largest objective on the validation split, and where it comes from.

    The policy mean comes first, so it wins ties: it is an average over many candidates, the elites are the
    luckiest of thousands. The unedited model comes last: an edit that does not improve it is none. An agent
    that has never been sound has no mean.
    """
    choices = [("no edit", torch.zeros(elites.actions.shape[1:]))]
    choices[:0] = [(f"elite {i}", actions) for i, actions in enumerate(elites.actions, start=1)]
    if agent.finite():
        choices.insert(0, ("policy mean", mean_actions(world, agent)[0]))
    actions = torch.stack([actions for _, actions in choices])
    episodes, outcome = replay(world, actions, "validation")
    sound = torch.stack([_applicable(world, choice) for choice in actions])
    best = int(outcome.values.where(sound, -torch.inf).argmax())
    origin = choices[best][0]
    edit = world.edit(actions[best])
    before: dict[str, Json] = dict(episodes.initial_metrics)
    after: dict[str, Json] = {name: float(metric[best]) for name, metric in outcome.metrics.items()}
    edit.metrics["validation"] = {
        "before": before | {"value": episodes.initial_value},
        "after": after | {"value": float(outcome.values[best])},
    }
    edit.metrics["origin"] = origin
    return edit, origin
