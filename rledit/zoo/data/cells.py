"""What single cells of a table mean: labels, memberships, names of groups, numbers."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence

import numpy as np

from .comment_files import LABEL_WORDS
from .comments import fold

NOTHING = frozenset({"", "nan", "none", "null", "<na>", "n/a"})
"""Words of cells that say nothing."""

WORDS = {
    **LABEL_WORDS,
    **dict.fromkeys(("true", "yes"), 1.0),
    **dict.fromkeys(("false", "no"), 0.0),
}
"""What publishers write instead of 1 and 0."""

LIST_CHARACTERS = 10_000
_BETWEEN_GROUPS = re.compile(r"[|;,]")
_BETWEEN_QUOTES = re.compile(r"(['\"])\s+(['\"])")


def plain(cell: object) -> object:
    """Without the types of NumPy: arrays as lists, its numbers as Python's."""
    return cell.tolist() if isinstance(cell, (np.ndarray, np.generic)) else cell


def is_empty(cell: object) -> bool:
    """Whether a cell says nothing: None, NaN, and the words for them."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    return str(cell).strip().casefold() in NOTHING  # pandas.NA is "<NA>"


def is_missing(cell: object) -> bool:
    """Whether a label is missing: unlike :func:`is_empty`, "none" may be the name of a class."""
    return cell is None or (is_empty(cell) and str(cell).strip().casefold() not in ("none", "null", "n/a"))


def number_of(cell: object) -> float | None:
    """A number, a bool or a word for one; None for anything else."""
    if isinstance(cell, (bool, int, float)):
        return float(cell)
    if not isinstance(cell, str):
        return None
    word = cell.strip().casefold()
    if word in WORDS:
        return WORDS[word]
    try:
        return float(word)
    except ValueError:
        return None


def label_key(cell: object) -> str:
    """A label as text, alike for 1, 1.0, "1" and " 1 ", and whatever the case."""
    word = fold(str(cell)).strip()
    try:
        value = float(word)
    except ValueError:
        return word
    return str(int(value)) if math.isfinite(value) and value.is_integer() else str(value)


def inside(cell: object, path: Sequence[str]) -> object:
    """What lies at a path in a cell: of an object its value, of a list the values of its objects."""
    for name in path:
        cell = plain(cell)
        if isinstance(cell, dict):
            cell = cell.get(name)
        elif isinstance(cell, list):
            cell = [each.get(name) if isinstance(each, dict) else None for each in cell]
        else:
            return None
    return plain(cell)


def text_of(cell: object) -> str:
    """A text, or the words of a list with spaces between; ``""`` for an empty cell."""
    cell = plain(cell)
    if isinstance(cell, list):
        return " ".join(str(word) for word in cell)
    if cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell) == "<NA>":
        return ""
    return str(cell)


def share_of(cell: object) -> float | None:
    """Of a cell about one group: the share of annotators who see it mentioned; None where nobody was asked.

    Raises:
        ValueError: it is no number in 0..1.
    """
    if is_empty(cell):
        return None
    value = number_of(cell)
    if value is None or not 0 <= value <= 1:
        raise ValueError(
            f"expected 0, 1, True, False or a share between, got {str(cell)[:40]!r}. A column with names of "
            "groups is named with --group-column"
        )
    return value


def groups_of(cell: object) -> tuple[str, ...]:
    """The names of groups in a cell, each once, as they are written.

    A list of names, or names with ``|``, commas or semicolons between; a list in the syntax of JSON or
    Python, too. Of a list of lists, which are annotators' answers, the names that at least half of them give.

    Raises:
        ValueError: it looks like a list and is none.
    """
    cell = plain(cell)
    if isinstance(cell, str) and cell.strip()[:1] in ("[", "(", "{") and cell.strip()[-1:] in ("]", ")", "}"):
        cell = _listed(cell.strip())
    if isinstance(cell, (list, tuple, set)):
        answers = [plain(each) for each in cell]
        if any(isinstance(each, (list, tuple)) for each in answers):
            return _of_most([groups_of(each) for each in answers])
        return _clean(str(each) for each in answers if not is_empty(each))
    if is_empty(cell):
        return ()
    return _clean(_BETWEEN_GROUPS.split(str(cell)))


def _clean(names: object) -> tuple[str, ...]:
    stripped = [" ".join(str(name).split()) for name in names]  # type: ignore[attr-defined]
    return tuple(dict.fromkeys(name for name in stripped if not is_empty(name)))


def _of_most(answers: Sequence[Sequence[str]]) -> tuple[str, ...]:
    names = dict.fromkeys(name for answer in answers for name in answer)
    return tuple(name for name in names if 2 * sum(name in answer for answer in answers) >= len(answers))


def _listed(cell: str) -> object:
    if len(cell) > LIST_CHARACTERS:
        raise ValueError(f"expected a list of at most {LIST_CHARACTERS:,} characters, got {len(cell):,}")
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    if "," not in cell:  # as NumPy prints arrays: ['a' 'b'], which Python would read as one string
        cell = _BETWEEN_QUOTES.sub(r"\1, \2", cell)
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if isinstance(found, (list, tuple, set)):
        return found
    return cell if cell[0] == "(" else _no_list(cell)


def _no_list(cell: str) -> object:
    raise ValueError(f"expected a list of names, got {cell[:40]!r}")
