"""``rledit unlearn``: make a network forget a class."""

from __future__ import annotations

from collections.abc import Mapping

import tyro
from rich.console import Console
from rich.table import Table

from ..experiments import RunResult
from ..objectives.metric_names import label, shown
from ..recipes.unlearning import UnlearningConfig, run
from ..recipes.unlearning.report import headline
from .closing import close
from .flags import RunFlags


def unlearn(
    config: tyro.conf.OmitArgPrefixes[UnlearningConfig],
    flags: tyro.conf.OmitArgPrefixes[RunFlags],
    retrain: bool = True,
) -> None:
    """Make a network forget a class, and leave a run folder with the edit and a report.

    Args:
        config: what to do.
        flags: where and how.
        retrain: Also train the network without the class, to compare the edit with.
    """
    result = run(config, **flags.arguments(), with_retrain=retrain)
    console = Console()
    console.print(table(f"{config.dataset}, test split", {config.world: result}))
    close(result, console)


def table(title: str, runs: Mapping[str, RunResult]) -> Table:
    """A table of what counts most, before, after each run's edit and for the baselines, on one test split."""
    first = next(iter(runs.values()))
    models = {
        "before": first.test.before,
        **{f"after the {name} edit": result.test.after for name, result in runs.items()},
        **{
            {"retrain": "retrained without the class"}.get(name, name): baseline["test"]
            for name, baseline in first.baselines.items()
            if baseline
        },
    }
    keys = headline(models)
    out = Table("model", title=title, title_justify="left")
    for key in keys:
        out.add_column(label(key), justify="right")
    for name, figures in models.items():
        out.add_row(name, *(shown(key, figures.get(key)) for key in keys))
    return out
