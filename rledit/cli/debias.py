"""``rledit debias``: make a toxicity classifier fairer across identity groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from ..experiments.training import CHECKPOINT_SECONDS
from ..objectives.metric_names import label, shown
from ..recipes.debiasing import DebiasConfig, run
from ..recipes.debiasing.report import HEADLINE
from .closing import close


def debias(
    config: tyro.conf.OmitArgPrefixes[DebiasConfig],
    out: Path,
    data_root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Make a toxicity classifier fairer, and leave a run folder with the edit and a report.

    Args:
        config: what to do.
        out: the run folder. It must be new or empty, unless --resume or --overwrite.
        data_root: folder with the comments; else RLEDIT_DATA, else the cache.
        resume: go on with the run in the folder.
        overwrite: delete the run in the folder and start anew.
        tensorboard: also write TensorBoard events.
        checkpoint_seconds: time between checkpoints, what a killed run loses at most.
    """
    metrics = run(
        config,
        out,
        data_root=data_root,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        checkpoint_seconds=checkpoint_seconds,
    )
    console = Console()
    console.print(table(metrics["test"]))
    close(metrics, out, console)


def table(test: Mapping[str, Any]) -> Table:
    """Before and after on the test split, and bias on the other sets."""
    out = Table(title="test split", title_justify="left")
    out.add_column("metric")
    for header in ("before", "after"):
        out.add_column(header, justify="right")

    def add(key: str, figures: Mapping[str, Any], where: str = "") -> None:
        out.add_row(label(key) + where, *(shown(key, figures[when].get(key)) for when in ("before", "after")))

    for key in HEADLINE:
        add(key, test)
    for name, figures in test["other"].items():
        add("bpsn_auc", figures, f", {name}")
    return out
