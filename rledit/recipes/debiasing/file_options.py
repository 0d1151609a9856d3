"""Options of a debiasing run on a user's own tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ...zoo.data import Columns
from ...zoo.data.columns import listed
from ...zoo.data.layouts import LAYOUT_NAMES, LAYOUTS, LayoutName

SEVERAL = ("train", "bias", "transfer", "layout", "positive", "group_columns")
"""Options with several values."""


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files hold the comments, and what their columns mean; see :class:`rledit.zoo.data.Columns`."""

    train: tuple[str, ...] = ()
    """Files of your own that the classifier is trained on and must stay good at, in place of --dataset: CSV
    with any separator, JSON, JSON lines, Parquet, each of them also as .gz, or folders of Hugging Face
    datasets. Several are joined."""
    bias: tuple[str, ...] = ()
    """Files that bias is measured on, in place of --bias-set. Default with --train: the same comments."""
    transfer: tuple[str, ...] = ()
    """Files of further comments to measure bias on, read at the end alone, each by itself."""
    layout: tuple[LayoutName, ...] = ()
    """Public data sets whose columns are known. Each file is read by the first of these that fits it; for
    files that none fits, the options below say what they hold."""
    text_column: str = ""
    """Column of the text; a|b where files differ. Default: the only one with a usual name."""
    label_column: str = ""
    """Column of the label; a|b where files differ. Default: the only one with a usual name."""
    positive: tuple[str, ...] = ()
    """Labels that mean toxic, words or numbers. Default: 1, True, toxic."""
    threshold: float | None = None
    """A label from this number on means toxic. Default: 0.5, and labels must be between 0 and 1."""
    group_columns: tuple[str, ...] = ()
    """Columns of one identity group each: 0, 1, True, False or a share of annotators, of whom half are
    enough."""
    group_column: str = ""
    """Column with the names of each comment's identity groups, such as women|muslims, or a list."""
    terms: str = ""
    """JSON file with identity groups and their terms, {"women": ["woman", "women"]}, that are looked for
    where no column says the groups. Default: a list of 56 groups."""
    extend_terms: bool = False
    """Add the groups and terms of --terms to those of the default, in place of using them alone."""
    id_column: str = ""
    """Column that tells comments apart; of several with one id the first counts."""
    weight_column: str = ""
    """Column of weights."""
    template_column: str = ""
    """Column with the names of templates, a fifth of which are held out for the evaluation."""
    sample: int = 100_000
    """Comments that are drawn at random from a larger set, always the same; 0 takes all."""

    @property
    def has_files(self) -> bool:
        return bool(self.train or self.bias or self.transfer)

    def check_files(self) -> None:
        """Turns single values into tuples, and checks all.

        Raises:
            ValueError: for an unknown layout, a number out of range, or options of columns without a file.
        """
        for name in SEVERAL:
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        object.__setattr__(self, "terms", os.fspath(self.terms))
        for name in self.layout:
            if name not in LAYOUT_NAMES:
                raise ValueError(f"layout: expected some of {', '.join(LAYOUT_NAMES)}; got {name!r}")
        for name in ("train", "bias", "transfer"):
            files = getattr(self, name)
            if len(set(files)) != len(files):
                raise ValueError(f"{name}: expected different files, got {', '.join(files)}")
        if self.sample < 0:
            raise ValueError(f"sample: expected at least 0, got {self.sample}")
        if self.extend_terms and not self.terms:
            raise ValueError(
                "extend_terms: expected --terms with it, since there is nothing to add otherwise"
            )
        self.columns()
        if not self.has_files and (without := sorted(set(self.changed()) - {"train", "bias", "transfer"})):
            raise ValueError(f"{without[0]}: expected --train, --bias or --transfer with it")

    def changed(self) -> dict[str, Any]:
        """The options of this class that are not as by default."""
        found = {each.name: getattr(self, each.name) for each in fields(FileOptions)}
        defaults = {each.name: each.default for each in fields(FileOptions)}
        return {name: value for name, value in found.items() if value != defaults[name]}

    def columns(self) -> Columns:
        """What a file holds that no layout fits."""
        return Columns(
            text=self.text_column,
            label=self.label_column,
            positive=self.positive,
            threshold=self.threshold,
            groups=self.group_columns,
            group=self.group_column,
            id=self.id_column,
            weight=self.weight_column,
            template=self.template_column,
        )

    def columns_of(self) -> Callable[[Sequence[str]], Columns]:
        """From the names of a file's columns to what they hold.

        The function raises ValueError if layouts are given and neither one of them nor columns fit.
        """

        def choose(names: Sequence[str]) -> Columns:
            for name in self.layout:
                if LAYOUTS[name].fits(names):
                    return self._over(LAYOUTS[name].of(names))
            if self.layout and not (self.text_column or self.label_column):
                raise ValueError(
                    f"the columns are those of no --layout, {', '.join(self.layout)}; the file has "
                    f"{listed(names)}. --text-column and --label-column say what they hold"
                )
            return self.columns()

        return choose

    def _over(self, columns: Columns) -> Columns:
        """A layout's columns, with what was asked for beside the text and the label."""
        if self.threshold is not None:
            columns = replace(columns, threshold=self.threshold)
        if self.group_columns or self.group_column:
            columns = replace(columns, groups=self.group_columns, group=self.group_column)
        return replace(
            columns,
            id=self.id_column or columns.id,
            weight=self.weight_column or columns.weight,
            template=self.template_column or columns.template,
        )


def _tuple(value: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    several = [value] if isinstance(value, (str, os.PathLike)) else value
    return tuple(os.fspath(each) for each in several)
