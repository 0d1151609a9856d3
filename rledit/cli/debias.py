"""``rledit debias``: make a toxicity classifier fairer across identity groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from ..experiments.result import Change
from ..objectives.metric_names import label, shown
from ..recipes.debiasing import DebiasConfig, run
from ..recipes.debiasing.report import HEADLINE
from .closing import close
from .flags import RunFlags


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
    console.print(table(result.test, result.metrics["test"]["other"]))
    close(result, console)


def table(test: Change, other: Mapping[str, Mapping[str, Any]]) -> Table:
    """A table of before and after on the test split, and bias on the other sets."""
    out = Table(title="test split", title_justify="left")
    out.add_column("metric")
    for header in ("before", "after"):
        out.add_column(header, justify="right")

    def add(name: str, key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        out.add_row(name, *(shown(key, figures.get(key)) for figures in (before, after)))

    for key in HEADLINE:
        add(label(key), key, test.before, test.after)
    for name, figures in other.items():
        add(f"{label('bpsn_auc')}, {name}", "bpsn_auc", figures["before"], figures["after"])
    return out
