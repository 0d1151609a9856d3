"""Settings of an unlearning run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ...experiments.config import EditingConfig
from ...objectives import Unlearning
from ...ops import Classifier
from ...zoo import models


@dataclass(frozen=True)
class Defaults:
    """Default settings for a data set.

    Attributes:
        model, layers: the network, and its modules that are edited.
        reward: how many images candidates are scored on.
        validation: how many images are held out of the model's own training, to choose the edit on.
    """

    model: str
    layers: tuple[str, ...]
    reward: int
    validation: int


DatasetName: TypeAlias = Literal["mnist", "mnist5k", "cifar10"]

DEFAULTS: dict[str, Defaults] = {
    "mnist": Defaults("mnist_cnn", ("fc1",), reward=6000, validation=6000),
    "mnist5k": Defaults("mnist_cnn", ("fc1",), reward=3200, validation=800),
    "cifar10": Defaults("resnet20", ("layer3.2.conv2",), reward=1000, validation=2000),
}


@dataclass(frozen=True)
class UnlearningConfig(EditingConfig):
    """Settings of an unlearning run. Two runs with equal settings give the same edit.

    Raises:
        ValueError: for a name that is unknown or a number that is out of range.
    """

    dataset: DatasetName
    """Data set to train and edit on."""
    forget: tuple[int, ...]
    """Class or classes to forget."""
    layer: tuple[str, ...] = ()
    """Modules to edit. Default: fc1, or layer3.2.conv2 of the ResNet."""
    model: Literal["", "mnist_cnn", "resnet20", "resnet32", "resnet44"] = ""
    """Architecture. Default: mnist_cnn for mnist and mnist5k, resnet20 for cifar10."""
    weights: str = ""
    """Safetensors file with the weights to edit. Default: the network is trained first."""
    probe: float | None = None
    """The recall of the classes to forget, 0 to 1, that a fresh linear classifier on the edited features may
    reach at most. Default: features are not looked at."""
    nearest: float | None = None
    """The same for the nearest class mean."""
    classifier: Classifier = "ridge"
    """What the probe is: ridge, or logistic, which is harder to deceive and takes several times as long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset not in DEFAULTS:
            raise ValueError(f"dataset: expected one of {', '.join(DEFAULTS)}; got {self.dataset!r}")
        if not self.forget or len(set(self.forget)) != len(self.forget):
            raise ValueError(f"forget: expected one class or several different ones, got {list(self.forget)}")
        if self.model and self.model not in models.NAMES:
            raise ValueError(f"model: expected one of {', '.join(models.NAMES)}; got {self.model!r}")
        self.objective()  # refuses levels out of range

    def objective(self) -> Unlearning:
        """What candidates are scored by."""
        return Unlearning(probe=self.probe, nearest=self.nearest, classifier=self.classifier)

    def asked(self) -> dict[str, Any]:
        """The settings as JSON, without levels that are not set: runs of older versions can be resumed."""
        asked = super().asked()
        without = {"probe": None, "nearest": None, "classifier": "ridge"}
        return {key: asked[key] for key in asked if key not in without or asked[key] != without[key]}

    @property
    def model_name(self) -> str:
        return self.model or DEFAULTS[self.dataset].model

    @property
    def layers(self) -> tuple[str, ...]:
        return self.layer or DEFAULTS[self.dataset].layers

    def resolved(self) -> dict[str, Any]:
        """The settings as JSON for people to read, with the default settings of the data set filled in."""
        return super().resolved() | {"layer": list(self.layers), "model": self.model_name}
