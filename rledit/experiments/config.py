"""Settings that every run has, whatever it edits for."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..ops.rules import Kind, check_kind
from ..policies import PolicyName
from ..ppo import PPO, PPOConfig
from ..search import CMAES, ES, TPE, GradientSearch, HillClimbing, RandomSearch, Search, SepCMAES
from ..task import Task
from ..worlds import DIRECTIONS, WORLDS, DirectionKind

SearchName = Literal[
    "ppo", "parameters", "es", "gradient", "sep-cma", "cma", "tpe", "random", "hill-climbing"
]

SEARCHES: dict[str, Callable[..., Search]] = {
    "es": ES,
    "gradient": GradientSearch,
    "sep-cma": SepCMAES,
    "cma": CMAES,
    "tpe": TPE,
    "random": RandomSearch,
    "hill-climbing": HillClimbing,
}
"""The searches other than PPO, by name, with their default settings."""


@dataclass(frozen=True, kw_only=True)
class EditingConfig:
    """Settings of the world and the agent that all commands share.

    Raises:
        ValueError: for a name that is unknown or a number that is out of range.
    """

    world: Kind = "mask"
    """How factors change a weight: multiplied (mask) or added (shift)."""
    rank: int = 4
    """Rank of the factors."""
    seed: int = 0
    """Seed of everything random: splits, training, policy."""
    candidates: int = 12_800
    """How many edits are scored in all."""
    num_envs: int = 128
    """How many edits are scored together, as one batch of PPO."""
    episode_length: int = 1
    """Steps of an episode, each an edit on top of the ones before."""
    directions: Literal["auto", "all", "strata", "groups"] = "auto"
    """Where the right factors of an edit may point: everywhere (all), or only along what differs between the
    samples that the objective compares, by group (groups) or by group and label (strata). auto is all for
    unlearn; for debias, it is strata with a bag of words and groups with a head on an encoder."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the scoring."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where edits are scored and the policy learns. Classifiers are trained and tested on the CPU."""
    search: SearchName = "ppo"
    """What spends the candidates: PPO; PPO over a plain parameter vector (parameters); evolution strategies
    (es); gradients, where the objective has a soft counterpart, as unlearn's and debias's have (gradient);
    separable or full CMA-ES; TPE over ablation strengths; random search or hill climbing. CMA-ES and TPE need
    the extra "search"."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Settings of PPO."""

    def __post_init__(self) -> None:
        check_kind(self.world)
        if self.directions not in ("auto", *DIRECTIONS):
            raise ValueError(
                f"directions: expected one of auto, {', '.join(DIRECTIONS)}; got {self.directions!r}"
            )
        if self.search not in get_args(SearchName):
            raise ValueError(
                f"search: expected one of {', '.join(get_args(SearchName))}; got {self.search!r}"
            )
        if self.search == "gradient" and self.episode_length != 1:
            raise ValueError(f"episode_length: expected 1 with --search gradient, got {self.episode_length}")
        for name in ("candidates", "num_envs", "episode_length", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device: expected cpu or cuda, got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected cpu, there is no GPU that torch can use here; got 'cuda'")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")

    @property
    def chosen_directions(self) -> DirectionKind:
        """The directions that are used, with "auto" decided."""
        return "all" if self.directions == "auto" else self.directions

    def asked(self) -> dict[str, Any]:
        """The settings as JSON, for a run folder to compare. Settings that older versions lacked are left out
        while they have the effect of then, so that old folders can be resumed."""
        asked = asdict(self)
        if self.search == "ppo":
            del asked["search"]
        return asked

    def resolved(self) -> dict[str, Any]:
        """The settings as JSON for people to read, without empty ones."""
        asked = {key: value for key, value in asdict(self).items() if value != ""}
        return asked | {"directions": self.chosen_directions}


def placed(config: EditingConfig, model: nn.Module) -> nn.Module:
    """The model on the config's device: itself, or a copy."""
    return model if config.device == "cpu" else deepcopy(model).to(config.device)


def make_trainer(config: EditingConfig, task: Task) -> Search:
    """The search of a run and its world."""
    env = WORLDS[config.world](
        task,
        num_envs=config.num_envs,
        rank=config.rank,
        episode_length=config.episode_length,
        directions=config.chosen_directions,
        precision=config.precision,
        final_obs=False,
    )
    if config.search in SEARCHES:
        return SEARCHES[config.search](env, seed=config.seed)
    policy: PolicyName = "parameters" if config.search == "parameters" else "gaussian"
    return PPO(env, seed=config.seed, config=config.ppo, policy=policy)
