"""What ``score_tail`` and ``tally_logits`` return."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import torch
from torch import Tensor

TALLY_PARTS = ("correct", "predicted", "confusion", "loss", "histogram", "concordant")
"""Everything that can be counted; ``wanted`` names some of them."""

INVALID_LOSS = 3.4028234663852886e38
"""What a sample with a logit that is not finite adds to ``loss``: the largest float32, so that sums stay
finite and such a candidate loses every comparison."""

MAX_GROUPS = 64


class Counts(NamedTuple):
    """Counts per candidate (N), group (G) and class (C). A part that was not wanted has shape [0].

    A sample with a logit that is not finite is never correct and never predicted: it is missing from the
    integer counts.
    """

    correct: Tensor  # [N, G] int64
    predicted: Tensor  # [N, G, C] int64
    confusion: Tensor  # [N, G, C (label), C (prediction)] int64
    loss: Tensor  # [N, G] float64, sum of cross-entropy, natural logarithm
    histogram: Tensor  # [N, G, 2 (label), bins] int64, of the margin logit[1] - logit[0]
    concordant: Tensor  # [N, G, G] int64, see concordant_pairs()

    def __add__(self, other: object) -> Counts:
        """Of the same candidates on other samples. Pairs across the two have no part in ``concordant``, which
        is why it must come from the sum of histograms."""
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def check_wanted(wanted: list[str], classes: int) -> None:
    """Raise ValueError for an unknown part, or one that needs two classes where there are others."""
    for part in wanted:
        if part not in TALLY_PARTS:
            raise ValueError(f"wanted: expected some of {', '.join(TALLY_PARTS)}; got {part!r}")
    for part in ("histogram", "concordant"):
        if part in wanted and classes != 2:
            raise ValueError(f"wanted: {part} needs 2 classes, got {classes}")


def concordant_pairs(histogram: Tensor) -> Tensor:
    """How well each group's positives are ranked above each group's negatives, from histograms of margins.

    Twice the U statistic of H. Mann and D. Whitney (Annals of Mathematical Statistics 18, 1947): over pairs
    of a positive (label 1) of the first group and a negative of the second, 2 where the positive's margin is
    in a higher bin and 1 where it is in the same. Divided by twice the number of pairs it is an AUC.

    Args:
        histogram: int64 [N, G, 2, bins].

    Returns:
        int64 [N, G, G].
    """
    negatives, positives = histogram[:, :, 0], histogram[:, :, 1]
    passed = 2 * (negatives.cumsum(-1) - negatives) + negatives
    return torch.einsum("nab,ncb->nac", positives.double(), passed.double()).to(torch.int64)


def empty_counts(
    like: Tensor,
    candidates: int,
    groups: int,
    classes: int,
    wanted: list[str],
    bins: int,
) -> Counts:
    """Uninitialised counts of the right shapes and dtypes, for fake tensors."""
    shapes = {
        "correct": (candidates, groups),
        "predicted": (candidates, groups, classes),
        "confusion": (candidates, groups, classes, classes),
        "loss": (candidates, groups),
        "histogram": (candidates, groups, 2, bins),
        "concordant": (candidates, groups, groups),
    }
    return Counts(
        *(
            like.new_empty(
                shapes[part] if part in wanted else (0,),
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
    wanted: Container[str],
    device: torch.device,
) -> Counts:
    """The parts that were wanted, of a backend's tables in any integer dtype; AUC's pairs come from the
    histogram."""
    none = torch.empty(0, dtype=torch.int64, device=device)

    def part(name: str, table: Tensor | None) -> Tensor:
        return none if table is None or name not in wanted else table.long()

    pairs = none
    if histogram is not None and "concordant" in wanted:
        pairs = concordant_pairs(histogram.long())
    return Counts(
        part("correct", correct),
        part("predicted", predicted),
        part("confusion", confusion),
        none.double() if loss is None or "loss" not in wanted else loss,
        part("histogram", histogram),
        pairs,
    )
