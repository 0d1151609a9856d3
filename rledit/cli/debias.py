"""``rledit debias``: make a toxicity classifier fairer across identity groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..experiments.console import say
from ..objectives.metric_digits import change, rounded
from ..objectives.metric_names import label
from ..recipes.debiasing import DebiasConfig, run
from ..recipes.debiasing.changes import DIFFERENCES, LEVELS, UTILITY, Changed, changed, rises
from ..recipes.debiasing.changes import table as figures_of
from ..recipes.debiasing.facts import warning
from ..recipes.debiasing.summary import summary
from .closing import close
from .flags import RunFlags

MOST_RISES = 8
"""Groups that got worse and are named; the report has all."""

_COLORS = {"better": "green", "worse": "red"}


def debias(
    config: tyro.conf.OmitArgPrefixes[DebiasConfig], flags: tyro.conf.OmitArgPrefixes[RunFlags]
) -> None:
    """Make a toxicity classifier fairer across identity groups, and leave a run folder with the edit and a
    report.

    Args:
        config: what to do.
        flags: where and how.
    """
    result = run(config, **flags.arguments())
    console = Console()
    tell(result.metrics, console)
    close(result, console)


def tell(metrics: Mapping[str, Any], console: Console) -> None:
    """What came of a run: the sentence, a warning where the classifier is useless, levels and differences
    before and after, and who got worse.

    Args:
        metrics: metrics.json.
        console: where to.
    """
    said = summary(metrics)
    say(console, f"{said}", "bold red" if said.held is False else "bold")
    classifier = metrics.get("data", {}).get("classifier", {})
    if classifier.get("useless"):
        say(console, f"Warning: {warning(classifier)}", "bold red")
    console.print(table(metrics["test"]))
    say(console, worse(metrics["test"]))


def table(test: Mapping[str, Any]) -> Table:
    """Levels and differences on the test split, before and after, and bias on the other sets. A verdict in
    parentheses: within the interval of the change."""
    out = Table(title="test split", title_justify="left")
    out.add_column("metric")
    for header in ("before", "after", "change"):
        out.add_column(header, justify="right")
    out.add_column("")

    def add(figure: Changed, name: str) -> None:
        noise = figure.beyond is False
        verdict = f"({figure.verdict})" if figure.verdict and noise else figure.verdict
        out.add_row(
            Text(name),  # names of sets are data, never markup
            rounded(figure.key, figure.before, figure.before_interval),
            rounded(figure.key, figure.after, figure.after_interval),
            Text(by(figure, unit=False)),
            Text(verdict, "" if noise else _COLORS.get(figure.verdict, "")),
        )

    for keys in (UTILITY, LEVELS, DIFFERENCES):
        for figure in figures_of(test, keys):
            add(figure, label(figure.key))
        out.add_section()
    for name, figures in test["other"].items():
        add(changed(figures, "bpsn_auc"), f"{label('bpsn_auc')}, {name}")
    return out


def by(figure: Changed, *, unit: bool = True) -> str:
    """The change of a figure, with its interval where it is known."""
    return change(figure.key, figure.change, figure.interval, like=figure.wider, unit=unit)


def worse(test: Mapping[str, Any]) -> str:
    """Whose error rates rose on the test split."""
    found = rises(test)
    if not found:
        return "No group's false positive or false negative rate rose."
    found.sort(key=lambda rise: rise.figure.beyond is False)
    named = [
        f"{rise.group}: {label(rise.figure.key)} {by(rise.figure)}"
        + (", within noise" if rise.figure.beyond is False else "")
        for rise in found[:MOST_RISES]
    ]
    more = f"; {len(found) - MOST_RISES} more in the report" if len(found) > MOST_RISES else ""
    return f"Got worse: {'; '.join(named)}{more}."
