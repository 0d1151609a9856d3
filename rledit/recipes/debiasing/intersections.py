"""Groups of a table from its columns: each value, and who has several of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor


def intersections(
    columns: Mapping[str, Sequence[Any]], *, single: bool = True, least: int = 1
) -> dict[str, Tensor]:
    """Groups by the values of columns, and by the values of several columns together (K. Crenshaw 1989).

    >>> groups = intersections({"sex": ["f", "m", "f"], "race": ["black", "black", None]})
    >>> {name: mask.tolist() for name, mask in groups.items()}["f & black"]
    [True, False, False]

    Args:
        columns: name -> the S values; None, NaN and empty text are no group's.
        single: whether the values of one column are groups, too; else only those of all columns together.
        least: rows that a group must have.

    Returns:
        name -> bool [S]. A group is called after its values, joined by " & "; with their columns before them,
        as in "sex=f", where a value stands in several columns.

    Raises:
        ValueError: no column, or columns of several lengths.
    """
    if not columns:
        raise ValueError("columns: expected at least one, got none")
    values = {name: [_text(value) for value in column] for name, column in columns.items()}
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns: expected one length, got {lengths}")
    levels = {name: sorted({value for value in column if value}) for name, column in values.items()}
    seen = Counter(value for known in levels.values() for value in known)
    sizes = range(1, len(values) + 1) if single else (len(values),)
    groups = {}
    for chosen in (some for size in sizes for some in combinations(values, size)):
        for combination in product(*(levels[name] for name in chosen)):
            mask = np.ones(next(iter(lengths.values())), bool)
            for name, value in zip(chosen, combination, strict=True):
                mask &= np.array([own == value for own in values[name]], bool)
            if mask.sum() >= max(1, least):
                named = (
                    value if seen[value] == 1 else f"{name}={value}"
                    for name, value in zip(chosen, combination, strict=True)
                )
                groups[" & ".join(named)] = torch.from_numpy(mask)
    return groups


def _text(value: Any) -> str:
    text = str(value).strip()
    return "" if text in ("None", "nan", "NaN", "NaT", "<NA>") else text
