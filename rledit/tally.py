"""Tally: the counts that a batch of candidates gets, by the names of the groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from . import _native
from .ops.counts import TALLY_PARTS, Counts

T = TypeVar("T")

MOST_SHOWN = 4
"""Groups that a tally's repr names."""


class ByGroup(dict[str, T]):
    """A dict by group whose KeyError says which groups there are."""

    def __missing__(self, group: object) -> NoReturn:
        raise KeyError(f"group: expected one of {', '.join(self)}; got {group!r}")


class Grouped(Mapping[str, Tensor]):
    """Counts [N, G, ...] read by group: ``grouped["forget"]`` is [N, ...]."""

    def __init__(self, counts: Tensor, groups: Sequence[str]) -> None:
        self.counts = counts
        self._index = ByGroup({name: i for i, name in enumerate(groups)})

    def __getitem__(self, group: str) -> Tensor:
        return self.counts[:, self._index[group]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Grouped({', '.join(self._index)}; {list(self.counts.shape)})"


class LabelCount:
    """How many samples there are per group, and per group and class: the same for every tally of a split.

    Known on the host, so that nothing waits for a GPU to tell, and copied to a GPU once.

    Args:
        labels: int64 [S].
        groups: bool [S] masks by name.
        classes: C.
        fit: bool [S], the samples that a probe learns from (:class:`rledit.ops.Probe`); None: no probe.

    Attributes:
        total: samples per group.
        classes: samples of each class, per group.
        judged: samples per group that a probe is judged by; None: no probe.
    """

    def __init__(
        self, labels: Tensor, groups: Mapping[str, Tensor], classes: int, fit: Tensor | None = None
    ) -> None:
        counted = [torch.bincount(labels[mask], minlength=classes).cpu() for mask in groups.values()]
        judged = None if fit is None else {name: int((mask & ~fit).sum()) for name, mask in groups.items()}
        self._fill(torch.stack(counted), groups, judged)

    @classmethod
    def of_table(cls, table: Tensor, groups: Sequence[str]) -> LabelCount:
        """A label count from the counts themselves, int64 [G, C]."""
        made = cls.__new__(cls)
        made._fill(table, groups)
        return made

    def _fill(self, table: Tensor, groups: Iterable[str], judged: Mapping[str, int] | None = None) -> None:
        by_name = zip(groups, table.tolist(), strict=True)
        self.judged: dict[str, int] | None = None if judged is None else ByGroup(judged)
        self.classes: dict[str, list[int]] = ByGroup(dict(by_name))
        self.total: dict[str, int] = ByGroup({name: sum(count) for name, count in self.classes.items()})
        self._index = ByGroup({name: i for i, name in enumerate(self.classes)})
        self._table = table  # [G, C]
        self._copies: dict[Any, Tensor] = {}

    def table(self, groups: tuple[str, ...], device: torch.device) -> Tensor:
        """Samples of each class in K groups, int64 [K, C]."""
        return self._copy(("table", groups, device), lambda: self._table[self._rows(groups)])

    def rows(self, groups: tuple[str, ...], device: torch.device) -> Tensor:
        """The positions of K groups among all, int64 [K]."""
        return self._copy(("rows", groups, device), lambda: torch.tensor(self._rows(groups)))

    def row(self, group: str) -> int:
        """The position of a group among all."""
        return self._index[group]

    def _rows(self, groups: tuple[str, ...]) -> list[int]:
        return [self._index[name] for name in groups]

    def _copy(self, key: tuple[str, tuple[str, ...], torch.device], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._copies:
            self._copies[key] = make().to(key[2])
        return self._copies[key]


class Tally:
    """The counts of N candidates on some samples. Integers wherever possible, so that they repeat exactly.

    Attributes:
        groups: names of the groups.
        count: samples per group; ``count["forget"]`` is an int.
        correct: ``correct["forget"]``, int64 [N].
        predicted: ``predicted["forget"]``, int64 [N, C], how often each class was predicted.
        confusion: ``confusion["forget"]``, int64 [N, C, C], label by prediction.
        loss: ``loss["forget"]``, float64 [N], the sum of cross-entropy in nats.
        histogram: ``histogram["forget"]``, int64 [N, 2, bins], label by bin of logit[1] - logit[0].
        concordant: ``concordant["a"]``, int64 [N, G], see :func:`rledit.ops.concordant_pairs`; :meth:`auc`
            is easier to read.
        recalled: ``recalled["forget"]``, int64 [N], see :func:`rledit.ops.tally_features_ref`;
            :meth:`probe_recall` is easier to read.
        nearest: ``nearest["forget"]``, int64 [N], the same for :meth:`nearest_recall`.
        lower_loss: ``lower_loss["forget"]``, int64 [N, G], see :func:`rledit.ops.lower_loss_pairs`;
            :meth:`membership_auc` is easier to read.

    A part that was not asked for raises AttributeError, which says how to ask. Wherever a group is named, an
    unknown one raises KeyError, which lists the groups.
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

    def _of(self, part: str, group: str) -> Tensor:
        """A part of one group [N, ...]. The group is checked first: its name may be wrong in any case."""
        row = self.row(group)
        return self._part(part).counts[:, row]

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
    def recalled(self) -> Grouped:
        return self._part("recalled")

    @property
    def nearest(self) -> Grouped:
        return self._part("nearest")

    @property
    def lower_loss(self) -> Grouped:
        return self._part("lower_loss")

    @property
    def candidates(self) -> int:
        """N, the number of candidates."""
        return next(part.shape[0] for part in self.counts if part.dim() > 1)

    def accuracy(self, group: str) -> Tensor:
        """Share of the group's samples that are predicted right, float64 [N], 0 to 1."""
        return self._of("correct", group).double() / self.count[group]

    def weigh(self, *terms: tuple[str, float]) -> Tensor:
        """The sum of weight * accuracy over some groups, float64 [N]; computed by the compiled core.

        Args:
            terms: pairs of a group and its weight; a group may come several times.

        Raises:
            KeyError: for an unknown group.
            ValueError: for no terms, or something other than pairs.
        """
        if not terms:
            raise ValueError("terms: expected at least one pair (group, weight), got none")
        for term in terms:
            if isinstance(term, str) or len(term) != 2:
                raise ValueError(f"terms: expected pairs (group, weight), got {term!r}")
        shares = [(self.row(group), float(weight), float(self.count[group])) for group, weight in terms]
        correct = self._part("correct").counts
        if correct.device.type != "cpu":
            return torch.stack([weight * self.accuracy(group) for group, weight in terms]).sum(0)
        return torch.from_numpy(_native.weigh_shares(correct.numpy(), shares))

    @property
    def device(self) -> torch.device:
        """Device of the counts."""
        return self.counts.correct.device

    def label_count(self, group: str) -> Tensor:
        """How many samples of the group have each label, int64 [C], the same for all candidates."""
        return self._labels.table((group,), self.device)[0]

    def labels_of(self, group: str) -> list[int]:
        """:meth:`label_count` as a list, for which nothing waits for a GPU."""
        return self._labels.classes[group]

    def label_table(self, groups: tuple[str, ...]) -> Tensor:
        """:meth:`label_count` of K groups, int64 [K, C]."""
        return self._labels.table(groups, self.device)

    def rows(self, groups: tuple[str, ...]) -> Tensor:
        """The positions of K groups among :attr:`groups`, int64 [K]."""
        return self._labels.rows(groups, self.device)

    def row(self, group: str) -> int:
        """The position of a group among :attr:`groups`."""
        return self._labels.row(group)

    def clone(self) -> Tally:
        """A copy with its own counts."""
        return Tally(Counts(*(part.clone() for part in self.counts)), self.groups, self._labels)

    def auc(self, positives: str, negatives: str | None = None) -> Tensor:
        """Area under the ROC curve, float64 [N], from margins in bins.

        Args:
            positives: the group whose samples of label 1 are to be ranked above
            negatives: the samples of label 0 of this group; by default of the same.

        Returns:
            NaN for all candidates if there are no such positives or negatives.

        Raises:
            KeyError: for an unknown group.
        """
        other = positives if negatives is None else negatives
        column = self.row(other)
        concordant = self._of("concordant", positives)[:, column].double()
        pairs = self.labels_of(positives)[1] * self.labels_of(other)[0]
        return concordant / (2 * pairs) if pairs else torch.full_like(concordant, math.nan)

    def membership_auc(self, members: str, others: str) -> Tensor:
        """How well a low loss gives a group's samples away, float64 [N]: the AUC of the loss attack.

        The share of pairs of a member and another in which the member's loss is lower, those in the same bin
        counted by half (:func:`rledit.ops.lower_loss_pairs`). 0.5: the losses tell nothing.

        Args:
            members: the group whose samples are said to have the lower losses.
            others: the group that they are compared with.

        Returns:
            NaN for all candidates if either group is empty.

        Raises:
            KeyError: for an unknown group.
        """
        column = self.row(others)
        lower = self._of("lower_loss", members)[:, column].double()
        pairs = self.count[members] * self.count[others]
        return lower / (2 * pairs) if pairs else torch.full_like(lower, math.nan)

    def probe_recall(self, group: str) -> Tensor:
        """Share of the group's judged samples whose class a fresh ridge probe on the features knows, float64
        [N], 0 to 1; NaN for all candidates if none of the group is judged. See :class:`rledit.ops.Probe`.

        Raises:
            KeyError: for an unknown group.
        """
        return self._share_of_judged("recalled", group)

    def nearest_recall(self, group: str) -> Tensor:
        """The same share of samples whose features' nearest class mean is that of their class."""
        return self._share_of_judged("nearest", group)

    def _share_of_judged(self, part: str, group: str) -> Tensor:
        known = self._of(part, group).double()
        if self._labels.judged is None:
            raise ValueError(f"{part}: this tally does not know which samples were judged: no LabelCount.fit")
        judged = self._labels.judged[group]
        return known / judged if judged else torch.full_like(known, math.nan)

    def judged(self, group: str) -> int:
        """How many of the group's samples a probe is judged by; all of them where nothing was probed.

        Raises:
            KeyError: for an unknown group.
        """
        return (self.count if self._labels.judged is None else self._labels.judged)[group]

    def mean_loss(self, group: str) -> Tensor:
        """Mean cross-entropy of the group, float64 [N], nats."""
        return self._of("loss", group) / self.count[group]

    def per_class_accuracy(self, group: str) -> Tensor:
        """Recall of each class in the group, float64 [N, C]; NaN for a class without samples."""
        hits = torch.diagonal(self._of("confusion", group), dim1=1, dim2=2)
        recall: Tensor = hits.double() / self.label_count(group).double()
        return recall

    def __repr__(self) -> str:
        sizes = [f"{name}: {size}" for name, size in list(self.count.items())[:MOST_SHOWN]]
        if len(self.groups) > MOST_SHOWN:
            sizes.append(f"{len(self.groups) - MOST_SHOWN} more")
        counted = [name for name, part in zip(TALLY_PARTS, self.counts, strict=True) if part.dim() > 1]
        return f"Tally({self.candidates} candidates, groups={{{', '.join(sizes)}}}, {', '.join(counted)})"
