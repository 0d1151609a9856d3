"""What a scorer counts, against the model itself, really edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rledit.scoring.scorer import Scorer


def edited(weight: Tensor, left: Tensor, right: Tensor, rule: str) -> Iterator[int]:
    """The number of each candidate, while a weight [O, ...] is the candidate's; then it is as it was."""
    kept = weight.detach().clone()
    for n in range(len(left)):
        delta = (left[n] @ right[n]).view_as(kept)
        with torch.no_grad():
            weight.copy_(kept + delta if rule == "shift" else kept * (1 + delta))
        yield n
    with torch.no_grad():
        weight.copy_(kept)


def check_scores(
    scorer: Scorer,
    target: str,
    weight: Tensor,
    logits: Callable[[], Tensor],
    rule: str = "shift",
    *,
    rank: int = 2,
    candidates: int = 4,
    loss: bool = False,
) -> None:
    """Random candidates count as copies of the model do.

    Args:
        weight: of the target, in the model that ``logits`` runs.
        logits: of the scorer's samples [S, C].
        loss: also compare the losses.
    """
    random = torch.Generator().manual_seed(2)
    matrix = weight.flatten(1)
    left = torch.randn(candidates, len(matrix), rank, generator=random)
    right = torch.randn(candidates, rank, matrix.shape[1], generator=random)
    found = scorer.score({target: (left, right)}, rule, wanted=["correct", "loss"] if loss else ["correct"])
    labels = scorer.samples.labels
    for n in edited(weight, left, right, rule):
        with torch.no_grad():
            own = logits()
        for group, mask in scorer.samples.groups.items():
            assert int(found.correct[group][n]) == int((own.argmax(1) == labels)[mask].sum())
            if loss:
                expected = float(F.cross_entropy(own[mask].double(), labels[mask], reduction="sum"))
                assert float(found.loss[group][n]) == pytest.approx(expected, rel=1e-4)
