"""What the cells of a label's column mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from . import cells
from .columns import Columns


def labels_of(found: Sequence[object], numbers: Sequence[int], columns: Columns, where: str) -> list[int]:
    """Labels of the rows of one file, 1 for toxic and 0 for not.

    A cell with a list holds the answers of several annotators: their mean, or with ``columns.positive`` the
    share of those that are among its words, is what counts, half of them being enough. Where none of these
    words occurs in a file of numbers, which may be another file's words, labels are read as numbers.

    Args:
        found: the cells.
        numbers: of their rows, for messages.
        columns: with ``positive`` and ``threshold``.
        where: the file and the column, for messages.

    Raises:
        ValueError: a cell is no label.
    """
    positive = {cells.label_key(word) for word in columns.positive}
    known: dict[str, None] = {}  # in the order in which they come

    def among_words(cell: object) -> float:
        key = cells.label_key(cell)
        known.setdefault(key)
        return float(key in positive)

    def share(cell: object, number: int) -> float:
        value = cells.number_of(cell)
        if value is None or math.isnan(value):
            raise ValueError(
                f"{where}, row {number}: expected 0, 1, True, False or a number, got {shown(cell)}. Say "
                "which labels mean toxic with --positive, or name another column with --label-column"
            )
        if columns.threshold is None and not 0 <= value <= 1:
            raise ValueError(
                f"{where}, row {number}: expected 0, 1 or a share between, got {shown(cell)}. Say from what "
                "number on a label means toxic with --threshold, or which labels do with --positive"
            )
        return value

    if positive:
        shares = []
        for cell, number in zip(found, numbers, strict=True):
            if not isinstance(cell, list) and cells.is_missing(cell):
                raise ValueError(f"{where}, row {number}: expected a label, got {shown(cell)}")
            shares.append(
                _mean([among_words(each) for each in cell] if isinstance(cell, list) else [among_words(cell)])
            )
        if known.keys() & positive:
            return [int(each >= 0.5) for each in shares]
        if any(cells.number_of(key) is None for key in known):
            raise ValueError(
                f"{where}: none of the labels that --positive names, {', '.join(columns.positive)}, is "
                f"there; it has {', '.join(key[:40] for key in list(known)[:10])}"
            )
    least = 0.5 if columns.threshold is None else columns.threshold
    return [
        int(_mean([share(each, number) for each in (cell if isinstance(cell, list) else [cell])]) >= least)
        for cell, number in zip(found, numbers, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def shown(cell: object) -> str:
    """A cell for a message."""
    return "an empty cell" if cells.is_empty(cell) else repr(str(cell)[:40])
