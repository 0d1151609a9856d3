"""Samples of a product of parameters, for tests of which many are alike."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import pytest


def pairwise(**axes: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrizes a test with every combination of the axes' values, most of them marked ``exhaustive``.

    The others, which ``make test`` runs, hold each value of each axis together with each value of every other
    axis: what goes wrong mostly does so for one value or for two that meet.
    """
    values = [list(axis) for axis in axes.values()]
    rows = list(product(*(range(len(axis)) for axis in values)))
    kept = covering(rows)
    combined = [
        pytest.param(
            *(axis[i] for axis, i in zip(values, row, strict=True)),
            marks=() if row in kept else pytest.mark.exhaustive,
        )
        for row in rows
    ]
    return pytest.mark.parametrize(tuple(axes), combined, ids=name_of)


def name_of(value: Any) -> str:
    """Of a class its name, of a dtype ``float16``, of others what prints."""
    return getattr(value, "__name__", "") or str(value).removeprefix("torch.")


def covering(rows: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Few of the rows, with every pair of entries that any of them has: greedily, the same in each run."""
    pairs = {row: set(combinations(enumerate(row), 2)) for row in rows}
    missing = set().union(*pairs.values())
    kept = set()
    while missing:
        best = max(rows, key=lambda row: len(pairs[row] & missing))
        kept.add(best)
        missing -= pairs[best]
    return kept
