"""The splits of a debiasing run as its record states them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...experiments.record import Bounded, Population
from ...zoo.data import Comments
from .classifier import Classifier
from .data import DebiasData, Split
from .evaluation import margins_of


def populations(classifier: Classifier, data: DebiasData) -> dict[str, Population]:
    """All splits, with what the classifier calls toxic. Bound: the accuracy on comments that was lost; the
    budget of AUC has no exact bound from counts."""
    found = {"train": Population(len(data.train), _hash(data.train, ""))}
    for name, split in data.splits.items():
        counted = name != "reward"
        bounds: dict[str, Bounded] = {"utility": "loss"} if name == "test" else {}
        found[name] = _population(classifier, data, split, counted, bounds)
    return found


def _population(
    classifier: Classifier, data: DebiasData, split: Split, counted: bool, bounds: dict[str, Bounded]
) -> Population:
    samples = split.samples(lambda texts: torch.zeros(len(texts), 1), data.identities)
    return Population(
        size=len(samples),
        fingerprint=_hash(split.both, samples.fingerprint()),
        labels=samples.labels,
        groups=samples.groups,
        predict=_toxic(classifier, split.both.texts) if counted else None,
        bounds=bounds,
        not_bounded=("utility_auc",) if bounds else (),
    )


def _hash(comments: Comments, groups: str) -> str:
    """Hash of texts, labels, weights if there are any, and whatever tells the groups apart."""
    weights = [] if comments.weights is None else [comments.weights.tolist()]
    content = json.dumps([list(comments.texts), comments.labels.tolist(), groups, *weights])
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def _toxic(classifier: Classifier, texts: Sequence[str]) -> Callable[[nn.Module], Tensor]:
    def predict(model: nn.Module) -> Tensor:
        margins = margins_of(model, classifier.encode, texts)
        return torch.where(margins.isnan(), -1, (margins > 0).long())

    return predict
