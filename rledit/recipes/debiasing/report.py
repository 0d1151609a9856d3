"""report.html of a debiasing run: what the general report lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ...objectives.metric_names import axis_label, display, label, shown

LIMITS = (
    "Bias is measured on sentences made from templates, utility on comments that people wrote; a figure on "
    "templates says little about a comment that none resembles. Beside the test figures stand those on "
    "templates that neither reward nor validation have seen, and on other sets, which were read once, at the "
    "end. Intervals come from resampling the test sentences within groups and labels; they do not cover "
    "another classifier or another split. The identity groups are those of the term list or of the data "
    "set's annotation, and no others."
)
HEADLINE = ("utility_accuracy", "utility_auc", "bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned")
OTHER_SETS = ("bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned")
PER_GROUP = ("subgroup_auc", "bpsn_auc", "bnsp_auc", "false_positive_rate", "false_negative_rate")


def per_group_table(title: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Every group before and after, with bootstrap intervals."""
    head = _head(PER_GROUP)
    rows = []
    for group in after["per_group"]:
        cells = "".join(
            f'<td class="number">{_cell(before, group, key)}<br><b>{_cell(after, group, key)}</b></td>'
            for key in PER_GROUP
        )
        rows.append(f'<tr><th scope="row">{escape(group)}</th>{cells}</tr>')
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table><thead><tr><th scope="col">group</th>{head}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">Above: before, below: after the edit; in brackets bootstrap intervals at 95%.</p>'
    )


def other_sets(test: Mapping[str, Any]) -> str:
    """The same figures on unseen templates and transfer sets."""
    head = _head(OTHER_SETS)
    rows = []
    for name, both in test.items():
        for when in ("before", "after"):
            values = (shown(key, both[when].get(key), unit=False) for key in OTHER_SETS)
            cells = "".join(f'<td class="number">{value}</td>' for value in values)
            rows.append(f'<tr><th scope="row">{escape(name)}, {when}</th>{cells}</tr>')
    if not rows:
        return ""
    return (
        '<h2>Sentences of other kinds</h2><div class="scroll"><table><thead><tr><th scope="col">set</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def trials_table(trials: Sequence[Mapping[str, Any]], chosen: Sequence[str]) -> str:
    """HTML, empty without trials."""
    if not trials:
        return ""
    rows = []
    for trial in trials:
        name = escape(", ".join(trial["layer"]))
        if list(trial["layer"]) == list(chosen):
            name = f"<b>{name}</b>"
        after, change = trial["after"], trial["after"]["utility_auc"] - trial["before"]["utility_auc"]
        figures = (f"{after['value']:+.4f}", shown("bpsn_auc", after["bpsn_auc"]), f"{change:+.4f}")
        cells = "".join(f'<td class="number">{figure}</td>' for figure in figures)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        '<h2>Layers tried</h2><div class="scroll"><table><thead><tr><th scope="col">layers</th>'
        f"{_head(('value', 'bpsn_auc'))}"
        f'<th scope="col" class="number">change of {escape(label("utility_auc"))}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">Short runs of {trials[0]["candidates"]:,} candidates, on the validation split; the '
        "best one was run to its end.</p>"
    )


def _head(keys: Sequence[str]) -> str:
    return "".join(f'<th scope="col" class="number">{escape(axis_label(key))}</th>' for key in keys)


def _cell(figures: Mapping[str, Any], group: str, key: str) -> str:
    value = figures["per_group"].get(group, {}).get(key)
    if value is None:
        return "n/a"
    digits = 1 if display(key).percent else 3  # the intervals are far wider
    low, high = figures["interval"]["per_group"][group][key]
    middle, low, high = (shown(key, part, unit=False, digits=digits) for part in (value, low, high))
    return f"{middle} [{low}, {high}]"
