"""The splits of an unlearning run as its record states them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...experiments.record import Bounded, Population
from ...samples import Samples
from ...storage.fingerprint import fingerprint
from ...zoo.data import LabeledImages
from .data import UnlearningData

BATCH = 1000
"""Batch size, that of the figures of the report, so that both come from exactly the same sums."""


def populations(data: UnlearningData, forget: tuple[int, ...]) -> dict[str, Population]:
    """All splits. Bounds: how often the forgotten classes are still named, and what the others lost."""
    train = {"images": data.train.images, "labels": data.train.labels}
    reward = _samples(data, data.reward, forget)
    validation = _samples(data, data.validation, forget)
    test = _samples(data, data.test, forget)
    bounds: dict[str, Bounded] = {"forget": "accuracy", "retain": "loss"}
    return {
        "train": Population(len(data.train), fingerprint(train)),
        "reward": Population.of(reward),
        "validation": Population.of(validation, _predictions(validation)),
        "test": Population.of(test, _predictions(test), bounds),
    }


def _samples(data: UnlearningData, images: LabeledImages, forget: tuple[int, ...]) -> Samples:
    """A split's samples, without groups that have no images."""
    forgotten = torch.isin(images.labels, torch.tensor(forget))
    groups = {"forget": forgotten, "retain": ~forgotten}
    present = {name: mask for name, mask in groups.items() if bool(mask.any())}
    return Samples(data.inputs(images), images.labels, present)


def _predictions(samples: Samples) -> Callable[[nn.Module], Tensor]:
    """The classes that a model in eval mode predicts."""

    def predict(model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return torch.cat([model(batch).argmax(1) for batch in samples.batches(BATCH)]).clone()

    return predict
