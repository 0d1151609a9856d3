"""Which columns of a table hold what: named by the user, or found by the names that are usual."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TEXT_NAMES = ("comment_text", "text", "phrase", "comment", "tweet", "post", "sentence", "test_case")
"""What the column of the text is called where nobody says."""

LABEL_NAMES = ("toxic", "target", "toxicity", "label", "hateful", "is_toxic", "label_gold")
"""What the column of the label is called where nobody says."""

SHOWN_COLUMNS, SHOWN_CHARACTERS = 20, 40


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table hold what.

    Case does not matter in names, unless two columns differ in nothing else. Where files differ,
    ``"body|text"`` is the first of these that a file has. ``"annotators.label"`` looks into cells that hold
    objects.

    Attributes:
        text: the column of the text. Default: the only one of :data:`TEXT_NAMES`.
        label: that of the label. Default: the only one of :data:`LABEL_NAMES`.
        positive: which labels mean toxic, words or numbers; without them 1, True and "toxic" do.
        threshold: from what number on a label means toxic; without it 0.5, and labels must be in 0..1.
        groups: columns of one identity group each, with the same name: 0, 1, True, False or a share of
            annotators, of whom half are enough. An empty cell is no member.
        group: one column that names the groups of each comment, several separated by ``|``, a comma or a
            semicolon, or as a list. Goes without ``groups``.
        id: the column that tells comments apart; of several rows of a file with one id the first counts.
        weight: that of weights, finite and at least 0.
        template: that of the names of templates.
        separator: of the fields of a CSV file, one character. Default: the one of , ; tab and | that makes
            the most of the header.

    Raises:
        ValueError: ``threshold`` is not finite, a group column is named twice, both ways to say the groups
            are used, or ``separator`` has more than one character.
    """

    text: str = ""
    label: str = ""
    positive: tuple[str, ...] = ()
    threshold: float | None = None
    groups: tuple[str, ...] = ()
    group: str = ""
    id: str = ""
    weight: str = ""
    template: str = ""
    separator: str = ""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold: expected a finite number, got {self.threshold}")
        if len(set(self.groups)) != len(self.groups):
            raise ValueError(f"group_columns: expected each column once, got {', '.join(self.groups)}")
        if self.groups and self.group:
            raise ValueError(
                "group_columns, group_column: expected one of them, got both; the first names one column for "
                "each group, the second a column with names of groups"
            )
        if len(self.separator) > 1:
            raise ValueError(f"separator: expected one character, got {self.separator!r}")


@dataclass(frozen=True)
class Places:
    """The columns of one file, as the file writes them. A place inside cells has its path after the name.

    Attributes:
        single: by role ("text", "label", "group", "id", "weight", "template"), as far as it is there: the
            column and the path into its cells.
        groups: the name of each group and its column.
    """

    single: Mapping[str, tuple[str, tuple[str, ...]]]
    groups: Mapping[str, str]

    @property
    def columns(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*(name for name, _ in self.single.values()), *self.groups.values()]))


def find_columns(columns: Columns, names: Sequence[str], where: str, with_groups: bool = True) -> Places:
    """The columns of a file.

    Args:
        columns: what was asked for.
        names: of the columns that are there.
        where: the file, for messages.
        with_groups: False: the columns of groups are not needed, and so may be missing.

    Raises:
        ValueError: a column is not there, or it cannot be told which one is meant. The message names the
            columns that are there, and the option that helps.
    """
    single = {
        "text": _asked_or_usual(names, columns.text, "text", TEXT_NAMES, where),
        "label": _asked_or_usual(names, columns.label, "label", LABEL_NAMES, where),
    }
    for role in ("id", "weight", "template"):
        if asked := getattr(columns, role):
            single[role] = _asked(names, asked, role, where)
    groups: dict[str, str] = {}
    if with_groups:
        if columns.group:
            single["group"] = _asked(names, columns.group, "group", where)
        for asked in columns.groups:
            groups[asked] = _asked(names, asked, "group", where, "--group-columns")[0]
    if single["text"] == single["label"]:
        raise ValueError(
            f"{where}: expected different columns for text and label, got {columns.text!r} for both"
        )
    return Places(single, groups)


def matching(names: Sequence[str], asked: str) -> str | None:
    """The column of this name: the very same, or the only one that differs in case and white space alone."""
    if asked in names:
        return asked
    alike = [name for name in names if name.strip().casefold() == asked.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def listed(names: Sequence[str]) -> str:
    """Names of columns for a message, long ones and many of them cut."""
    shown = [repr(str(name)[:SHOWN_CHARACTERS]) for name in names[:SHOWN_COLUMNS]]
    return ", ".join(shown) + f" and {len(names) - len(shown)} more" * (len(names) > len(shown))


def _asked(
    names: Sequence[str], asked: str, role: str, where: str, option: str = ""
) -> tuple[str, tuple[str, ...]]:
    option = option or f"--{role}-column"
    for name in (asked, *asked.split("|")):
        if (found := matching(names, name)) is not None:
            _check_once(names, found, where)
            return found, ()
        first, *inside = name.split(".")
        if inside and (found := matching(names, first)) is not None:
            return found, tuple(inside)
    close = difflib.get_close_matches(asked.casefold(), [name.casefold() for name in names], 1, 0.5)
    nearest = next((name for name in names if close and name.casefold() == close[0]), None)
    raise ValueError(
        f"{where}: there is no column {asked!r}"
        + (f", the closest is {nearest!r}" if nearest is not None else "")
        + f"; the file has {listed(names)}. Name the right one with {option}"
    )


def _asked_or_usual(
    names: Sequence[str], asked: str, role: str, usual: Sequence[str], where: str
) -> tuple[str, tuple[str, ...]]:
    if asked:
        return _asked(names, asked, role, where)
    there = [name for name in names if name.strip().casefold() in usual]
    if len(there) == 1:
        return there[0], ()
    if there:
        raise ValueError(
            f"{where}: {' and '.join(repr(name) for name in there)} could all be the column of the {role}; "
            f"name one with --{role}-column"
        )
    raise ValueError(
        f"{where}: found no column of the {role}, such as {' or '.join(usual[:4])}; the file has "
        f"{listed(names)}. Name one with --{role}-column"
    )


def _check_once(names: Sequence[str], name: str, where: str) -> None:
    if (times := list(names).count(name)) > 1:
        raise ValueError(f"{where}: expected one column {name!r}, got {times}")
