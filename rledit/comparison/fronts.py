"""Who stands where: forget against retain, probe against retain, time against quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..extras import require
from ..objectives.metric_names import axis_label, display
from ..storage.files import write_bytes
from .cells import UNEDITED
from .table import Row, by_method, summary

PAIRS = (
    ("forget_accuracy", "retain_accuracy"),
    ("forget_probe_accuracy", "retain_accuracy"),
    ("seconds", "quality"),
)
"""Of figures, x and y; quality is retain minus forget accuracy."""


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG with a row of figures for each task: the mean of each method, with a bar of one standard
    deviation in both directions.

    Raises:
        ImportError: without matplotlib, which comes with the extra ``cli``.
        WriteError: if the disk refuses.
    """
    require("matplotlib", "cli", "the figures of a comparison")
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(15, 4.6 * len(tasks)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(tasks), len(PAIRS), squeeze=False)
    for task, axes in zip(tasks, grid, strict=True):
        own = [_with_quality(row) for row in rows if row["task"] == task]
        for axis, (x, y) in zip(axes, PAIRS, strict=True):
            _front(axis, own, x, y)
        axes[0].set_title(task, loc="left")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, out.getvalue())


def _with_quality(row: Row) -> dict[str, Any]:
    accuracies = [row.get(f"{group}_accuracy") for group in ("retain", "forget")]
    quality = None if None in accuracies else accuracies[0] - accuracies[1]  # type: ignore[operator]
    return {**row, "quality": quality}


def _front(axis: Any, rows: Sequence[Mapping[str, Any]], x: str, y: str) -> None:
    markers = "osD^v<>pP*Xh8dH"
    for i, (method, own) in enumerate(by_method(rows).items()):
        (mean_x, spread_x, n), (mean_y, spread_y, _) = summary(own, x), summary(own, y)
        if not n or (x == "seconds" and method == UNEDITED):
            continue
        scale_x, scale_y = (100 if display(key).percent or key == "quality" else 1 for key in (x, y))
        ours = method.startswith("rledit")
        axis.errorbar(
            [scale_x * mean_x],
            [scale_y * mean_y],
            xerr=[scale_x * spread_x] if spread_x == spread_x else None,
            yerr=[scale_y * spread_y] if spread_y == spread_y else None,
            fmt=markers[i % len(markers)],
            color="crimson" if ours else f"C{i % 10}",
            markersize=9 if ours else 6,
            label=method,
            linewidth=1,
        )
    if x == "seconds":
        axis.set_xscale("log")
    axis.set_xlabel(axis_label(x) if x != "seconds" else "seconds")
    axis.set_ylabel("retain minus forget accuracy (points)" if y == "quality" else axis_label(y))
    axis.grid(alpha=0.3)
