"""Settings of a debiasing run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ...experiments.config import EditingConfig
from ...objectives import Debias
from ...objectives.budgets import parsed
from ...ops.rules import Kind
from ...worlds import DirectionKind
from ...zoo.data import COMMENT_NAMES, IDENTITY_TERMS, CommentName
from ...zoo.models.architectures import LastLayers, last_layers_of
from ...zoo.models.bag_of_words import words_of
from .file_options import FileOptions

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

TRANSFORMER = "transformer"
"""The model whose layers have the names of its folder."""

UNSEEN_TEMPLATES: dict[str, tuple[str, ...]] = {
    "madlibs": ("you_are_adj", "you_occupation", "am_hate_adj"),
    "synthetic-templates": ("name", "tourists", "reader"),
}
"""Templates of a bias set that neither reward nor validation see."""

SYNTHETIC: tuple[CommentName, ...] = ("synthetic",)
"""What is trained on where nothing is said."""


LEAST = {"synthetic-templates": 5}
"""Sentences of each label that a group needs, where it is not the 20 that real sets have of most groups."""

BUDGET = Debias.budget
"""Of AUC and accuracy on the comments, where none is given."""


@dataclass(frozen=True)
class DebiasConfig(FileOptions, EditingConfig):
    """Settings of a debiasing run. Two runs with equal settings give the same edit.

    Raises:
        ValueError: for a name that is unknown, a number that is out of range, or two sources of one set.
        FileNotFoundError: there is no such encoder or classifier.
    """

    dataset: tuple[CommentName, ...] = SYNTHETIC
    """Comments that the classifier is trained on and must stay good at; several sets are joined."""
    bias_set: CommentName | Literal[""] = ""
    """Sentences that bias is measured on. Default: madlibs, or synthetic-templates if the data set is
    synthetic."""
    model: Literal["bag-of-words", "encoder", "transformer"] = "bag-of-words"
    """Architecture: a bag of words with three linear layers, or a head on a pretrained sentence encoder,
    both trained here; or a fine-tuned transformer with a head of its own."""
    encoder: str = ""
    """Folder of a Hugging Face encoder; goes with --model encoder."""
    classifier: str = ""
    """Folder of a fine-tuned Hugging Face classifier (AutoModelForSequenceClassification); goes with --model
    transformer. The edited one is left in the run folder as edited_model."""
    label: str = ""
    """Which of the classifier's labels means toxic, by its name in config.json. Default: the only one, or the
    second of two; of several it must be said."""
    layer: tuple[str, ...] = ()
    """Modules to edit: some of fc1, fc2, fc3 of the bag of words; head.fc1 and head.fc2 of the encoder's
    head, or modules of its last block, such as block.intermediate; of a transformer those of its head and
    last block by their own names, such as classifier or bert.encoder.layer.11.output.dense. Default: several
    sets of layers are tried briefly, and the best one is edited."""
    budget: tuple[str, ...] = ()
    """What may be lost: a number for AUC and accuracy on the comments (default 0.005, half a percentage
    point), and NAME=NUMBER for anything else, such as f1=0.01, or fnr.worst=0.02 for the false negative rate
    of every identity group. inf is no budget."""
    least_group: int = 0
    """Sentences of each label that an identity group needs to count in figures over all groups. Default: 20,
    but 5 of synthetic-templates, which are few."""
    vocabulary: int = 10_000
    """Number of words that the bag of words knows."""
    world: Kind = field(default="shift", kw_only=True)
    candidates: int = field(default=51_200, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files()
        if self.train and self.dataset != SYNTHETIC:
            raise ValueError(
                f"dataset, train: expected one of them, got both {', '.join(self.dataset)} and "
                f"{', '.join(self.train)}"
            )
        if self.bias and self.bias_set:
            raise ValueError(
                f"bias_set, bias: expected one of them, got both {self.bias_set} and {', '.join(self.bias)}"
            )
        object.__setattr__(self, "budget", _texts(self.budget))
        if self.least_group < 0:
            raise ValueError(f"least_group: expected at least 1, got {self.least_group}")
        known = ", ".join(COMMENT_NAMES)
        if not self.dataset or len(set(self.dataset)) != len(self.dataset):
            raise ValueError(f"dataset: expected one set or several different ones, got {list(self.dataset)}")
        for name in (*self.dataset, *([self.bias_name] if self.bias_name else [])):
            if name not in COMMENT_NAMES:
                raise ValueError(f"dataset, bias_set: expected some of {known}; got {name!r}")
        if not self.train and self.bias_name in self.dataset:
            raise ValueError(f"bias_set: expected another set than the dataset's, got {self.bias_name!r}")
        if self.model not in (*LAYERS, TRANSFORMER):
            raise ValueError(
                f"model: expected one of {', '.join((*LAYERS, TRANSFORMER))}; got {self.model!r}"
            )
        if (self.model == "encoder") != bool(self.encoder):
            raise ValueError("encoder: expected a folder with --model encoder, and none without")
        if (self.model == TRANSFORMER) != bool(self.classifier):
            raise ValueError("classifier: expected a folder with --model transformer, and none without")
        if self.label and self.model != TRANSFORMER:
            raise ValueError(f"label: expected none without --model transformer, got {self.label!r}")
        offered = self._layers
        if not offered and not self.layer:
            raise ValueError(
                f"layer: expected the name of the Linear that makes the logits, since models of the type "
                f"{self.last_layers.model_type!r} are not known"
            )
        if offered and (unknown := [name for name in self.layer if name not in offered]):
            raise ValueError(f"layer: expected some of {', '.join(offered)}; got {', '.join(unknown)}")
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
    def last_layers(self) -> LastLayers:
        """What can be edited in the classifier's folder; with --model transformer only."""
        return last_layers_of(Path(self.classifier).expanduser())

    @property
    def _layers(self) -> tuple[str, ...]:
        """Names of modules that can be edited; none for a transformer of an unknown type."""
        return self.last_layers.names if self.model == TRANSFORMER else LAYERS[self.model]

    @property
    def bias_name(self) -> CommentName | Literal[""]:
        """The named set of sentences that bias is measured on; "" if these come from files."""
        if self.bias or self.same_comments:
            return ""
        if self.bias_set:
            return self.bias_set
        return "synthetic-templates" if self.synthetic else "madlibs"

    @property
    def same_comments(self) -> bool:
        """Whether bias is measured on the very comments that utility is measured on."""
        return bool(self.train) and not (self.bias or self.bias_set)

    @property
    def synthetic(self) -> bool:
        """Whether the classifier is trained on the synthetic comments."""
        return not self.train and self.dataset == SYNTHETIC

    @property
    def data_name(self) -> str:
        """What the classifier is trained on, for people."""
        return " and ".join(Path(file).name for file in self.train) or " and ".join(self.dataset)

    @property
    def chosen_least(self) -> int:
        """The least size of a group."""
        return self.least_group or LEAST.get(self.bias_name, Debias.least_group)

    @property
    def chosen_directions(self) -> DirectionKind:
        """The directions that are used. "auto" is strata for a bag of words; groups for a head on an encoder,
        where an edit along strata could learn how the bias set is worded, since inputs are dense, and carry
        that over to other texts; all within an encoder, or in what reads all tokens of a transformer, where
        means would be of padding, too."""
        if self.directions != "auto":
            return self.directions
        if any(name.startswith("block.") for name in self.layer):
            return "all"
        if self.model == TRANSFORMER and self.last_layers.stage(self.layer) == "attention":
            return "all"
        return "strata" if self.model == "bag-of-words" else "groups"

    @property
    def layer_sets(self) -> tuple[tuple[str, ...], ...]:
        if self.layer:
            return (self.layer,)
        if self.model != TRANSFORMER:
            return LAYER_SETS[self.model]
        head, output = self.last_layers.head, self.last_layers.block[-1]
        return tuple(dict.fromkeys([(head[-1],), head, (output,), (output, head[-1])]))

    def objective(self) -> Debias:
        plain, named = parsed(self.budget)
        return Debias(budget=BUDGET if plain is None else plain, budgets=named, least_group=self.chosen_least)

    def asked(self) -> dict[str, Any]:
        """The settings as JSON. As long as nothing newer is asked for, they are as in folders of older
        versions: with a number as budget, and without options that did not exist."""
        asked, changed = super().asked(), self.changed()
        plain, named = parsed(self.budget)
        if not named:
            asked["budget"] = BUDGET if plain is None else plain
        unchanged = {each.name for each in fields(FileOptions)} - set(changed)
        unchanged |= {name for name in ("classifier", "label", "least_group") if not asked[name]}
        return {key: value for key, value in asked.items() if key not in unchanged}

    def resolved(self) -> dict[str, Any]:
        """The settings as JSON for people to read, with the defaults filled in."""
        resolved = super().resolved() | {
            "layer": list(self.layer),
            "bias_set": self.bias_name,
            "least_group": self.chosen_least,
            "budget": ", ".join(f"{name}={number:g}" for name, number in self.objective().held.items()),
        }
        without = {each.name for each in fields(FileOptions)} - set(self.changed())
        if self.train:
            without.add("dataset")
        if not self.bias_name:
            without.add("bias_set")
        if self.same_comments:
            resolved["bias"], without = "the same comments", without - {"bias"}
        return {key: value for key, value in resolved.items() if key not in without}


def _texts(budget: object) -> object:
    """A budget as it is written today; it was a number when there was but one."""
    if not isinstance(budget, (int, float)):
        return budget
    return () if budget == BUDGET else (f"{budget!r}",)
