"""What ``score_tail`` and ``tally_logits`` are asked to count, and what they return."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .probe import PROBE_PARTS

TALLY_PARTS = (
    "correct",
    "predicted",
    "confusion",
    "loss",
    "histogram",
    "concordant",
    "recalled",
    "nearest",
    "lower_loss",
)
"""Everything that can be counted."""

INVALID_LOSS = 3.4028234663852886e38
"""What a sample with a logit that is not finite adds to ``loss``: the largest float32, so that sums stay
finite and such a candidate loses every comparison."""

MAX_GROUPS = 64


class Wanted(NamedTuple):
    """What a call is to count.

    Attributes:
        parts: some of :data:`TALLY_PARTS`.
        bins: bins of the margin histogram. They divide [-margin_limit, margin_limit] evenly; margins beyond
            it are counted in the outermost bins.
        margin_limit: in units of the logits.
    """

    parts: Sequence[str]
    bins: int = 1024
    margin_limit: float = 16.0

    @property
    def binned(self) -> bool:
        """Whether margins are counted in bins."""
        return "histogram" in self.parts or "concordant" in self.parts

    @property
    def probes(self) -> bool:
        """Whether a probe of features is asked for, which logits alone do not answer."""
        return any(part in PROBE_PARTS for part in self.parts)

    def only(self, parts: Container[str]) -> Wanted:
        """What is wanted of these parts alone."""
        return self._replace(parts=[part for part in self.parts if part in parts])

    def without(self, parts: Container[str]) -> Wanted:
        """What is wanted without these parts."""
        return self._replace(parts=[part for part in self.parts if part not in parts])

    def check(self, classes: int) -> None:
        """Raise ValueError for an unknown part, margins of other than two classes, or bad bins."""
        for part in self.parts:
            if part not in TALLY_PARTS:
                raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got {part!r}")
            if part in ("histogram", "concordant") and classes != 2:
                raise ValueError(f"wanted: {part} needs 2 classes, got {classes}")
        if self.binned and (self.bins < 1 or not 0 < self.margin_limit < math.inf):
            raise ValueError(
                f"bins, margin_limit: expected positive numbers, got {self.bins} and {self.margin_limit}"
            )


_NOTHING = torch.empty(0, dtype=torch.int64)


class Counts(NamedTuple):
    """Counts per candidate (N), group (G) and class (C). A part that was not wanted has shape [0].

    A sample with a logit that is not finite is never correct and never predicted: it is missing from the
    counts up to ``concordant``. A candidate whose features are not finite counts as if a probe knew
    everything.
    """

    correct: Tensor  # [N, G] int64
    predicted: Tensor  # [N, G, C] int64
    confusion: Tensor  # [N, G, C (label), C (prediction)] int64
    loss: Tensor  # [N, G] float64, sum of cross-entropy, natural logarithm
    histogram: Tensor  # [N, G, 2 (label), bins] int64, of the margin logit[1] - logit[0]
    concordant: Tensor  # [N, G, G] int64, see concordant_pairs()
    # Samples that a probe did not learn from and yet knows, see tally_features_ref(): a ridge probe, ...
    recalled: Tensor = _NOTHING  # [N, G] int64
    nearest: Tensor = _NOTHING  # [N, G] int64, ... and the nearest class mean
    lower_loss: Tensor = _NOTHING  # [N, G, G] int64, see lower_loss_pairs()

    def __add__(self, other: object) -> Counts:
        """The sum with counts of the same candidates on other samples. ``concordant`` and ``lower_loss`` then
        lack the pairs of a sample from each; compute them from the summed histograms, or the bins of all
        losses, instead."""
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def check_samples(labels: Tensor, groups: Tensor, samples: int) -> None:
    """Raise ValueError unless labels are int64 [S] and groups bool [G, S], G <= 64."""
    if labels.shape != (samples,) or labels.dtype != torch.int64:
        raise ValueError(f"labels: expected int64 [{samples}], got {labels.dtype} {list(labels.shape)}")
    if groups.dim() != 2 or groups.shape[1] != samples or groups.dtype != torch.bool:
        raise ValueError(f"groups: expected bool [G, {samples}], got {groups.dtype} {list(groups.shape)}")
    if groups.shape[0] > MAX_GROUPS:
        raise ValueError(f"groups: expected at most {MAX_GROUPS}, got {groups.shape[0]}")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError for labels outside 0..classes-1. Reads values, so it waits for a GPU."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels: expected values in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )


def concordant_pairs(histogram: Tensor) -> Tensor:
    """How well each group's positives are ranked above each group's negatives, from margin histograms.

    Twice the U statistic of H. Mann and D. Whitney (Annals of Mathematical Statistics 18, 1947): over pairs
    of a positive (label 1) of the first group and a negative of the second, 2 where the positive's margin is
    in a higher bin and 1 where it is in the same bin. Divided by twice the number of pairs it is an AUC.

    Args:
        histogram: int64 [N, G, 2, bins].

    Returns:
        int64 [N, G, G].
    """
    negatives, positives = histogram[:, :, 0], histogram[:, :, 1]
    passed = 2 * (negatives.cumsum(-1) - negatives) + negatives
    return torch.einsum("nab,ncb->nac", positives.double(), passed.double()).to(torch.int64)


def empty_counts(like: Tensor, candidates: int, groups: int, classes: int, wanted: Wanted) -> Counts:
    """Uninitialized counts of the right shapes and dtypes, for fake tensors."""
    shapes = {
        "correct": (candidates, groups),
        "predicted": (candidates, groups, classes),
        "confusion": (candidates, groups, classes, classes),
        "loss": (candidates, groups),
        "histogram": (candidates, groups, 2, wanted.bins),
        "concordant": (candidates, groups, groups),
        "recalled": (candidates, groups),
        "nearest": (candidates, groups),
        "lower_loss": (candidates, groups, groups),
    }
    return Counts(
        *(
            like.new_empty(
                shapes[part] if part in wanted.parts else (0,),
                dtype=torch.float64 if part == "loss" else torch.int64,
            )
            for part in TALLY_PARTS
        )
    )


def counts_of(
    correct: Tensor | None,
    predicted: Tensor | None,
    confusion: Tensor | None,
    loss: Tensor | None,
    histogram: Tensor | None,
    parts: Container[str],
    device: torch.device,
) -> Counts:
    """The wanted parts of a backend's tables, which may have any integer dtype; concordant pairs are computed
    from the histogram. What takes features or the rank of losses is counted elsewhere, see
    :func:`rledit.ops.general.GeneralTail`."""
    none = torch.empty(0, dtype=torch.int64, device=device)

    def part(name: str, table: Tensor | None) -> Tensor:
        return none if table is None or name not in parts else table.long()

    pairs = none
    if histogram is not None and "concordant" in parts:
        pairs = concordant_pairs(histogram.long())
    return Counts(
        part("correct", correct),
        part("predicted", predicted),
        part("confusion", confusion),
        none.double() if loss is None or "loss" not in parts else loss,
        part("histogram", histogram),
        pairs,
        none,
        none,
        none,
    )
