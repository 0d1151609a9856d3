"""The classifiers that can be debiased, each with the function from texts to what it is called with."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...runtime import seeded
from ...storage.cache import cached
from ...storage.files import read_tensors, write_tensors
from ...zoo.models.bag_of_words import Vocabulary
from ...zoo.models.encoder import SentenceEncoder
from ...zoo.models.toxicity import (
    HEAD_HYPERPARAMETERS,
    MLP_HYPERPARAMETERS,
    SYNTHETIC_HYPERPARAMETERS,
    ToxicityHead,
    ToxicityMLP,
)
from ...zoo.training import train_classifier
from .config import TRANSFORMER, DebiasConfig
from .data import DebiasData
from .text_table import TextTable
from .transformer import MAX_TOKENS, TransformerClassifier

logger = logging.getLogger("rledit")

Progress = Callable[[int, int, float], None]


class Classifier(Protocol):
    """model: from what :meth:`encode` gives to logits [S, 2], in eval mode; class 1 is toxic."""

    model: nn.Module

    def encode(self, texts: Sequence[str]) -> Tensor: ...

    def save(self, path: Path, seconds: float) -> None: ...


class BagOfWords:
    """:class:`rledit.zoo.models.ToxicityMLP` and its vocabulary."""

    def __init__(self, model: ToxicityMLP, vocabulary: Vocabulary) -> None:
        self.model: nn.Module = model.eval()
        self.vocabulary = vocabulary

    @staticmethod
    def fit_vocabulary(config: DebiasConfig, data: DebiasData) -> Vocabulary:
        """The words of the comments that it is trained on, and all identity terms."""
        return Vocabulary.fit(data.texts, config.vocabulary, always=data.terms)

    @classmethod
    def train(cls, config: DebiasConfig, data: DebiasData, progress: Progress) -> BagOfWords:
        vocabulary = cls.fit_vocabulary(config, data)
        with seeded(config.seed, torch.device("cpu")):
            model = ToxicityMLP(len(vocabulary))
        inputs = vocabulary.encode(data.texts)
        if unknown := vocabulary.unknown(data.texts):
            logger.warning("%d of %d comments have no known word.", unknown, len(data.texts))
        hyperparameters = SYNTHETIC_HYPERPARAMETERS if config.synthetic else MLP_HYPERPARAMETERS
        train_classifier(
            model, inputs, data.train.labels, seed=config.seed, progress=progress, **asdict(hyperparameters)
        )
        return cls(model, vocabulary)

    @classmethod
    def load(cls, path: Path) -> tuple[BagOfWords, float]:
        tensors, metadata = read_tensors(path)
        vocabulary = Vocabulary(tuple(json.loads(metadata["vocabulary"])))
        model = ToxicityMLP(len(vocabulary))
        model.load_state_dict(tensors)
        return cls(model, vocabulary), float(metadata["pretrain_seconds"])

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self.vocabulary.encode(texts)

    def save(self, path: Path, seconds: float) -> None:
        metadata = {"pretrain_seconds": repr(seconds), "vocabulary": json.dumps(list(self.vocabulary.words))}
        write_tensors(path, self.model.state_dict(), metadata)


class OnEmbeddings(nn.Module):
    """A head by itself, under the name that it has in :class:`rledit.zoo.models.LastBlock`."""

    def __init__(self, head: ToxicityHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.head(embeddings)
        return logits


class Embeddings:
    """Embeddings of all texts of a run, from one pass that every seed shares on disk; of others as they come.

    Args:
        encoder: which is asked.
        data: of the run, or None where there are other texts only.

    Attributes:
        kept: whether what is computed is kept on disk.
    """

    def __init__(self, encoder: SentenceEncoder, data: DebiasData | None) -> None:
        self.encoder = encoder
        texts = [] if data is None else data.every_text
        self.kept = data is not None
        self.of = TextTable(["embed", encoder.settings], encoder.embed, texts)


class EncoderWithHead:
    """A head on a pretrained sentence encoder. If its last block is edited, the model begins there; otherwise
    with the embeddings. What comes before runs once for each text, and is kept on disk."""

    def __init__(self, head: ToxicityHead, embeddings: Embeddings, edits_block: bool) -> None:
        encoder = embeddings.encoder
        self._encoder = encoder
        self._embeddings = embeddings
        self._edits_block = edits_block
        self.model: nn.Module = (encoder.last_block(head) if edits_block else OnEmbeddings(head)).eval()

    @classmethod
    def train(cls, config: DebiasConfig, data: DebiasData, progress: Progress) -> EncoderWithHead:
        embeddings = Embeddings(SentenceEncoder.from_folder(config.encoder, max_tokens=MAX_TOKENS), data)
        with seeded(config.seed, torch.device("cpu")):
            head = ToxicityHead(embeddings.encoder.width)
        train_classifier(
            head,
            embeddings.of(data.texts),
            data.train.labels,
            seed=config.seed,
            progress=progress,
            **asdict(HEAD_HYPERPARAMETERS),
        )
        return cls(head, embeddings, _edits_block(config))

    @classmethod
    def load(cls, config: DebiasConfig, data: DebiasData | None, path: Path) -> tuple[EncoderWithHead, float]:
        embeddings = Embeddings(SentenceEncoder.from_folder(config.encoder, max_tokens=MAX_TOKENS), data)
        tensors, metadata = read_tensors(path)
        head = ToxicityHead(embeddings.encoder.width)
        # Runs of the first versions saved the head alone, without its name in the model.
        named = {name.removeprefix("head."): value for name, value in tensors.items()}
        block = {name: named.pop(name) for name in tensors if name.startswith("block.")}
        head.load_state_dict(named)
        classifier = cls(head, embeddings, _edits_block(config))
        own = classifier.model.state_dict()
        if any(name in own and not torch.equal(own[name], value) for name, value in block.items()):
            raise ValueError(f"{path}: this run began with another encoder than that in {config.encoder}")
        return classifier, float(metadata["pretrain_seconds"])

    def encode(self, texts: Sequence[str]) -> Tensor:
        if not self._edits_block:
            return self._embeddings.of(list(texts))
        if not self._embeddings.kept:
            return self._encoder.before_last_block(texts)
        key: list[Any] = ["before_last_block", self._encoder.settings, list(texts)]
        return cached(None, key, lambda: self._encoder.before_last_block(texts))

    def save(self, path: Path, seconds: float) -> None:
        # What an edit can change, by the names that it uses: `rledit apply` must find them.
        write_tensors(path, self.model.state_dict(), {"pretrain_seconds": repr(seconds)})


def _edits_block(config: DebiasConfig) -> bool:
    return any(not name.startswith("head.") for name in config.layer)


def load(config: DebiasConfig, data: DebiasData | None, path: Path) -> tuple[Classifier, float]:
    """The classifier of a run from its file, and the seconds that its training took.

    Args:
        config: of the run.
        data: of the run, whose texts may be known already; None: texts are encoded as they come.
        path: of the file.

    Raises:
        ValueError: if the file does not belong to such a classifier.
        OSError: it cannot be read.
    """
    try:
        if config.model == TRANSFORMER:
            return TransformerClassifier.load(config, [] if data is None else data.every_text, path)
        if config.model == "encoder":
            return EncoderWithHead.load(config, data, path)
        return BagOfWords.load(path)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: is no classifier of this run: {error}") from error


def train_or_load(
    config: DebiasConfig,
    data: DebiasData,
    path: Path,
    progress: Callable[[], AbstractContextManager[Progress]],
) -> tuple[Classifier, float]:
    """The classifier of a run, from its file if there is one; and the seconds that its training took.

    Raises:
        ValueError: if the file does not belong to such a classifier.
    """
    if path.exists():
        return load(config, data, path)
    started = time.perf_counter()
    classifier: Classifier
    if config.model == TRANSFORMER:
        classifier = TransformerClassifier.open(config, data.every_text)
        classifier.save(path, 0.0)
        return classifier, 0.0
    with progress() as report:
        kind = EncoderWithHead if config.model == "encoder" else BagOfWords
        classifier = kind.train(config, data, report)
    seconds = time.perf_counter() - started
    classifier.save(path, seconds)
    return classifier, seconds
