"""Comments from a user's own tables."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ...extras import require
from . import cells
from .columns import Columns, find_columns
from .comment_files import MOST_GROUPS
from .comments import Comments, fold
from .frames import PURPOSE, Frame, open_table
from .identities import DEFAULT_TERMS, find_identities, mask_of
from .labels import labels_of, shown

logger = logging.getLogger("rledit")
T = TypeVar("T")

MANY = 500_000
"""Rows from which on a warning names the option that draws some of them."""


def read_table(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    columns: Columns | Callable[[Sequence[str]], Columns] = Columns(),  # noqa: B008
    *,
    name: str | None = None,
    terms: Mapping[str, Sequence[str]] = DEFAULT_TERMS,
    with_groups: bool = True,
    sample: int = 0,
    seed: int = 0,
) -> Comments:
    """Comments from one table or several: CSV with any separator, JSON lines, JSON, Parquet, compressed or
    not, or folders of Hugging Face ``datasets``, see :func:`rledit.zoo.data.frames.open_table`.

    Rows keep their order. Those without text are dropped with a warning, and so are rows that repeat an id.

    Args:
        path: the file, or several that belong together.
        columns: which columns hold what; or a function that tells it from the names of a file's columns.
        name: of the result; without it the files' names without endings.
        terms: where ``columns`` name no groups, or these hold nothing: groups and the words that mention
            them, see :func:`rledit.zoo.data.find_identities`.
        with_groups: False: no groups are read or looked for.
        sample: how many rows are drawn at random from all files, each with equal chance; 0: all are read.
            Memory holds these and a chunk.
        seed: of the draw.

    Raises:
        ValueError: a column cannot be found; a file is damaged; a label, a membership or a weight is none;
            there is no text at all, or all comments are toxic, or none is. The message names the file, the
            row (the first below the header is 1) and the option that helps.
        OSError: a file cannot be read.
        MissingExtraError: pandas is not installed, or for some files pyarrow.
    """
    paths = [Path(each) for each in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    if not paths:
        raise ValueError("path: expected at least one file, got none")
    if sample < 0:
        raise ValueError(f"sample: expected at least 0, got {sample}")
    name = "+".join(dict.fromkeys(_stem(each) for each in paths)) if name is None else name
    rows, total = _drawn(_chunks(paths, columns, with_groups), sample, seed)
    if total >= MANY and not sample:
        logger.warning(
            "%s: %s rows are read; with --sample 100000, that many are drawn at random.", name, f"{total:,}"
        )
    if total > len(rows):
        logger.warning("%s: %s of %s rows are drawn at random.", name, f"{len(rows):,}", f"{total:,}")
    rows = _without_repeats(rows, name)
    texts, rows = _texts(rows, name, paths[0])
    labels = _labels(rows)
    _check_labels(labels, paths)
    identities = _identities(rows, texts, terms, name) if with_groups else {}
    templates = tuple(map(cells.text_of, rows["template"])) if "template" in rows else ()
    return Comments(
        name,
        texts,
        torch.tensor(labels, dtype=torch.int64),
        identities,
        templates,
        torch.tensor(_weights(rows), dtype=torch.float64) if "weight" in rows else None,
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or path.name


# --- rows ---


def _chunks(
    paths: Sequence[Path], columns: Columns | Callable[[Sequence[str]], Columns], with_groups: bool
) -> Iterator[Frame]:
    """Frames with a column for each role, one ``group:NAME`` for each group that has a column, and, for
    messages and labels, what is known of the row's origin."""
    for path in paths:
        table = open_table(path, columns.separator if isinstance(columns, Columns) else "")
        asked = columns if isinstance(columns, Columns) else _chosen(columns, table.names, path)
        places = find_columns(asked, table.names, str(path), with_groups)
        first = 1
        for frame in table.read(places.columns):
            frame = frame.reset_index(drop=True)
            for column in {*places.columns} & {*table.classes}:
                kept = column == places.single["label"][0] and not asked.positive
                if not kept:  # a label that is 0 or 1 is a label, whatever it is called
                    frame[column] = frame[column].map(_class_name(table.classes[column]))
            out = {
                role: frame[column].map(_inside(inside)) if inside else frame[column]
                for role, (column, inside) in places.single.items()
            }
            out |= {f"group:{group}": frame[column] for group, column in places.groups.items()}
            made = require("pandas", "data", PURPOSE).DataFrame(out).astype(object)
            made["row"] = np.arange(first, first + len(frame))
            made["origin"] = [_Origin(path, asked, places.single["label"][0])] * len(frame)
            first += len(frame)
            yield made


def _chosen(choose: Callable[[Sequence[str]], Columns], names: Sequence[str], path: Path) -> Columns:
    try:
        return choose(names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Origin:
    """Where a row comes from, shared by all rows of a file."""

    def __init__(self, path: Path, columns: Columns, label: str) -> None:
        self.path, self.columns, self.label = path, columns, label


def _class_name(classes: Sequence[str]) -> Callable[[Any], Any]:
    def name(number: Any) -> Any:
        known = isinstance(number, (int, float)) and 0 <= number < len(classes)  # -1 and NaN are no class
        return classes[int(number)] if known else None

    return name


def _inside(path: Sequence[str]) -> Callable[[Any], Any]:
    return lambda cell: cells.inside(cell, path)


def _drawn(chunks: Iterator[Frame], sample: int, seed: int) -> tuple[Frame, int]:
    """All rows, or a sample of them in their order; and how many there are. Every row gets a random key, and
    those with the smallest ones stay."""
    pandas = require("pandas", "data", PURPOSE)
    generator = np.random.default_rng(seed)
    kept: list[Frame] = []
    total, most = 0, math.inf  # the largest key that stays
    for chunk in chunks:
        chunk["place"] = np.arange(total, total + len(chunk))
        total += len(chunk)
        if not sample:
            kept.append(chunk)
            continue
        chunk["key"] = generator.random(len(chunk))
        both = pandas.concat([*kept, chunk[chunk["key"] < most]], ignore_index=True)
        if len(both) > sample:
            both = both.iloc[np.argsort(both["key"].to_numpy(), kind="stable")[:sample]]
            most = float(both["key"].iloc[-1])
        kept = [both]
    if not kept:
        return pandas.DataFrame({"text": [], "label": [], "row": [], "origin": []}), 0
    rows = pandas.concat(kept, ignore_index=True)
    return rows.iloc[np.argsort(rows["place"].to_numpy(), kind="stable")].reset_index(drop=True), total


def _without_repeats(rows: Frame, name: str) -> Frame:
    if "id" not in rows:
        return rows
    # Files may each number their rows from 1.
    known: set[tuple[int, str]] = set()
    keys = [(id(origin), str(cell)) for origin, cell in zip(rows["origin"], rows["id"], strict=True)]
    again = np.zeros(len(rows), dtype=bool)
    for at, (key, cell) in enumerate(zip(keys, rows["id"], strict=True)):
        again[at] = key in known and not cells.is_empty(cell)
        known.add(key)
    if bool(again.any()):
        logger.warning("%s: %d rows repeat the id of another one and were dropped.", name, int(again.sum()))
    return rows[~again].reset_index(drop=True)


def _texts(rows: Frame, name: str, path: Path) -> tuple[tuple[str, ...], Frame]:
    texts = [cells.text_of(cell) for cell in rows["text"]]
    there = [bool(text.strip()) for text in texts]
    empty = len(texts) - sum(there)
    if empty == len(texts):
        raise ValueError(f"{path}: expected comments, got none" + f" but {empty} empty ones" * bool(empty))
    if empty:
        logger.warning("%s: %d of %d comments are empty and were dropped.", name, empty, len(texts))
        rows = rows[np.array(there)].reset_index(drop=True)
    return tuple(text for text, kept in zip(texts, there, strict=True) if kept), rows


# --- labels ---


def _labels(rows: Frame) -> list[int]:
    labels = np.zeros(len(rows), dtype=np.int64)
    origins = rows["origin"].to_numpy()
    for origin in dict.fromkeys(origins):
        at = np.flatnonzero(origins == origin)
        own = [cells.plain(cell) for cell in rows["label"].iloc[at]]
        numbers = rows["row"].iloc[at].tolist()
        labels[at] = labels_of(own, numbers, origin.columns, f"{origin.path}: column {origin.label!r}")
    return labels.tolist()  # type: ignore[no-any-return]


def _check_labels(labels: Sequence[int], paths: Sequence[Path]) -> None:
    if len(set(labels)) == 1:
        only = "toxic" if labels[0] else "not toxic"
        raise ValueError(
            f"{' and '.join(map(str, paths))}: expected comments that are toxic and others that are not, got "
            f"{len(labels)} that are all {only}; --label-column, --positive and --threshold say what is toxic"
        )


# --- groups and weights ---


def _identities(
    rows: Frame, texts: Sequence[str], terms: Mapping[str, Sequence[str]], name: str
) -> dict[str, torch.Tensor]:
    annotated = [column for column in rows if column.startswith("group:")]
    if annotated:
        shares = {
            column.removeprefix("group:"): _each(rows, column, cells.share_of, column.removeprefix("group:"))
            for column in annotated
        }
        if any(share is not None for column in shares.values() for share in column):
            return {
                group: torch.tensor([share is not None and share >= 0.5 for share in column])
                for group, column in shares.items()
            }
        logger.warning("%s: the columns of groups are all empty; groups are found by terms.", name)
    if "group" in rows:
        members: dict[str, list[int]] = {}
        written: dict[str, str] = {}  # groups are the same whatever their case; the first spelling counts
        for row, groups in enumerate(_each(rows, "group", cells.groups_of, "group")):
            for group in dict.fromkeys(written.setdefault(fold(group), group) for group in groups):
                members.setdefault(group, []).append(row)
            if len(members) > MOST_GROUPS:
                raise ValueError(
                    f"{name}: expected a column with names of groups, got more than {MOST_GROUPS} different "
                    "ones; name another one with --group-column"
                )
        if members:
            return {group: mask_of(which, len(texts)) for group, which in members.items()}
        logger.warning("%s: the column of groups is empty; groups are found by terms.", name)
    return find_identities(texts, terms)


def _each(rows: Frame, column: str, meaning: Callable[[object], T], called: str) -> list[T]:
    """What each cell of a column means; a ValueError names the row."""
    out = []
    known: dict[str, T] = {}  # there are few different ones
    for at, cell in enumerate(rows[column]):
        try:
            if isinstance(cell, str):
                if cell not in known:
                    known[cell] = meaning(cell)
                out.append(known[cell])
            else:
                out.append(meaning(cells.plain(cell)))
        except ValueError as error:
            origin, number = rows["origin"].iloc[at], rows["row"].iloc[at]
            raise ValueError(f"{origin.path}: column {called!r}, row {number}: {error}") from error
    return out


def _weights(rows: Frame) -> list[float]:
    return _each(rows, "weight", _weight, "weight")


def _weight(cell: object) -> float:
    value = cells.number_of(cell)
    if value is None or not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"expected a finite weight of at least 0, got {shown(cell)}; --weight-column names the column"
        )
    return value
