"""report.html of a debiasing run: what the general report lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...experiments.templating import render
from ...objectives.metric_names import display

_TEMPLATES = Path(__file__).parent / "templates"

LIMITS = (
    "Bias is measured on sentences made from templates, utility on comments that people wrote; a figure on "
    "templates says little about a comment that resembles none of them. The test figures come with those on "
    "templates that neither reward nor validation have seen, and on other sets, which were read once, at the "
    "end. Intervals come from resampling the test sentences within labels; they do not cover "
    "another classifier or another split. The identity groups are those of the term list or of the data "
    "set's annotation, and no others."
)
HEADLINE = ("utility_accuracy", "utility_auc", "bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned")
OTHER_SETS = ("bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned")
PER_GROUP = ("subgroup_auc", "bpsn_auc", "bnsp_auc", "false_positive_rate", "false_negative_rate")


def per_group_table(title: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Markup:
    """Every group before and after, with bootstrap intervals."""
    # The intervals are far wider than a fourth digit.
    digits = {key: 1 if display(key).percent else 3 for key in PER_GROUP}
    return render(
        "per_group.html.j2",
        _TEMPLATES,
        heading=title,
        keys=PER_GROUP,
        digits=digits,
        before=before,
        after=after,
    )


def other_sets(test: Mapping[str, Any]) -> Markup:
    """The same figures on unseen templates and transfer sets; empty without any."""
    return render("other_sets.html.j2", _TEMPLATES, keys=OTHER_SETS, sets=test) if test else Markup()


def trials_table(trials: Sequence[Mapping[str, Any]], chosen: Sequence[str]) -> Markup:
    """What came of trying sets of layers; empty without trials."""
    if not trials:
        return Markup()
    return render("trials.html.j2", _TEMPLATES, trials=trials, chosen=list(chosen))
