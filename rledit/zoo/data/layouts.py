"""The columns of public data sets, as their publishers write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from .columns import Columns, find_columns, matching
from .comment_files import IDENTITY_COLUMNS

LayoutName: TypeAlias = Literal[
    "jigsaw-unintended-bias",
    "civil-comments",
    "toxigen",
    "hatecheck",
    "edos",
    "ethos",
    "davidson",
    "hatexplain",
]

LAYOUT_NAMES: tuple[LayoutName, ...] = get_args(LayoutName)


@dataclass(frozen=True)
class Layout:
    """What the columns of a public data set mean.

    Attributes:
        columns: the columns; those of text and label must be there.
        annotated: columns of one identity group each, of which files have some, all or none.
        file: what the publisher calls the file.
        source: where it comes from.
    """

    columns: Columns
    file: str
    source: str
    annotated: tuple[str, ...] = ()

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file with these columns can be read."""
        try:
            find_columns(self.columns, names, "")
        except ValueError:
            return False
        return True

    def of(self, names: Sequence[str]) -> Columns:
        """The columns, with those groups that a file has."""
        if not self.annotated:
            return self.columns
        return replace(self.columns, groups=tuple(name for name in self.annotated if matching(names, name)))


LAYOUTS: Mapping[LayoutName, Layout] = MappingProxyType(
    {
        # A comment is toxic, or mentions a group, where half of its annotators say so.
        "jigsaw-unintended-bias": Layout(
            Columns(text="comment_text", label="target|toxicity", id="id"),
            "train.csv, all_data.csv",
            "https://www.kaggle.com/c/jigsaw-unintended-bias-in-toxicity-classification",
            IDENTITY_COLUMNS,
        ),
        "civil-comments": Layout(
            Columns(text="comment_text|text", label="toxicity|target"),
            "a folder of datasets, all_data_with_identities.csv",
            "D. Borkan et al. 2019, arXiv:1903.04561",
            IDENTITY_COLUMNS,
        ),
        # The mean of annotators, from 1 (benign) to 5 (harmful); 3 is the middle.
        "toxigen": Layout(
            Columns(text="text", label="toxicity_human", threshold=3.0, group="target_group"),
            "annotated_train.csv, annotated_test.csv",
            "T. Hartvigsen et al., ACL 2022, arXiv:2203.09509",
        ),
        "hatecheck": Layout(
            Columns(
                text="test_case",
                label="label_gold",
                positive=("hateful",),
                group="target_ident",
                template="templ_id",
            ),
            "test_suite_cases.csv",
            "P. Röttger et al., ACL 2021, arXiv:2012.15606",
        ),
        "edos": Layout(
            Columns(text="text", label="label_sexist", positive=("sexist",), id="rewire_id"),
            "edos_labelled_aggregated.csv",
            "H. Kirk et al., SemEval 2023, arXiv:2303.04222",
        ),
        "ethos": Layout(
            Columns(text="comment", label="isHate"),
            "Ethos_Dataset_Binary.csv",
            "I. Mollas et al. 2022, arXiv:2006.08328",
        ),
        # 0: hate speech, 1: offensive language, 2: neither.
        "davidson": Layout(
            Columns(text="tweet", label="class", positive=("0", "1")),
            "labeled_data.csv",
            "T. Davidson et al., ICWSM 2017, arXiv:1703.04009",
        ),
        # Three annotators. A folder of datasets has numbers: 0 hate speech, 1 normal, 2 offensive.
        "hatexplain": Layout(
            Columns(
                text="post_tokens",
                label="annotators.label",
                positive=("hatespeech", "offensive", "0", "2"),
                group="annotators.target",
            ),
            "dataset.json",
            "B. Mathew et al., AAAI 2021, arXiv:2012.10289",
        ),
    }
)
"""By name."""
