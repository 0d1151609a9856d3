"""What a pretrained network makes of texts, computed once for those of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...storage.cache import cached
from ...storage.files import Json


class TextTable:
    """From texts to rows [S, ...]: looked up for known texts, computed for others.

    Args:
        key: all that a row depends on but its text.
        compute: from S texts to rows.
        texts: the known ones. Their rows are kept on disk, where every seed finds them.
    """

    def __init__(
        self, key: Sequence[Json], compute: Callable[[list[str]], Tensor], texts: Sequence[str] = ()
    ) -> None:
        self._compute = compute
        self._known = {text: row for row, text in enumerate(texts)}
        self._table: Tensor | None = None
        if texts:
            self._table = cached(None, [*key, list(texts)], lambda: compute(list(texts)))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[S, ...], in the order of the texts."""
        others = list(dict.fromkeys(text for text in texts if text not in self._known))
        if self._table is None:
            computed = self._compute(others)
            place = {text: row for row, text in enumerate(others)}
            return computed[torch.tensor([place[text] for text in texts], dtype=torch.int64)]
        place = self._known | {text: len(self._known) + row for row, text in enumerate(others)}
        rows = torch.tensor([place[text] for text in texts], dtype=torch.int64)
        return (torch.cat([self._table, self._compute(others)]) if others else self._table)[rows]
