"""The splits of a data set, and a model's accuracies on the one that is read at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...audits import Audit, AuditData, intervals, run_audits
from ...audits.estimates import proportion
from ...audits.unlearning import AUDITS
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
        self.seed = seed
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

    def audit_data(
        self,
        forget: tuple[int, ...],
        *,
        layers: tuple[str, ...] = (),
        unedited: nn.Module | None = None,
        retrained: nn.Module | None = None,
        whole: bool = False,
    ) -> AuditData:
        """The reward and the test split. A group without test images is left out.

        Args:
            forget: the forgotten classes.
            layers, unedited, retrained: see :class:`AuditData`.
            whole: with all images that the model was trained on, of which the reward split is a part.
        """
        forgotten = torch.isin(self.test.labels, torch.tensor(forget))
        groups = {"forget": forgotten, "retain": ~forgotten}
        present = {name: mask for name, mask in groups.items() if bool(mask.any())}
        return AuditData(
            train=self.samples(self.reward, forget),
            test=Samples(self.inputs(self.test), self.test.labels, present),
            classes=len(self.classes),
            layers=layers,
            trained=self.samples(self.train, forget) if whole else None,
            unedited=unedited,
            retrained=retrained,
            seed=self.seed,
        )

    def check(self, forget: tuple[int, ...]) -> None:
        """Raise ValueError for a class that the data set does not have."""
        for label in forget:
            if not 0 <= label < len(self.classes):
                raise ValueError(f"forget: {self.name} has classes 0..{len(self.classes) - 1}, got {label}")
        if len(forget) == len(self.classes):
            raise ValueError(f"forget: these are all classes of {self.name}; nothing is left to retain")


def evaluate(
    model: nn.Module,
    data: UnlearningData,
    forget: tuple[int, ...],
    audits: Sequence[Audit] = AUDITS,
    asked: AuditData | None = None,
) -> dict[str, Json]:
    """Accuracies on the test split, from the model itself, as fractions, and the figures of audits, which
    learn what they have to from the reward split; "intervals", by key, at 95%.

    Args:
        model: what is evaluated.
        data: the splits.
        forget: the forgotten classes.
        audits: what is measured besides its accuracies.
        asked: what audits read; by default :meth:`UnlearningData.audit_data` without other models.
    """
    recall = per_class_accuracy(model, data.inputs(data.test), data.test.labels, len(data.classes))
    counts = torch.bincount(data.test.labels, minlength=len(data.classes))
    hits = (recall.nan_to_num() * counts).round().long()
    forgotten = torch.zeros(len(data.classes), dtype=torch.bool)
    forgotten[list(forget)] = True

    def over(mask: Tensor) -> float:
        return proportion(int(hits[mask].sum()), int(counts[mask].sum()))

    accuracies = {"forget_accuracy": over(forgotten), "retain_accuracy": over(~forgotten)}
    figures = accuracies | run_audits(audits, model, asked or data.audit_data(forget))
    return plain_figures(figures) | {"per_class_accuracy": recall.tolist()}


def plain_figures(figures: dict[str, float]) -> dict[str, Json]:
    """Figures as metrics.json has them: numbers, and "intervals" at 95%, by key."""
    return {key: float(figure) for key, figure in figures.items()} | {"intervals": intervals(figures)}
