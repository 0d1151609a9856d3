"""Other ways to debias a classifier: what rledit's debiasing edits are compared with.

Each is a plain function of tensors or texts; how settings are mixed with the unedited classifier, judged and
picked is up to the comparison (``benchmarks/debias_opponents``). fairlearn, scikit-learn and
concept-erasure are needed by two of them only, and imported there.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..extras import MissingExtraError
from ..samples import Samples
from ..zoo.models.bag_of_words import words_of
from .tuning import mode

RATES = (3e-4, 1e-3, 3e-3)
EPOCHS = (1, 3, 10)
BATCH = 128
CONSTRAINTS = (
    "equalized_odds",
    "demographic_parity",
    "false_positive_rate_parity",
    "false_negative_rate_parity",
)
"""Constraints of fairlearn's ThresholdOptimizer that this module's caller tries."""


class Tuned(NamedTuple):
    """A fine-tuned network: the setting, and its state dict, a copy."""

    rate: float
    epochs: int
    weights: dict[str, Tensor]


def fine_tuned(
    model: nn.Module, inputs: Tensor, labels: Tensor, weights: Tensor, layers: Collection[str], seed: int
) -> Iterator[Tuned]:
    """Fine-tune by weighted cross-entropy, with every rate of :data:`RATES` up to every number of epochs.

    With all weights 1 and the last layer alone this is the only baseline of S. Malik, "Reinforcement Learning
    for Neural Model Editing", arXiv:2606.13461. AdamW, batches of 128. The model is left as it is, and so is
    torch's random state; it must not draw from it itself (dropout).

    Args:
        model: from inputs to logits [B, C].
        inputs: [S, ...].
        labels: int64 [S].
        weights: float [S], of samples.
        layers: names of the model's children whose parameters are trained.
        seed: seed of the order of samples.

    Raises:
        ValueError: if no parameter is in these layers.
    """
    named = [name for name, _ in model.named_parameters() if name.split(".")[0] in layers]
    if not named:
        raise ValueError(f"layers: expected children of the model with parameters, got {sorted(layers)}")
    for rate in RATES:
        generator = torch.Generator().manual_seed(seed)
        tuned = deepcopy(model)
        optimizer = torch.optim.AdamW([tuned.get_parameter(name) for name in named], lr=rate)
        for epoch in range(1, max(EPOCHS) + 1):
            with mode(tuned, training=True):
                for index in torch.randperm(len(labels), generator=generator).split(BATCH):
                    loss = F.cross_entropy(tuned(inputs[index]), labels[index], reduction="none")
                    optimizer.zero_grad()
                    (loss * weights[index]).mean().backward()
                    optimizer.step()
            if epoch in EPOCHS:
                yield Tuned(rate, epoch, {name: value.clone() for name, value in tuned.state_dict().items()})


def reweighed(samples: Samples, utility: str, identities: Sequence[str]) -> Tensor:
    """Weights [S] under which every group and label is equally heavy; their mean is 1.

    F. Kamiran, T. Calders, "Data Preprocessing Techniques for Classification without Discrimination", KAIS
    2012.

    Args:
        samples: with binary labels.
        utility: the group that is as heavy as all identities together.
        identities: names of groups.
    """
    weights = torch.zeros(len(samples))
    for name in (utility, *identities):
        for label in (0, 1):
            cell = samples.groups[name] & (samples.labels == label)
            share = 1.0 if name == utility else 1.0 / len(identities)
            weights[cell] += share / max(1, int(cell.sum()))
    return weights * (len(weights) / weights.sum())


def swapped(
    texts: Sequence[str], labels: Tensor, terms: Sequence[str], seed: int
) -> tuple[list[str], Tensor]:
    """A copy of a text for each term that it has, with that term replaced by one drawn at random, and its
    label.

    Counterfactual data augmentation: K. Lu et al., "Gender Bias in Neural Natural Language Processing", 2018,
    arXiv:1807.11714.

    Args:
        texts: the texts of S samples.
        labels: int64 [S].
        terms: as :data:`rledit.zoo.data.IDENTITY_TERMS` has them, of one word or several.
        seed: seed of the terms that are drawn.
    """
    chance = random.Random(seed)
    copies, kept = [], []
    for text, label in zip(texts, labels.tolist(), strict=True):
        words = f" {' '.join(words_of(text))} "
        for term in terms:
            if f" {term} " in words:
                copies.append(words.replace(f" {term} ", f" {chance.choice(terms)} "))
                kept.append(label)
    return copies, torch.tensor(kept, dtype=torch.int64)


Thresholds = Callable[["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]
"""A function from scores [S] and group numbers [S] to the probability of a positive answer [S]. A group that
was not there when the thresholds were fitted counts as -1."""


def thresholds(
    scores: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    groups: np.ndarray[Any, Any],
    constraint: str,
) -> Thresholds:
    """Thresholds on scores by group, some of them random, that meet a constraint of fairness.

    fairlearn's ThresholdOptimizer: M. Hardt, E. Price, N. Srebro, "Equality of Opportunity in Supervised
    Learning", NeurIPS 2016, arXiv:1610.02413.

    Args:
        scores: float [S], larger for positive.
        labels: 0 or 1, [S].
        groups: integers [S], -1 for no group.
        constraint: see :data:`CONSTRAINTS`.

    Raises:
        MissingExtraError: (an ImportError) without fairlearn.
    """
    fairlearn = _needed("fairlearn.postprocessing", "fairlearn")
    sklearn = _needed("sklearn.base", "scikit-learn")

    class Scores(sklearn.BaseEstimator):  # type: ignore[name-defined,misc]
        """What fairlearn takes for an estimator."""

        def fit(self, *_: Any) -> Scores:
            return self

        def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return x[:, 0]

    optimizer = fairlearn.ThresholdOptimizer(
        estimator=Scores(), constraints=constraint, prefit=True, predict_method="predict"
    )
    optimizer.fit(scores[:, None], labels, sensitive_features=groups)

    def answer(scores: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        known = np.where(np.isin(others, groups), others, -1)
        answers: np.ndarray[Any, Any] = optimizer._pmf_predict(scores[:, None], sensitive_features=known)
        return answers[:, 1]

    return answer


def leace(features: Tensor, concept: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that removes from features all that linear classifiers can tell about a concept.

    N. Belrose et al., "LEACE: Perfect Linear Concept Erasure in Closed Form", NeurIPS 2023, arXiv:2306.03819.

    Args:
        features: float [S, D] to fit on.
        concept: float [S, K], such as membership of groups.

    Raises:
        MissingExtraError: (an ImportError) without concept-erasure.
    """
    eraser: Callable[[Tensor], Tensor]
    eraser = _needed("concept_erasure", "concept-erasure").LeaceEraser.fit(features, concept)
    return eraser


def _needed(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this method needs the package {package}, which is missing: pip install {package}",
            name=module.split(".")[0],
        ) from error
