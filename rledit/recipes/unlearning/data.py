"""The splits of a data set, and a model's accuracies on the one that is read at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...audits.linear_probe import linear_probe
from ...samples import Samples, forget_groups
from ...storage.files import Json
from ...zoo import models
from ...zoo.data import Dataset, LabeledImages, split
from ...zoo.training import per_class_accuracy
from .config import DEFAULTS


class UnlearningData:
    """The three splits of a data set, as a model takes them.

    The publisher's test set is the test split. The training set is cut by class and seed: ``validation`` is
    held out of pretraining, ``reward`` is a part of what the model was trained on.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        defaults = DEFAULTS[dataset.name]
        rest = len(dataset.train) - defaults.validation
        held_out, trained = split(dataset.train.labels, [defaults.validation, rest], seed)
        self.name = dataset.name
        self.classes = dataset.classes
        self.train = dataset.train.subset(trained)
        self.validation = dataset.train.subset(held_out)
        # Every prefix of a part is stratified too.
        self.reward = dataset.train.subset(trained[: defaults.reward])
        self.test = dataset.test

    def inputs(self, images: LabeledImages) -> Tensor:
        return models.normalize(self.name, images.images)

    def samples(self, images: LabeledImages, forget: tuple[int, ...]) -> Samples:
        return Samples(self.inputs(images), images.labels, forget_groups(images.labels, forget))

    def check(self, forget: tuple[int, ...]) -> None:
        """Raise ValueError for a class that the data set does not have."""
        for label in forget:
            if not 0 <= label < len(self.classes):
                raise ValueError(f"forget: {self.name} has classes 0..{len(self.classes) - 1}, got {label}")
        if len(forget) == len(self.classes):
            raise ValueError(f"forget: these are all classes of {self.name}; nothing is left to retain")


def evaluate(model: nn.Module, data: UnlearningData, forget: tuple[int, ...]) -> dict[str, Json]:
    """Accuracies on the test split, from the model itself, as fractions.

    ``forget_probe_accuracy`` is what a linear probe on the last features, trained on the reward split with
    all classes, still recalls of the forgotten ones.
    """
    inputs = data.inputs(data.test)
    recall = per_class_accuracy(model, inputs, data.test.labels, len(data.classes))
    probed = linear_probe(
        model, data.inputs(data.reward), data.reward.labels, inputs, data.test.labels, len(data.classes)
    )
    counts = torch.bincount(data.test.labels, minlength=len(data.classes)).double()
    forgotten = torch.zeros(len(data.classes), dtype=torch.bool)
    forgotten[list(forget)] = True

    def over(rates: Tensor, mask: Tensor) -> float:
        return float((rates * counts)[mask].sum() / counts[mask].sum())

    return {
        "forget_accuracy": over(recall, forgotten),
        "retain_accuracy": over(recall, ~forgotten),
        "forget_probe_accuracy": over(probed, forgotten),
        "per_class_accuracy": recall.tolist(),
    }
