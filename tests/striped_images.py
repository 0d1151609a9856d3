"""Images like MNIST's whose class is where their stripe lies."""

from __future__ import annotations

import torch
from torch import Tensor

from rledit.zoo.data import Dataset, LabeledImages


def images(labels: Tensor, seed: int) -> LabeledImages:
    """uint8 [S, 1, 28, 28]."""
    noise = torch.randint(0, 60, (len(labels), 1, 28, 28), generator=torch.Generator().manual_seed(seed))
    for i, label in enumerate(labels.tolist()):
        noise[i, :, 5 * label : 5 * label + 5] += 180
    return LabeledImages(noise.to(torch.uint8), labels)


def dataset(seed: int = 0, test_labels: Tensor | None = None) -> Dataset:
    """Of three classes, under the name of a known data set."""
    test_labels = torch.arange(60) % 3 if test_labels is None else test_labels
    train, test = images(torch.arange(920) % 3, seed), images(test_labels, seed + 1)
    return Dataset("mnist5k", train, test, ("a", "b", "c"))
