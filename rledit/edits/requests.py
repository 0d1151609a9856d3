"""Carry out requests to forget one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .edit import Edit
from .ledger import LabeledSamples, Ledger, accuracies

MakeEdit = Callable[[nn.Module, tuple[int, ...]], Edit]
"""Makes an edit of a model that forgets some classes: all that were asked for so far, the newest last."""

MOST = 0.01
"""Recall up to which a class counts as forgotten."""


@dataclass(frozen=True, eq=False)
class InTurn:
    """What became of requests that were carried out one after another.

    Attributes:
        requests: K classes in the order in which they were to be forgotten.
        ledger: with an edit "forget c" for each, on the base.
        classes: the C labels that the samples have.
        recall: recall of each class before the first edit and after each, float64 [K + 1, C].
    """

    requests: tuple[int, ...]
    ledger: Ledger
    classes: tuple[int, ...]
    recall: Tensor

    def came_back(self, most: float = MOST) -> list[tuple[int, int, float]]:
        """Where a class whose recall was at most ``most`` after its own request was above that later.

        Returns:
            (number of edits, 1 to K; class; recall), in order.
        """
        found = []
        for done in range(2, len(self.requests) + 1):
            for place, label in enumerate(self.requests[: done - 1], 1):
                column = self.classes.index(label)
                first, now = float(self.recall[place, column]), float(self.recall[done, column])
                if first <= most < now:
                    found.append((done, label, now))
        return found

    def not_forgotten(self, most: float = MOST) -> list[tuple[int, float]]:
        """(class, recall) of requests with a recall above ``most`` after the edit that was to forget them."""
        own = [
            (label, float(self.recall[place, self.classes.index(label)]))
            for place, label in enumerate(self.requests, 1)
        ]
        return [(label, recall) for label, recall in own if recall > most]

    def retained(self) -> list[float]:
        """Mean recall of the classes that nobody asked to forget so far, before the first edit and after
        each."""
        means = []
        for done in range(len(self.requests) + 1):
            kept = [c not in self.requests[:done] for c in self.classes]
            means.append(float(self.recall[done, torch.tensor(kept)].mean()))
        return means

    def __str__(self) -> str:
        width = max(len(f"forget {label}") for label in self.requests)
        lines = [" " * width + "".join(f"{f'class {c}':>9}" for c in self.classes) + f"{'others':>9}"]
        names = ["before", *(f"forget {label}" for label in self.requests)]
        for name, row, kept in zip(names, self.recall.tolist(), self.retained(), strict=True):
            lines.append(f"{name:{width}}" + "".join(f"{value:9.2%}" for value in (*row, kept)))
        for label, recall in self.not_forgotten():
            lines.append(f"class {label} was not forgotten: {recall:.2%} after its own edit")
        for done, label, recall in self.came_back():
            lines.append(f"class {label} came back: {recall:.2%} after forget {self.requests[done - 1]}")
        if not self.not_forgotten() and not self.came_back():
            lines.append(f"every class stays forgotten: at most {MOST:.0%} at any time after its request")
        return "\n".join(lines)


def forget_in_turn(
    model: nn.Module, requests: Sequence[int], make_edit: MakeEdit, samples: LabeledSamples
) -> InTurn:
    """Forget classes one after another, each edit on top of those before.

    Every edit is asked to forget the earlier classes, too: what one edit has suppressed, another may bring
    back.

    Args:
        model: the base, in eval mode; it is left as it is.
        requests: classes, each once.
        make_edit: see :data:`MakeEdit`. It must not choose by the samples below.
        samples: what recall is measured on, an untouched test split.

    Raises:
        ValueError: no request, one twice, a class without a sample, all classes there are, or an edit that
            was made for another model than the one that was handed over.
    """
    asked = tuple(int(label) for label in requests)
    classes = tuple(int(label) for label in samples.labels.unique().tolist())
    if not asked or len(set(asked)) != len(asked):
        raise ValueError(f"requests: expected some different classes, got {list(asked)}")
    if missing := [label for label in asked if label not in classes]:
        raise ValueError(f"requests: the samples have classes {list(classes)}, got {missing[0]}")
    if len(asked) == len(classes):
        raise ValueError("requests: these are all classes there are; nothing is left to retain")
    ledger, edited = Ledger(model), deepcopy(model)
    rows = [_recall(edited, samples, classes)]
    for done, label in enumerate(asked, 1):
        edit = make_edit(edited, asked[:done])
        ledger.append(edit, f"forget {label}", model)
        deepcopy(edit).apply_(edited)
        rows.append(_recall(edited, samples, classes))
    return InTurn(asked, ledger, classes, torch.tensor(rows, dtype=torch.float64))


def _recall(model: nn.Module, samples: LabeledSamples, classes: Sequence[int]) -> list[float]:
    found = accuracies(model, samples)
    return [found[f"class {label}"] for label in classes]
