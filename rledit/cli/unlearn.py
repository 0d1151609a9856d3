"""``rledit unlearn``: make a network forget a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from ..experiments.training import CHECKPOINT_SECONDS
from ..objectives.metric_names import label, shown
from ..recipes.unlearning import UnlearningConfig, run
from .closing import close


def unlearn(
    config: tyro.conf.OmitArgPrefixes[UnlearningConfig],
    out: Path,
    data_root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    retrain: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Make a network forget a class, and leave a run folder with the edit and a report.

    Args:
        config: what to do.
        out: the run folder. It must be new or empty, unless --resume or --overwrite.
        data_root: folder with the data set; else RLEDIT_DATA, else the cache.
        resume: go on with the run in the folder.
        overwrite: delete the run in the folder and start anew.
        tensorboard: also write TensorBoard events.
        retrain: also train the network without the class, the row to compare with.
        checkpoint_seconds: time between checkpoints, what a killed run loses at most.
    """
    metrics = run(
        config,
        out,
        data_root=data_root,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        with_retrain=retrain,
        checkpoint_seconds=checkpoint_seconds,
    )
    console = Console()
    console.print(table(f"{config.dataset}, test split", {config.world: metrics}))
    close(metrics, out, console)


def table(title: str, runs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Before, after each run's edit, and the baselines: accuracies of one test split.

    The last column is the share of the forgotten class that a linear probe on the last features finds.
    """
    out = Table(title=title, title_justify="left")
    out.add_column("model")
    keys = ("forget_accuracy", "retain_accuracy", "forget_probe_accuracy")
    for key in keys:
        out.add_column(label(key), justify="right")

    def row(name: str, figures: Mapping[str, Any]) -> None:
        out.add_row(name, *(shown(key, figures.get(key)) for key in keys))

    first = next(iter(runs.values()))
    row("before", first["test"]["before"])
    for name, metrics in runs.items():
        row(f"after the {name} edit", metrics["test"]["after"])
    for name, baseline in first["baselines"].items():
        if baseline:
            row({"retrain": "retrained without the class"}.get(name, name), baseline["test"])
    return out
