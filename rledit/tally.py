"""Tally: the counts that a batch of candidates gets, by the names of the groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _native
from .ops.counts import Counts


class Grouped(Mapping[str, Tensor]):
    """Counts [N, G, ...] read by group: ``grouped["forget"]`` is [N, ...]."""

    def __init__(self, counts: Tensor, groups: Sequence[str]) -> None:
        self.counts = counts
        self._index = {name: i for i, name in enumerate(groups)}

    def __getitem__(self, group: str) -> Tensor:
        if group not in self._index:
            raise KeyError(f"group: expected one of {', '.join(self._index)}; got {group!r}")
        return self.counts[:, self._index[group]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


class LabelCount:
    """How many samples there are per group, and per group and class: the same for every tally of a split.

    Known on the host, so that nothing waits for a GPU to tell, and copied to a GPU once.

    Attributes:
        total: samples per group.
        classes: samples of each class, per group.
    """

    def __init__(self, labels: Tensor, groups: Mapping[str, Tensor], classes: int) -> None:
        """``groups``: bool [S] masks by name."""
        counted = [torch.bincount(labels[mask], minlength=classes).cpu() for mask in groups.values()]
        self.classes: dict[str, list[int]] = {
            name: count.tolist() for name, count in zip(groups, counted, strict=True)
        }
        self.total = {name: sum(count) for name, count in self.classes.items()}
        self._index = {name: i for i, name in enumerate(groups)}
        self._table = torch.stack(counted)  # [G, C]
        self._copies: dict[Any, Tensor] = {}

    def table(self, groups: tuple[str, ...], device: torch.device) -> Tensor:
        """Int64 [K, C] of K groups."""
        return self._copy(("table", groups, device), lambda: self._table[self._rows(groups)])

    def rows(self, groups: tuple[str, ...], device: torch.device) -> Tensor:
        """Int64 [K], where K groups stand among all."""
        return self._copy(("rows", groups, device), lambda: torch.tensor(self._rows(groups)))

    def _rows(self, groups: tuple[str, ...]) -> list[int]:
        return [self._index[name] for name in groups]

    def _copy(self, key: tuple[str, tuple[str, ...], torch.device], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._copies:
            self._copies[key] = make().to(key[2])
        return self._copies[key]


class Tally:
    """What N candidates got on some samples. Integer wherever it can be, so it repeats exactly.

    Attributes:
        groups: names of the groups.
        count: samples per group, ``count["forget"]`` is an int.
        correct: ``correct["forget"]``, int64 [N].
        predicted: ``predicted["forget"]``, int64 [N, C], how often each class was predicted.
        confusion: ``confusion["forget"]``, int64 [N, C, C], label by prediction.
        loss: ``loss["forget"]``, float64 [N], the sum of cross-entropy in nats.
        histogram: ``histogram["forget"]``, int64 [N, 2, bins], label by bin of logit[1] - logit[0].
        concordant: ``concordant["a"]``, int64 [N, G], see :func:`rledit.ops.concordant_pairs`; :meth:`auc`
            is easier to read.

    A part that nobody asked for raises AttributeError and says how to ask.
    """

    def __init__(self, counts: Counts, groups: Sequence[str], label_count: LabelCount) -> None:
        self.counts = counts
        self.groups = tuple(groups)
        self.count = label_count.total
        self._labels = label_count

    def _part(self, name: str) -> Grouped:
        counts: Tensor = getattr(self.counts, name)
        if counts.dim() == 1:
            raise AttributeError(
                f"{name} was not counted: add it to the objective's `needs` (of a plain function: "
                f"rledit.Function(function, needs=[{name!r}])), or call score(..., wanted=[{name!r}])"
            )
        return Grouped(counts, self.groups)

    @property
    def correct(self) -> Grouped:
        return self._part("correct")

    @property
    def predicted(self) -> Grouped:
        return self._part("predicted")

    @property
    def confusion(self) -> Grouped:
        return self._part("confusion")

    @property
    def loss(self) -> Grouped:
        return self._part("loss")

    @property
    def histogram(self) -> Grouped:
        return self._part("histogram")

    @property
    def concordant(self) -> Grouped:
        return self._part("concordant")

    @property
    def candidates(self) -> int:
        """N."""
        return next(part.shape[0] for part in self.counts if part.dim() > 1)

    def accuracy(self, group: str) -> Tensor:
        """Share of the group's samples that are predicted right, float64 [N], 0 to 1."""
        return self.correct[group].double() / self.count[group]

    def weigh(self, *terms: tuple[str, float]) -> Tensor:
        """Sum of weight * accuracy over (group, weight), float64 [N]; computed in the core."""
        correct = self._part("correct").counts
        if correct.device.type != "cpu":
            return torch.stack([weight * self.accuracy(group) for group, weight in terms]).sum(0)
        shares = [(self.groups.index(group), weight, float(self.count[group])) for group, weight in terms]
        return torch.from_numpy(_native.weigh_shares(correct.numpy(), shares))

    @property
    def device(self) -> torch.device:
        """Of the counts."""
        return self.counts.correct.device

    def label_count(self, group: str) -> Tensor:
        """How many samples of the group have each label, int64 [C]: the same for all candidates."""
        return self._labels.table((group,), self.device)[0]

    def labels_of(self, group: str) -> list[int]:
        """The same on the host."""
        return self._labels.classes[group]

    def label_table(self, groups: tuple[str, ...]) -> Tensor:
        """The same of K groups, int64 [K, C]."""
        return self._labels.table(groups, self.device)

    def rows(self, groups: tuple[str, ...]) -> Tensor:
        """Where K groups stand among :attr:`groups`, int64 [K]."""
        return self._labels.rows(groups, self.device)

    def clone(self) -> Tally:
        """With counts of its own."""
        return Tally(Counts(*(part.clone() for part in self.counts)), self.groups, self._labels)

    def auc(self, positives: str, negatives: str | None = None) -> Tensor:
        """Area under the ROC curve, float64 [N], of a group's positives (label 1) against the negatives of
        another, or its own; NaN where there are none of either. From margins cut into bins."""
        other = positives if negatives is None else negatives
        pairs = self.labels_of(positives)[1] * self.labels_of(other)[0]
        concordant = self.concordant[positives][:, self.groups.index(other)].double()
        return concordant / (2 * pairs) if pairs else torch.full_like(concordant, math.nan)

    def mean_loss(self, group: str) -> Tensor:
        """Mean cross-entropy of the group, float64 [N], nats."""
        return self.loss[group] / self.count[group]

    def per_class_accuracy(self, group: str) -> Tensor:
        """Recall of each class in the group, float64 [N, C]; NaN for a class without samples."""
        hits = torch.diagonal(self.confusion[group], dim1=1, dim2=2)
        recall: Tensor = hits.double() / self.label_count(group).double()
        return recall

    def __repr__(self) -> str:
        return f"Tally({self.candidates} candidates, count={self.count})"
