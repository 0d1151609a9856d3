"""Comments from CSV files in the layouts of their publishers."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from .comments import Comments
from .identities import DEFAULT_TERMS, IDENTITY_TERMS, find_identities, mask_of
from .root import VARIABLE, first_existing, place, resolve_root
from .synthetic_comments import synthetic_comments, synthetic_templates

logger = logging.getLogger("rledit")

TEXT_COLUMNS = ("comment_text", "text", "phrase")
LABEL_COLUMNS = ("toxic", "target", "toxicity", "label")
LABEL_WORDS = {"toxic": 1.0, "nontoxic": 0.0, "bad": 1.0, "not_bad": 0.0}
"""What the publisher of the bias madlibs writes instead of 1 and 0."""

IDENTITY_COLUMNS = (
    *("male", "female", "transgender", "other_gender"),
    *("heterosexual", "homosexual_gay_or_lesbian", "bisexual", "other_sexual_orientation"),
    *("christian", "jewish", "muslim", "hindu", "buddhist", "atheist", "other_religion"),
    *("black", "white", "asian", "latino", "other_race_or_ethnicity"),
    *("physical_disability", "intellectual_or_learning_disability"),
    *("psychiatric_or_mental_illness", "other_disability"),
)
"""The annotated identities of Civil Comments (Borkan et al. 2019, arXiv:1903.04561)."""

_CHALLENGES = (
    "jigsaw-toxic-comment-classification-challenge",
    "jigsaw-unintended-bias-in-toxicity-classification",
)

# Name -> the file's names in order of preference, and where it comes from.
_FILES = {
    "jigsaw": (
        ("jigsaw_toxic_comments_sample.csv", f"{_CHALLENGES[0]}/train.csv"),
        f"https://www.kaggle.com/c/{_CHALLENGES[0]}/data",
    ),
    "civil": (
        ("civil_comments_sample.csv", f"{_CHALLENGES[1]}/train.csv", f"{_CHALLENGES[1]}/all_data.csv"),
        f"https://www.kaggle.com/c/{_CHALLENGES[1]}/data",
    ),
    "madlibs": (
        ("bias_madlibs_77k.csv", "en_sentence_templates.csv"),
        "https://github.com/conversationai/unintended-ml-bias-analysis, folder sentence_templates",
    ),
    "toxigen": (
        ("toxigen_human.csv",),
        "https://github.com/microsoft/TOXIGEN, as CSV with the columns text, toxic, target_group",
    ),
}

CommentName: TypeAlias = Literal["jigsaw", "civil", "madlibs", "toxigen", "synthetic", "synthetic-templates"]

COMMENT_NAMES: tuple[CommentName, ...] = get_args(CommentName)
"""What :func:`load_comments` knows: the files above, and what is made here."""

# The module's own limit is 131,072 characters, less than a long discussion. A quotation mark that is never
# closed makes one field of the rest of the file, so there must be some limit.
FIELD_CHARACTERS = 1 << 24
MOST_GROUPS = 1_000


def load_comments(name: str, data_root: str | os.PathLike[str] | None = None) -> Comments:
    """A known set of comments, with its identity groups; where a file has none, those of the 50 published
    terms (:data:`rledit.zoo.data.IDENTITY_TERMS`).

    Args:
        name: ``"jigsaw"`` (Wikipedia comments), ``"civil"`` (comments of news sites), ``"madlibs"``
            (sentences from templates, half toxic), ``"toxigen"`` (machine-written statements), or two sets
            that need no file: ``"synthetic"`` (biased, to train on) and ``"synthetic-templates"`` (unbiased,
            from templates, to measure bias on).
        data_root: the folder with the data, see :func:`rledit.zoo.data.resolve_root`. A file is looked for in
            its subfolder ``text``, then in itself. Nothing is downloaded: the publishers ask for an account,
            or have no address for the one file.

    Raises:
        ValueError: no such name, or the file is damaged, see :func:`read_comments`.
        FileNotFoundError: the file is not there; the message says what to put where.
    """
    if name == "synthetic":
        return synthetic_comments()
    if name == "synthetic-templates":
        return synthetic_templates()
    if name not in _FILES:
        raise ValueError(f"name: expected one of {', '.join(COMMENT_NAMES)}, got {name!r}")
    names, source = _FILES[name]
    root = resolve_root(data_root)
    path = first_existing((root / "text", root), names)
    if path is None:
        raise FileNotFoundError(
            f"{name}: found neither {' nor '.join(names)} in {root / 'text'} or {place(root)}. Get it from "
            f"{source}, and put it there, or point data_root (or {VARIABLE}) at the folder that has it."
        )
    return read_comments(path, name=name, terms=IDENTITY_TERMS)


def read_comments(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    threshold: float = 0.5,
    terms: Mapping[str, Sequence[str]] = DEFAULT_TERMS,
) -> Comments:
    """Comments from a CSV file: UTF-8, separated by commas, the names of the columns in the first row.

    The columns tell the layout; case does not matter and other columns are ignored:

    - the text: ``comment_text``, else ``text``, else ``phrase``;
    - the label: ``toxic``, else ``target``, else ``toxicity``, else ``label``: 0, 1, a probability between,
      or the words toxic and nontoxic, BAD and NOT_BAD;
    - the identity groups: Civil Comments' annotated columns (:data:`IDENTITY_COLUMNS`), where 0.5 and more
      means membership, and an empty cell (or "nan"), not annotated, does not. Else ToxiGen's
      ``target_group``, in which ``|`` separates several. Without such columns, or if all their cells are
      empty, the groups are those of ``terms`` that the text mentions;
    - ``template``, if there is one, becomes :attr:`Comments.templates`.

    The comments keep the order of the file. Those that are empty or only white space are dropped with a
    warning.

    Args:
        path: the file. A byte order mark is allowed.
        name: name of the result; without it the file's name without its ending.
        threshold: in 0..1 without 0. A label of ``threshold`` or more is toxic.
        terms: see :func:`rledit.zoo.data.find_identities`.

    Raises:
        ValueError: the file is empty, not UTF-8 or not CSV; a column is missing or occurs twice; a row has
            another number of fields than the first one; a label or an annotation is not in 0..1; all comments
            are empty, or all are toxic, or none is; ``threshold`` is outside its range. The message names the
            file and the line, counted from 1, on which the row begins.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected more than 0 and at most 1, got {threshold}")
    texts: list[str] = []
    labels: list[int] = []
    templates: list[str] = []
    groups: dict[str, list[int]] = {}  # group -> its rows
    empty = 0
    with closing(_rows(path)) as rows:
        layout = _layout(path, rows)
        for line, row in rows:
            where = f"{path}: line {line}"
            if len(row) != layout.width:
                raise ValueError(f"{where}: expected {layout.width} fields, got {len(row)}")
            text = row[layout.text]
            if not text.strip():
                empty += 1
                continue
            number = len(texts)
            texts.append(text)
            labels.append(int(_label(row[layout.label], where, layout.names[layout.label]) >= threshold))
            if layout.template is not None:
                templates.append(row[layout.template])
            for column in layout.annotations:
                cell = row[column]
                if cell and cell.strip().casefold() not in ("", "nan"):
                    members = groups.setdefault(layout.names[column], [])
                    if _probability(cell, where, layout.names[column]) >= 0.5:
                        members.append(number)
            if layout.targets is not None:
                for group in dict.fromkeys(part.strip() for part in row[layout.targets].split("|")):
                    if group:
                        groups.setdefault(group, []).append(number)
                if len(groups) > MOST_GROUPS:
                    raise ValueError(
                        f"{where}: target_group: expected names of groups, got more than {MOST_GROUPS} "
                        "different ones"
                    )
    if not texts:
        raise ValueError(f"{path}: expected comments, got none" + f" but {empty} empty ones" * bool(empty))
    if empty:
        logger.warning("%s: %d of %d comments are empty and were dropped.", path, empty, empty + len(texts))
    if len(set(labels)) == 1:
        only = "toxic" if labels[0] else "not toxic"
        raise ValueError(
            f"{path}: expected comments that are toxic and others that are not, got {len(labels)} that are "
            f"all {only} (column {layout.names[layout.label]}, threshold {threshold})"
        )
    if groups:
        annotated = [layout.names[column] for column in layout.annotations] or groups
        identities = {group: mask_of(groups.get(group, []), len(texts)) for group in annotated}
    else:
        identities = find_identities(texts, terms)
    return Comments(
        path.stem if name is None else name,
        tuple(texts),
        torch.tensor(labels, dtype=torch.int64),
        identities,
        tuple(templates),
    )


@dataclass(frozen=True)
class _Layout:
    """Which column holds what."""

    names: tuple[str, ...]
    text: int
    label: int
    template: int | None
    annotations: tuple[int, ...]
    targets: int | None  # of target_group, unless there are annotations

    @property
    def width(self) -> int:
        return len(self.names)


def _layout(path: Path, rows: Iterator[tuple[int, list[str]]]) -> _Layout:
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path}: expected the names of the columns in the first row, got an empty file")
    names = tuple(name.strip().casefold() for name in first[1])
    used = (*TEXT_COLUMNS, *LABEL_COLUMNS, *IDENTITY_COLUMNS, "template", "target_group")
    for name in used:
        if names.count(name) > 1:
            raise ValueError(f"{path}: expected one column {name!r}, got {names.count(name)}")
    text = next((names.index(name) for name in TEXT_COLUMNS if name in names), None)
    label = next((names.index(name) for name in LABEL_COLUMNS if name in names), None)
    if text is None or label is None:
        got = ", ".join(name[:40] for name in first[1][:20]) + ", ..." * (len(first[1]) > 20)
        raise ValueError(
            f"{path}: expected a column for the text ({' or '.join(TEXT_COLUMNS)}) and one for the label "
            f"({' or '.join(LABEL_COLUMNS)}), got {got}"
        )
    annotations = tuple(column for column, name in enumerate(names) if name in IDENTITY_COLUMNS)
    return _Layout(
        names,
        text,
        label,
        names.index("template") if "template" in names else None,
        annotations,
        names.index("target_group") if "target_group" in names and not annotations else None,
    )


@contextmanager
def large_fields() -> Iterator[None]:
    """Inside, the module csv takes fields of up to :data:`FIELD_CHARACTERS`."""
    limit = csv.field_size_limit()  # of the whole process, hence put back
    csv.field_size_limit(max(limit, FIELD_CHARACTERS))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _rows(path: Path) -> Generator[tuple[int, list[str]], None, None]:
    """The rows that are not blank, each with the line on which it begins."""
    line = 1
    try:
        with large_fields(), open(path, encoding="utf-8-sig", newline="") as file:
            # strict: without it, damaged quotation marks run comments together silently
            reader = csv.reader(file, strict=True)
            while (row := next(reader, None)) is not None:
                if row:
                    yield line, row
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except csv.Error as error:
        raise ValueError(f"{path}: line {line}: damaged CSV: {error}") from error


def _not_utf8(path: Path) -> ValueError:
    # The decoder reads in blocks and knows only the place in its block. No other character of UTF-8 contains
    # the byte of a line feed, so every line can be decoded alone.
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return ValueError(
                    f"{path}: line {number}: expected UTF-8, got 0x{line[error.start]:02x} at byte "
                    f"{start + error.start} of the file: {error.reason}"
                )
            start += len(line)
    return ValueError(f"{path}: expected UTF-8")


def _label(cell: str, where: str, column: str) -> float:
    word = LABEL_WORDS.get(cell.strip().casefold())
    return word if word is not None else _probability(cell, where, column)


def _probability(cell: str, where: str, column: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # true for NaN too
        raise ValueError(f"{where}: {column}: expected 0, 1 or a probability between, got {cell[:20]!r}")
    return value
