"""Settings of a debiasing run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...experiments.config import EditingConfig
from ...objectives import Debias
from ...objectives.budgets import parsed
from ...ops.rules import Kind
from ...worlds import DirectionKind
from ...zoo.data import COMMENT_NAMES, IDENTITY_TERMS, CommentName
from ...zoo.models.bag_of_words import words_of

LAYERS = {
    "bag-of-words": ("fc1", "fc2", "fc3"),
    "encoder": (
        "head.fc1",
        "head.fc2",
        *(f"block.attention.{part}" for part in ("query", "key", "value", "output")),
        "block.intermediate",
        "block.output",
    ),
}
"""Modules that can be edited."""

LAYER_SETS: dict[str, tuple[tuple[str, ...], ...]] = {
    "bag-of-words": (("fc1",), ("fc2",), ("fc3",), ("fc1", "fc2"), ("fc2", "fc3"), ("fc1", "fc2", "fc3")),
    "encoder": (("head.fc1",), ("head.fc2",), ("head.fc1", "head.fc2")),
}
"""What is tried where no layers are given."""

UNSEEN_TEMPLATES = {
    "madlibs": ("you_are_adj", "you_occupation", "am_hate_adj"),
    "synthetic-templates": ("name", "tourists", "reader"),
}
"""Templates of a bias set that neither reward nor validation see."""


LEAST = {"synthetic-templates": 5}
"""Sentences of each label that a group needs, where it is not the 20 that real sets have of most groups."""

BUDGET = 0.005
"""Of AUC and accuracy on the comments, where none is given."""


@dataclass(frozen=True)
class DebiasConfig(EditingConfig):
    """Settings of a debiasing run. Two runs with equal settings give the same edit.

    Raises:
        ValueError: for a name that is unknown or a number that is out of range.
        FileNotFoundError: there is no such encoder.
    """

    dataset: tuple[CommentName, ...] = ("synthetic",)
    """Comments that the classifier is trained on and must stay good at; several sets are joined."""
    bias_set: CommentName | Literal[""] = ""
    """Sentences that bias is measured on. Default: madlibs, or synthetic-templates if the data set is
    synthetic."""
    model: Literal["bag-of-words", "encoder"] = "bag-of-words"
    """Architecture: a bag of words with three linear layers, or a head on a pretrained sentence encoder."""
    encoder: str = ""
    """Folder of a Hugging Face encoder; goes with --model encoder."""
    layer: tuple[str, ...] = ()
    """Modules to edit: some of fc1, fc2, fc3 of the bag of words; head.fc1 and head.fc2 of the encoder's
    head, or modules of its last block, such as block.intermediate. Default: several sets of layers are tried
    briefly, and the best one is edited."""
    budget: tuple[str, ...] = ()
    """What may be lost: a number for AUC and accuracy on the comments (default 0.005, half a percentage
    point), and NAME=NUMBER for anything else, such as f1=0.01, or fnr.worst=0.02 for the false negative rate
    of every identity group. inf is no budget."""
    least_group: int = 0
    """Sentences of each label that an identity group needs to count in figures over all groups. Default: 20,
    but 5 of synthetic-templates, which are few."""
    vocabulary: int = 5_000
    """Number of words that the bag of words knows."""
    world: Kind = field(default="shift", kw_only=True)
    candidates: int = field(default=51_200, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search == "gradient":
            raise ValueError(
                "search: expected another one, since error rates and AUCs are counted and have no slope; got "
                "'gradient'"
            )
        budget: object = self.budget
        if isinstance(budget, (int, float)):  # as it was when there was but one
            object.__setattr__(self, "budget", (repr(budget),))
        if self.least_group < 0:
            raise ValueError(f"least_group: expected at least 1, got {self.least_group}")
        known = ", ".join(COMMENT_NAMES)
        if not self.dataset or len(set(self.dataset)) != len(self.dataset):
            raise ValueError(f"dataset: expected one set or several different ones, got {list(self.dataset)}")
        for name in (*self.dataset, self.bias_name):
            if name not in COMMENT_NAMES:
                raise ValueError(f"dataset, bias_set: expected some of {known}; got {name!r}")
        if self.bias_name in self.dataset:
            raise ValueError(f"bias_set: expected another set than the dataset's, got {self.bias_name!r}")
        if self.model not in LAYERS:
            raise ValueError(f"model: expected one of {', '.join(LAYERS)}; got {self.model!r}")
        if (self.model == "encoder") != bool(self.encoder):
            raise ValueError("encoder: expected a folder with --model encoder, and none without")
        if unknown := [name for name in self.layer if name not in LAYERS[self.model]]:
            raise ValueError(
                f"layer: expected some of {', '.join(LAYERS[self.model])}; got {', '.join(unknown)}"
            )
        if len(set(self.layer)) != len(self.layer):
            raise ValueError(f"layer: expected different ones, got {', '.join(self.layer)}")
        if self.encoder and not Path(self.encoder).expanduser().is_dir():
            raise FileNotFoundError(
                f"encoder: expected the folder of an encoder, there is no folder {self.encoder}"
            )
        least = len({word for terms in IDENTITY_TERMS.values() for term in terms for word in words_of(term)})
        if self.model == "bag-of-words" and self.vocabulary < least:
            raise ValueError(
                f"vocabulary: expected at least {least}, the words of identity terms; got {self.vocabulary}"
            )
        self.objective()

    @property
    def bias_name(self) -> CommentName:
        """The set of sentences that bias is measured on."""
        if self.bias_set:
            return self.bias_set
        return "synthetic-templates" if self.dataset == ("synthetic",) else "madlibs"

    @property
    def chosen_least(self) -> int:
        """The least size of a group."""
        return self.least_group or LEAST.get(self.bias_name, 20)

    @property
    def chosen_directions(self) -> DirectionKind:
        """With "auto": strata for a bag of words; groups for a head on an encoder, where an edit along strata
        could learn how the bias set is worded, since inputs are dense, and carry that over to other texts;
        all within an encoder, where means would be of padding, too."""
        if self.directions != "auto":
            return self.directions
        if any(name.startswith("block.") for name in self.layer):
            return "all"
        return "strata" if self.model == "bag-of-words" else "groups"

    @property
    def layer_sets(self) -> tuple[tuple[str, ...], ...]:
        return (self.layer,) if self.layer else LAYER_SETS[self.model]

    def objective(self) -> Debias:
        plain, named = parsed(self.budget)
        return Debias(budget=BUDGET if plain is None else plain, budgets=named, least_group=self.chosen_least)

    def asked(self) -> dict[str, Any]:
        """Folders of older versions have a number as budget, and no least size."""
        asked = super().asked()
        plain, named = parsed(self.budget)
        if not named:
            asked["budget"] = BUDGET if plain is None else plain
        if not self.least_group:
            del asked["least_group"]
        return asked

    def resolved(self) -> dict[str, Any]:
        """As JSON for people to read, with the defaults filled in."""
        return super().resolved() | {
            "layer": list(self.layer),
            "bias_set": self.bias_name,
            "least_group": self.chosen_least,
            "budget": ", ".join(f"{name}={number:g}" for name, number in self.objective().held.items()),
        }
