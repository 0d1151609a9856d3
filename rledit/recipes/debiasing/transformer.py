"""A fine-tuned Hugging Face classifier with its own head, as it lies in a folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from ...edits import Edit, apply_to_file
from ...storage.cache import cached
from ...storage.files import read_tensors, write_tensors
from ...zoo.models.architectures import Stage
from ...zoo.models.sequence_classifier import SequenceClassifier
from .config import DebiasConfig
from .text_table import TextTable
from .two_logits import own_weights, seen_as_two

logger = logging.getLogger("rledit")

MAX_TOKENS = 64

CHECKED = ("a text", "another text of more words, which is longer than the first one", "")
"""Beside some of a run's own: what a cut network must give the same logits for as the whole."""


class TransformerClassifier:
    """The end of a fine-tuned classifier, from where an edit can change something. What comes before runs
    once for each text, and is kept on disk.

    Attributes:
        model: see :class:`.classifier.Classifier`; modules have the names of the folder's model.
        several: the whole classifier.
        label: the column of its logits that means toxic.
    """

    def __init__(
        self, several: SequenceClassifier, stage: Stage, label: int | None, texts: Sequence[str]
    ) -> None:
        """``label``: None for a classifier with one logit. ``texts``: known ones, see :class:`TextTable`."""
        few = [*CHECKED, *texts[:8]]
        several.check_cut(stage, few)
        tail = deepcopy(several.tail(stage))
        self.several = several
        self.label = label
        self._stage = stage
        with torch.no_grad():
            logits = tail(several.before(few, stage))
        self.model: nn.Module = seen_as_two(
            tail,
            logits,
            label=label,
            multi_label=several.multi_label and label is not None,
            threshold=0.0 if label is None else None,
        ).eval()
        self._kept = bool(texts)
        self._table: TextTable | None = None
        if stage != "attention":  # whose inputs are hundreds of times as large
            key = ["before", stage, several.settings]
            self._table = TextTable(key, lambda some: several.before(some, stage), texts)

    @classmethod
    def open(cls, config: DebiasConfig, texts: Sequence[str]) -> TransformerClassifier:
        """The classifier that a config names.

        Raises:
            ModuleNotFoundError, FileNotFoundError, ValueError: see
                :meth:`rledit.zoo.models.SequenceClassifier.from_folder`; a label that there is not; layers
                that cannot be edited.
        """
        several = SequenceClassifier.from_folder(config.classifier, max_tokens=MAX_TOKENS)
        known = several.layers
        named = tuple(dict.fromkeys(name for layer in config.layer_sets for name in layer))
        if unknown := [name for name in named if name not in known.names]:
            raise ValueError(f"layer: expected some of {', '.join(known.names)}; got {', '.join(unknown)}")
        return cls(several, known.stage(named), label_of(several, config.label), texts)

    @classmethod
    def load(
        cls, config: DebiasConfig, texts: Sequence[str], path: Path
    ) -> tuple[TransformerClassifier, float]:
        """The same, if it is the one that a run began with; and 0 seconds of training."""
        tensors, _ = read_tensors(path)
        classifier = cls.open(config, texts)
        own = own_weights(classifier.model)
        if own.keys() != tensors.keys() or any(not torch.equal(own[name], tensors[name]) for name in own):
            raise ValueError(
                f"{path}: this run began with another classifier than that in {config.classifier}"
            )
        return classifier, 0.0

    def encode(self, texts: Sequence[str]) -> Tensor:
        if self._table is not None:
            return self._table(texts)
        if not self._kept:  # texts of others
            return self.several.before(texts, self._stage)
        key = ["before", self._stage, self.several.settings, list(texts)]
        return cached(None, key, lambda: self.several.before(texts, self._stage))

    def save(self, path: Path, seconds: float) -> None:
        # What an edit can change, by the names that it uses: `rledit apply` must find them.
        write_tensors(path, own_weights(self.model), {"pretrain_seconds": repr(seconds)})


def label_of(classifier: SequenceClassifier, label: str) -> int | None:
    """The column of a label; None for a classifier with one logit.

    Raises:
        ValueError: there is no such label, or none is named where several could be meant.
    """
    names = classifier.labels
    if label and label not in names:
        raise ValueError(f"label: expected one of {', '.join(names)}, the classifier's labels; got {label!r}")
    if len(names) == 1:
        return None
    if label:
        return names.index(label)
    if len(names) == 2 and not classifier.multi_label:
        logger.warning("Label %r, the second of two, is taken for toxic; --label says another one.", names[1])
        return 1
    raise ValueError(
        f"label: expected which of {', '.join(names)} means toxic, the classifier has several; got none"
    )


def write_edited(edit: Edit, classifier: str, out: Path) -> None:
    """The classifier's folder with edited weights, to be loaded by ``from_pretrained``.

    Raises:
        ValueError, OSError: see :func:`rledit.edits.apply_to_file`.
    """
    folder = Path(classifier).expanduser()
    apply_to_file(edit, folder, out, cast=True, overwrite=out.exists())
