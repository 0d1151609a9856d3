"""Labeled images as plain tensors, and a stratified split of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..._moved import renamed


@dataclass(frozen=True, eq=False)  # tensors have no single truth value, so a generated __eq__ would raise
class LabeledImages:
    """Images with one class label each, checked when constructed.

    Attributes:
        images: uint8 [S, C, H, W], gray levels 0..255.
        labels: int64 [S], class indices from 0.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: a shape is wrong, the lengths differ or a label is negative.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8:
            raise TypeError(f"images: expected dtype uint8, got {self.images.dtype}")
        if self.images.ndim != 4:
            raise ValueError(f"images: expected shape [S, C, H, W], got {list(self.images.shape)}")
        _check_labels(self.labels)
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"labels: expected one for each of the {len(self.images)} images, got {len(self.labels)}"
            )

    def __len__(self) -> int:
        """The number of samples S."""
        return len(self.labels)

    def subset(self, indices: Tensor) -> LabeledImages:
        """The samples at ``indices`` (int64 [K], 0..S-1) in that order, or where a bool [S] mask is true.

        Raises:
            TypeError: ``indices`` is neither int64 nor bool.
            ValueError: it is not one-dimensional, or a mask has another length than S.
            IndexError: an index is outside 0..S-1 (negative ones too: they are more often a bug than a wish).
        """
        check_indices(indices, len(self))
        return LabeledImages(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set with its publisher's train/test split.

    Attributes:
        name: what :func:`rledit.zoo.data.load` calls it.
        train, test: the two splits; image shapes agree between them.
        classes: the names of the classes; label c means ``classes[c]``.

    Raises:
        ValueError: a label has no class name, or the image shapes of the splits differ.
    """

    name: str
    train: LabeledImages
    test: LabeledImages
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for split_name, part in (("train", self.train), ("test", self.test)):
            if len(part) and int(part.labels.max()) >= len(self.classes):
                raise ValueError(
                    f"{split_name}: labels of {self.name!r} must be in 0..{len(self.classes) - 1} "
                    f"({len(self.classes)} classes), got {int(part.labels.max())}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ValueError(
                f"test: expected images of shape {list(self.train.images.shape[1:])} as in train, "
                f"got {list(self.test.images.shape[1:])}"
            )


def split(labels: Tensor, sizes: Sequence[int] | Sequence[float], seed: int) -> tuple[Tensor, ...]:
    """Disjoint random parts of a data set, each with the class proportions of the whole.

    The order of the indices is random but stratified as well: the first K of a part are a stratified
    subset of it, so a smaller part can be cut off without splitting again.

    Args:
        labels: int64 [S], the class of each sample.
        sizes: the size of each part, either all integers (samples, sum at most S) or all floats
            (fractions of S, sum at most 1, each rounded to a whole number of samples). What is left
            over is in no part.
        seed: seed of the shuffle. The same labels, sizes and seed give the same parts.

    Returns:
        One int64 index tensor per size, without duplicates in or between them. If the classes are
        of equal size, their counts in a part differ by at most 1; else they are near their exact shares.

    Raises:
        TypeError: ``labels`` is not int64, or ``sizes`` mixes integers and floats.
        ValueError: ``labels`` is empty or negative, or ``sizes`` is empty, negative or too large.
    """
    _check_labels(labels)
    total = len(labels)
    if total == 0:
        raise ValueError("labels: expected at least one, got none")
    counts = _part_sizes(sizes, total)

    generator = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    shuffled = torch.randperm(total, generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    class_counts = torch.bincount(labels)
    classes = len(class_counts)
    of = labels[by_class]
    rank = torch.arange(total) - (torch.cumsum(class_counts, 0) - class_counts)[of]
    # The r-th of a class's n samples is put at (r + u) / n of the way, so that walking along meets every
    # class at its own steady rate and any consecutive stretch is stratified. The phases u differ by class,
    # evenly spread: with equal ones, small classes would all be met at the same few places.
    phase = (torch.randperm(classes, generator=generator).double() + 0.5) / classes
    order = by_class[torch.argsort((rank + phase[of]) / class_counts[of], stable=True)]
    return tuple(part.clone() for part in torch.split(order, [*counts, total - sum(counts)])[:-1])


def check_indices(indices: Tensor, count: int) -> None:
    """Raise TypeError, ValueError or IndexError unless these are positions below count or a mask of count."""
    if indices.ndim != 1:
        raise ValueError(f"indices: expected one dimension, got shape {list(indices.shape)}")
    if indices.dtype == torch.bool:
        if len(indices) != count:
            raise ValueError(f"indices: expected a mask of length {count}, got {len(indices)}")
    elif indices.dtype != torch.int64:
        raise TypeError(f"indices: expected dtype int64 or bool, got {indices.dtype}")
    elif indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        raise IndexError(f"indices: expected 0..{count - 1}, got {int(indices.min())}..{int(indices.max())}")


def _part_sizes(sizes: Sequence[int] | Sequence[float], total: int) -> list[int]:
    """``sizes`` as sample counts whose sum is at most ``total``."""
    if len(sizes) == 0:
        raise ValueError("sizes: expected at least one, got none")
    kinds = {type(size) for size in sizes}
    if kinds not in ({int}, {float}):
        raise TypeError(f"sizes: expected all integers or all floats, got {list(sizes)}")
    if not all(0 <= size <= (total if kinds == {int} else 1) for size in sizes):  # false for NaN too
        limit = f"0..{total} samples" if kinds == {int} else "fractions in 0..1"
        raise ValueError(f"sizes: expected {limit}, got {list(sizes)}")
    if kinds == {int}:
        counts = [int(size) for size in sizes]
        if sum(counts) > total:
            raise ValueError(f"sizes: expected a sum of at most {total} samples, got {sum(counts)}")
        return counts
    if sum(sizes) > 1 + 1e-9:  # 0.7 + 0.2 + 0.1 is not exactly 1 in binary
        raise ValueError(f"sizes: expected fractions with a sum of at most 1, got {sum(sizes)}")
    # Rounding the running sum, not each part, keeps the total exact: thirds of 10 are 3, 4 and 3.
    bounds = [0]
    reached = 0.0
    for size in sizes:
        reached += size
        bounds.append(min(round(reached * total), total))
    return [after - before for before, after in pairwise(bounds)]


def _check_labels(labels: Tensor) -> None:
    if labels.dtype != torch.int64:
        raise TypeError(f"labels: expected dtype int64, got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"labels: expected shape [S], got {list(labels.shape)}")
    if labels.numel() and int(labels.min()) < 0:
        raise ValueError(f"labels: expected class indices from 0, got {int(labels.min())}")


def __getattr__(name: str) -> object:
    return renamed(__name__, name)
