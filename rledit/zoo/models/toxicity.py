"""Toxicity classifiers: the bag-of-words network of model-editing experiments, and a head on embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from ..._moved import renamed
from ..training import Hyperparameters

MLP_HYPERPARAMETERS = Hyperparameters(epochs=2, batch_size=64, learning_rate=4e-3, weight_decay=0.1)
"""Settings for :class:`ToxicityMLP` on 7,000 to 20,000 comments, chosen on comments held out of the training
sets. It learns comments by heart from the third epoch on."""

SYNTHETIC_HYPERPARAMETERS = Hyperparameters(epochs=5, batch_size=64, learning_rate=1e-2, weight_decay=0.1)
"""Settings for :class:`ToxicityMLP` on the synthetic comments, long enough to learn their bias."""

HEAD_HYPERPARAMETERS = Hyperparameters(epochs=20, batch_size=128, learning_rate=3e-3, weight_decay=1.0)
"""Settings for :class:`ToxicityHead` on 7,000 to 20,000 embeddings, chosen in the same way."""


class ToxicityMLP(nn.Module):
    """Three linear layers with ReLUs between them: V words -> 64 -> 16 -> 2.

    Input: float32 [S, V], 1 where a word occurs (:meth:`rledit.zoo.models.Vocabulary.encode`).
    Output: float32 logits [S, classes]; class 1 is "toxic".

    The paper's debiasing experiment (S. Malik, "Reinforcement Learning for Neural Model Editing", arXiv
    2606.13461) edits a layer of 16 inputs and 2 outputs behind one-hot input: ``fc3``. The widths before it
    are ours. All layers are modules, so that any of them can be a target that the compiled core scores.

    Args:
        inputs: V.
        hidden: the widths of ``fc1`` and ``fc2``.
        classes: the number of logits.

    Raises:
        ValueError: a size is below 1, or fewer than 2 classes.
    """

    def __init__(self, inputs: int, hidden: tuple[int, int] = (64, 16), classes: int = 2) -> None:
        super().__init__()
        if len(hidden) != 2:
            raise ValueError(f"hidden: expected two widths, got {list(hidden)}")
        for name, size, least in (
            ("inputs", inputs, 1),
            ("hidden", hidden[0], 1),
            ("hidden", hidden[1], 1),
            ("classes", classes, 2),
        ):
            _check_size(name, size, least)
        self.fc1 = nn.Linear(inputs, hidden[0])
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(hidden[1], classes)

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.fc3(self.relu2(self.fc2(self.relu1(self.fc1(words)))))
        return logits


class ToxicityHead(nn.Module):
    """Two linear layers with a ReLU between them, on sentence embeddings: D -> 64 -> 2.

    Input: float32 [S, D] (:meth:`rledit.zoo.models.SentenceEncoder.embed`).
    Output: float32 logits [S, 2]; class 1 is "toxic".

    Args:
        inputs: D.
        hidden: the width of ``fc1``.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        super().__init__()
        _check_size("inputs", inputs, 1)
        _check_size("hidden", hidden, 1)
        self.fc1 = nn.Linear(inputs, hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.fc2(self.relu(self.fc1(embeddings)))
        return logits


def _check_size(name: str, size: int, least: int) -> None:
    if size < least:
        raise ValueError(f"{name}: expected at least {least}, got {size}")


def __getattr__(name: str) -> object:
    return renamed(__name__, name)
