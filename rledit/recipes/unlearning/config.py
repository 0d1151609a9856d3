"""What an unlearning run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...experiments.config import EditingConfig
from ...zoo import models


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
class UnlearningConfig(EditingConfig):
    """What a run is asked to do. Two runs with equal configs give the same edit.

    Raises:
        ValueError: for a name or number that cannot be meant.
    """

    dataset: Literal["mnist", "mnist5k", "cifar10"]
    """Data set to train and edit on."""
    forget: tuple[int, ...]
    """Class or classes to forget."""
    layer: tuple[str, ...] = ()
    """Modules to edit; by default the data set's (fc1, or layer3.2.conv2 of the ResNet)."""
    model: str = ""
    """mnist_cnn, resnet20, resnet32 or resnet44; by default the data set's."""
    weights: str = ""
    """A safetensors state dict to start from, instead of training one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset not in DEFAULTS:
            raise ValueError(f"dataset: expected one of {', '.join(DEFAULTS)}; got {self.dataset!r}")
        if not self.forget or len(set(self.forget)) != len(self.forget):
            raise ValueError(f"forget: expected one class or several different ones, got {list(self.forget)}")
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
        return super().resolved() | {"layer": list(self.layers), "model": self.model_name}
