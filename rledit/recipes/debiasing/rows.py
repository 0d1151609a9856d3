"""Rows of any kind, such as texts or those of a table, as comments that can be split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...zoo.data import Comments
from .group_names import RESERVED

Given: TypeAlias = Comments | Sequence[Any]
"""Comments, or (rows, labels, groups): S rows of any kind, S labels 0 or 1, and name -> bool mask [S]."""

EncodeRows: TypeAlias = Callable[[Any], Tensor | NDArray[Any]]
"""From rows, of the kind that was given, to what the model is called with, [S, ...]."""


class Rows:
    """Sets of rows. In comments each row that is no text has a key in place of one.

    Args:
        encode: see :data:`EncodeRows`.
    """

    def __init__(self, encode: EncodeRows) -> None:
        self._encode = encode
        self._sets: list[Any] = []
        self._at: dict[str, tuple[int, int]] = {}
        self._texts_known = False

    def comments(self, name: str, given: Given) -> Comments:
        """A set that :meth:`encode` knows from now on.

        Raises:
            TypeError, ValueError: what is given is neither comments nor rows with labels and groups that fit
                them; ``name`` says in which argument.
        """
        found = given if isinstance(given, Comments) else self._from_parts(name, given)
        self._texts_known |= not found.texts or found.texts[0] not in self._at
        if taken := [group for group in found.identities if group in RESERVED]:
            raise ValueError(
                f"{name}: expected other names of groups than {', '.join(RESERVED)}, which rledit uses "
                f"itself; got {taken[0]!r}"
            )
        return found

    def _from_parts(self, name: str, given: Sequence[Any]) -> Comments:
        if not isinstance(given, (tuple, list)) or len(given) != 3:
            kind = type(given).__name__ if not isinstance(given, (tuple, list)) else f"{len(given)} parts"
            raise TypeError(f"{name}: expected Comments, or (rows, labels, groups); got {kind}")
        rows, labels, groups = given
        if isinstance(rows, (str, bytes)) or not hasattr(rows, "__len__"):
            raise TypeError(f"{name}: expected several rows, got {type(rows).__name__}")
        if not isinstance(groups, Mapping):
            raise TypeError(
                f"{name}: expected groups as a mapping from names to masks, got {type(groups).__name__}"
            )
        masks = {str(group): _mask(f"{name}, group {group!r}", mask) for group, mask in groups.items()}
        return Comments(name, self._texts(rows), _labels(name, labels), masks)

    def _texts(self, rows: Any) -> tuple[str, ...]:
        """The rows where they are texts, else a key for each."""
        if not hasattr(rows, "columns") and getattr(rows, "ndim", 1) == 1:
            values = list(rows)
            if all(isinstance(value, str) for value in values):
                return tuple(str(value) for value in values)
        number = len(self._sets)
        self._sets.append(rows)
        keys = tuple(f"{number}row{i}" for i in range(len(rows)))
        self._at.update({key: (number, i) for i, key in enumerate(keys)})
        return keys

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Of texts, or of the keys of rows.

        Raises:
            TypeError, ValueError: the function gives no tensor with an entry for each row; or these are
                texts, and what was given are none.
        """
        parts = [
            self._checked(self._encode(rows), len(rows)) for rows in self._runs(texts)
        ] or [self._checked(self._encode([]), 0)]  # fmt: skip
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = " and ".join(str(list(part.shape[1:])) for part in parts[:2])
            raise ValueError(f"encode: expected entries of one shape, got {shapes}")
        return torch.cat(parts)

    def _runs(self, texts: Sequence[str]) -> Iterator[Any]:
        """Rows of one set after those of another."""
        places = ((*self._at.get(text, (-1, -1)), text) for text in texts)
        for number, run in groupby(places, lambda place: place[0]):
            if number >= 0:
                yield _pick(self._sets[number], [row for _, row, _ in run])
            elif self._texts_known:
                yield [text for _, _, text in run]
            else:
                raise ValueError("encode: expected rows that were given, got a text; these rows are no texts")

    @staticmethod
    def _checked(inputs: object, count: int) -> Tensor:
        tensor = torch.as_tensor(inputs) if isinstance(inputs, np.ndarray) else inputs
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"encode: expected it to return one tensor or array, which the model is called with; got "
                f"{type(inputs).__name__}"
            )
        if tensor.dim() == 0 or len(tensor) != count:
            raise ValueError(
                f"encode: expected an entry for each of {count} rows, got shape {list(tensor.shape)}"
            )
        return tensor.detach()


def _pick(rows: Any, indices: list[int]) -> Any:
    """Some rows, of the same kind."""
    if hasattr(rows, "iloc"):
        return rows.iloc[indices]
    if isinstance(rows, (np.ndarray, Tensor)):
        return rows[indices]
    return [rows[i] for i in indices]


def _labels(name: str, labels: Any) -> Tensor:
    values = labels if isinstance(labels, Tensor) else torch.tensor(np.asarray(labels))
    if values.dim() != 1:
        raise ValueError(f"{name}: expected labels of shape [S], got {list(values.shape)}")
    known = (values == 0) | (values == 1)
    if not bool(known.all()):
        row = int((~known).nonzero()[0, 0])
        raise ValueError(f"{name}: expected labels 0 and 1, got {values[row].item()!r} in row {row}")
    return values.detach().cpu().to(torch.int64)


def _mask(name: str, mask: Any) -> Tensor:
    values = mask if isinstance(mask, Tensor) else torch.tensor(np.asarray(mask))
    if values.dtype != torch.bool:
        raise TypeError(f"{name}: expected a bool mask, got {values.dtype}")
    return values.detach().cpu()
