"""Ranks of losses are counted for some candidates at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rledit.ops import loss_ranks


def test_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    bins = torch.randint(0, loss_ranks.LOSS_BINS, (7, 30), generator=generator)
    groups = torch.randn(3, 30, generator=generator) > 0
    whole = loss_ranks.lower_loss_pairs(bins, groups)
    seen: list[int] = []
    pairs = loss_ranks._pairs

    def counted(some: Tensor, all_groups: Tensor) -> Tensor:
        seen.append(len(some))
        return pairs(some, all_groups)

    monkeypatch.setattr(loss_ranks, "_pairs", counted)
    monkeypatch.setattr(loss_ranks, "HISTOGRAM_BYTES", 2 * 5 * 8 * loss_ranks.LOSS_BINS * 3)
    assert torch.equal(loss_ranks.lower_loss_pairs(bins, groups), whole)
    assert seen == [2, 2, 2, 1]
    ours, theirs = bins[:, groups[0]], bins[:, groups[1]]
    twice = 2 * (ours[:, :, None] < theirs[:, None]) + (ours[:, :, None] == theirs[:, None]).long()
    assert torch.equal(whole[:, 0, 1], twice.sum((1, 2)))


def test_no_candidates() -> None:
    groups = torch.ones(2, 5, dtype=torch.bool)
    assert loss_ranks.lower_loss_pairs(torch.zeros(0, 5, dtype=torch.int64), groups).shape == (0, 2, 2)
