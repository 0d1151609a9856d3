"""What a debiasing run does not show: only what applies to this run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .changes import sizes_of
from .config import DebiasConfig

LEAST_GROUP = 20
"""Sentences of each label: figures of a smaller group are rough."""

MANY_UNKNOWN = 0.05
"""Share of bias sentences without a known word that is worth a word."""


def limits(config: DebiasConfig, metrics: Mapping[str, Any], templates: bool) -> str:
    """A few sentences.

    Args:
        config: of the run.
        metrics: metrics.json.
        templates: whether the bias set's sentences are made from templates.
    """
    said = [_bias(config, templates)]
    others = list(metrics.get("test", {}).get("other", {}))
    if others:
        said.append(f"Beside the test figures stand those on {_listed(others)}, read once, at the end.")
    else:
        said.append("No other set was read, so how far the change carries over to other texts is not known.")
    said.append(
        "Intervals come from resampling the test texts; they do not cover another classifier or another "
        "split."
    )
    if config.weight_column:
        said.append(f"Figures weigh every text by the column {config.weight_column}, where its file has one.")
    said += _small(metrics)
    unknown = metrics.get("data", {}).get("sets", {}).get("bias, test", {}).get("unknown_words")
    if unknown and unknown > MANY_UNKNOWN:
        said.append(
            f"{unknown:.0%} of the test's bias sentences have no word that the classifier knows: it says the "
            "same of all of them."
        )
    if metrics.get("words"):
        said.append(
            "A word's score is that of a text of one word; what it does among others can differ."
            if config.model == "bag-of-words"
            else "A word's score is that of a text of one word; in a sentence it depends on the other words."
        )
    said.append(
        "The identity groups are those of the term list or of the data set's annotation, and no others."
    )
    return " ".join(said)


def _bias(config: DebiasConfig, templates: bool) -> str:
    if config.synthetic:
        return (
            "Comments and bias sentences were made by a program: nothing here says how the edit does on "
            "texts that people wrote."
        )
    if config.same_comments:
        return (
            "Bias is measured on the same comments as utility: what else differs between those of two groups "
            "(their topics, say) cannot be told from what the classifier makes of a group."
        )
    if templates:
        return (
            "Bias is measured on sentences made from templates, utility on comments that people wrote; a "
            "figure on templates says little about a comment that none resembles."
        )
    return (
        "Bias is measured on texts that mention the groups: what else differs between these texts, such as "
        "their topics, cannot be told from what the classifier makes of a group."
    )


def _small(metrics: Mapping[str, Any]) -> list[str]:
    sizes = sizes_of(metrics, "test") if metrics.get("test") else {}
    measured = metrics.get("test", {}).get("after", {}).get("per_group", {})
    small = [group for group, size in sizes.items() if group in measured and min(size) < LEAST_GROUP]
    if not small:
        return []
    return [
        f"{len(small)} of {len(measured)} groups have fewer than {LEAST_GROUP} test sentences of a label; "
        "their own figures are rough."
    ]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
