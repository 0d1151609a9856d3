"""``rledit audit``: find out what an edit has left of a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from ..experiments.console import say
from ..experiments.report import scalars
from ..objectives.metric_names import label, shown
from ..recipes.unlearning.audit_run import AUDITED, audit_run


def audit(
    run: tyro.conf.Positional[Path],
    thorough: bool = False,
    retrained: Path | None = None,
    data_root: Path | None = None,
    out: Path | None = None,
) -> None:
    """Audit the unedited, the edited and the retrained network of a run: what is left of the class?

    The run's report is written anew with what was measured, and its record names the new file.

    Args:
        run: A finished run folder of rledit unlearn.
        thorough: Also run what takes longer: probes of every edited layer, a probe with a hidden layer,
            relearning in several draws, all members, rounding and pruning. Up to a minute or two for each
            network.
        retrained: Safetensors file of the network trained without the class. Default: the run's own.
        data_root: Folder with the data; else the environment variable RLEDIT_DATA, else the user's cache
            folder.
        out: JSON file for the figures; the run folder then stays as it is. Default: audits.json in the run
            folder, and its report.
    """
    audited = audit_run(run, thorough=thorough, retrained=retrained, data_root=data_root, out=out)
    console = Console()
    console.print(table(f"{audited['edit']}, test split, 95% intervals", audited["models"]))
    if "retrained" not in audited["models"]:
        say(
            console,
            "There is no retrained network to compare with: --retrained names its weights, and a run without "
            "--no-retrain keeps them.",
        )
    say(console, f"Figures: {out or run / AUDITED}")


def table(title: str, networks: Mapping[str, Mapping[str, Any]]) -> Table:
    """All figures, one a row, with their intervals."""
    found = Table("figure", title=title, title_justify="left")
    for name in networks:
        found.add_column(name, justify="right")
    for key in scalars(networks):
        found.add_row(label(key), *(_cell(key, figures) for figures in networks.values()))
    return found


def _cell(key: str, figures: Mapping[str, Any]) -> str:
    interval = figures.get("intervals", {}).get(key)
    if interval is None:
        return shown(key, figures.get(key))
    low, high = (shown(key, end, unit=False) for end in interval)
    return f"{shown(key, figures.get(key))} ({low} to {high})"
