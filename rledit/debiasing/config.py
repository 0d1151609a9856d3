"""What a debiasing run is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..data import COMMENT_NAMES
from ..fairness import Debias
from ..ppo import PPOConfig
from ..worlds import MaskWorld, ShiftWorld, World

WORLDS: dict[str, type[World]] = {"mask": MaskWorld, "shift": ShiftWorld}

LAYERS = {"bag-of-words": ("fc2",), "encoder": ("head.fc1",)}
"""Modules that are edited where the user does not say."""

UNSEEN_TEMPLATES = {
    "madlibs": ("you_are_adj", "you_occupation", "am_hate_adj"),
    "synthetic-templates": ("name", "tourists", "reader"),
}
"""Templates of a bias set that neither reward nor validation see."""


@dataclass(frozen=True)
class DebiasConfig:
    """What a run is asked to do. Two runs with equal configs give the same edit.

    Raises:
        ValueError: for a name or number that cannot be meant.
    """

    dataset: tuple[str, ...] = ("synthetic",)
    """Comments that the classifier is trained on and must stay good at; several are joined."""
    bias_set: str = ""
    """Sentences that bias is measured on; by default madlibs, or synthetic-templates beside synthetic."""
    model: Literal["bag-of-words", "encoder"] = "bag-of-words"
    """A bag of words into three layers, or a head on a pretrained sentence encoder."""
    encoder: str = ""
    """Folder of a Hugging Face encoder, for --model encoder."""
    layer: tuple[str, ...] = ()
    """Modules to edit: fc1, fc2, fc3 of the bag of words; head.fc1, head.fc2, block.output of an encoder."""
    budget: float = 0.005
    """What utility AUC and accuracy may lose, absolute: 0.005 is half a point."""
    world: Literal["mask", "shift"] = "shift"
    """How factors change a weight: multiplied (mask) or added (shift)."""
    rank: int = 4
    """Rank R of the factors; less where a layer has fewer rows or columns."""
    seed: int = 0
    """Of everything random: splits, training, policy."""
    candidates: int = 51_200
    """Edits to score."""
    num_envs: int = 128
    """Edits scored together, one batch of PPO."""
    episode_length: int = 1
    """Edits that compose in an episode."""
    vocabulary: int = 5_000
    """Words that the bag of words knows."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the scoring."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The numbers of PPO."""

    def __post_init__(self) -> None:
        known = ", ".join(COMMENT_NAMES)
        if not self.dataset or len(set(self.dataset)) != len(self.dataset):
            raise ValueError(f"dataset: expected one or several different ones, got {list(self.dataset)}")
        for name in (*self.dataset, self.bias_name):
            if name not in COMMENT_NAMES:
                raise ValueError(f"dataset, bias_set: expected some of {known}; got {name!r}")
        if self.bias_name in self.dataset:
            raise ValueError(f"bias_set: expected another set than the dataset's, got {self.bias_name!r}")
        if self.world not in WORLDS:
            raise ValueError(f"world: expected one of {', '.join(WORLDS)}; got {self.world!r}")
        if self.model not in LAYERS:
            raise ValueError(f"model: expected one of {', '.join(LAYERS)}; got {self.model!r}")
        if (self.model == "encoder") != bool(self.encoder):
            raise ValueError("encoder: expected a folder with --model encoder, and none without")
        for name in ("rank", "candidates", "num_envs", "episode_length", "vocabulary"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")
        self.objective()

    @property
    def bias_name(self) -> str:
        return self.bias_set or ("synthetic-templates" if self.dataset == ("synthetic",) else "madlibs")

    @property
    def layers(self) -> tuple[str, ...]:
        return self.layer or LAYERS[self.model]

    def objective(self) -> Debias:
        return Debias(budget=self.budget)

    def resolved(self) -> dict[str, Any]:
        """As JSON for people to read, with the defaults filled in."""
        asked = asdict(self) | {"layer": list(self.layers), "bias_set": self.bias_name}
        return {key: value for key, value in asked.items() if value != ""}
