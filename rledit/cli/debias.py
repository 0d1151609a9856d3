"""``rledit debias``: make a toxicity classifier fairer across identity groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from ..experiments.training import CHECKPOINT_SECONDS
from ..recipes.debiasing import DebiasConfig, run
from .closing import close

SHOWN = {
    "accuracy": "utility accuracy",
    "utility_auc": "utility AUC",
    "bpsn_auc": "BPSN AUC",
    "subgroup_auc": "subgroup AUC",
    "bnsp_auc": "BNSP AUC",
    "fped": "FPED",
    "fned": "FNED",
}


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
    for key, label in SHOWN.items():
        out.add_row(label, *(f"{test[when][key]:.4f}" for when in ("before", "after")))
    for name, figures in test["other"].items():
        out.add_row(
            f"BPSN AUC, {name}", *(f"{figures[when]['bpsn_auc']:.4f}" for when in ("before", "after"))
        )
    return out
