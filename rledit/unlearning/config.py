"""What an unlearning run is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .. import models
from ..ppo import PPOConfig
from ..worlds import MaskWorld, ShiftWorld, World

WORLDS: dict[str, type[World]] = {"mask": MaskWorld, "shift": ShiftWorld}


@dataclass(frozen=True)
class Defaults:
    """What a data set's run takes where the user does not say.

    ``validation`` images are held out of the model's own training and pick the edit; ``reward`` images are
    those that the agent's candidates are scored on.
    """

    model: str
    layers: tuple[str, ...]
    reward: int
    validation: int


DEFAULTS = {
    "mnist": Defaults("mnist_cnn", ("fc1",), reward=6000, validation=6000),
    "mnist5k": Defaults("mnist_cnn", ("fc1",), reward=3200, validation=800),
    "cifar10": Defaults("resnet20", ("layer3.2.conv2",), reward=1000, validation=2000),
}


@dataclass(frozen=True)
class UnlearningConfig:
    """What a run is asked to do. Two runs with equal configs give the same edit.

    Raises:
        ValueError: for a name or number that cannot be meant.
    """

    dataset: Literal["mnist", "mnist5k", "cifar10"]
    """Data set to train and edit on."""
    forget: tuple[int, ...]
    """Class or classes to forget."""
    world: Literal["mask", "shift"] = "mask"
    """How factors change a weight: multiplied (mask) or added (shift)."""
    rank: int = 4
    """Rank R of the factors."""
    seed: int = 0
    """Of everything random: splits, pretraining, policy."""
    candidates: int = 12_800
    """Edits to score."""
    num_envs: int = 128
    """Edits scored together, one batch of PPO."""
    episode_length: int = 1
    """Edits that compose in an episode."""
    layer: tuple[str, ...] = ()
    """Modules to edit; by default the data set's (fc1, or layer3.2.conv2 of the ResNet)."""
    model: str = ""
    """mnist_cnn, resnet20, resnet32 or resnet44; by default the data set's."""
    weights: str = ""
    """A safetensors state dict to start from, instead of training one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the scoring."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The numbers of PPO."""

    def __post_init__(self) -> None:
        if self.dataset not in DEFAULTS:
            raise ValueError(f"dataset: expected one of {', '.join(DEFAULTS)}; got {self.dataset!r}")
        if self.world not in WORLDS:
            raise ValueError(f"world: expected one of {', '.join(WORLDS)}; got {self.world!r}")
        if not self.forget or len(set(self.forget)) != len(self.forget):
            raise ValueError(f"forget: expected one class or several different ones, got {list(self.forget)}")
        for name in ("candidates", "num_envs", "episode_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")
        if self.model and self.model not in models.NAMES:
            raise ValueError(f"model: expected one of {', '.join(models.NAMES)}; got {self.model!r}")

    @property
    def model_name(self) -> str:
        return self.model or DEFAULTS[self.dataset].model

    @property
    def layers(self) -> tuple[str, ...]:
        return self.layer or DEFAULTS[self.dataset].layers

    def resolved(self) -> dict[str, Any]:
        """As JSON for people to read, with the data set's defaults filled in."""
        asked = asdict(self) | {"layer": list(self.layers), "model": self.model_name}
        return {key: value for key, value in asked.items() if value != ""}
