"""Where the methods lie: forget against retain, probe against retain, time against quality."""

from __future__ import annotations

import statistics
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
"""Figures for x and y; quality is retain minus forget accuracy."""

NEAR = 8.0
"""Distance from the quartiles, in points, within which nothing is an outlier."""


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG with a row of figures for each task: the mean of each method, with a bar of one standard
    deviation in both directions. Outliers are drawn at the edge, hollow and with their coordinates.

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
    scale_x, scale_y = (100 if display(key).percent or key == "quality" else 1 for key in (x, y))
    found = {
        method: (summary(own, x), summary(own, y))
        for method, own in by_method(rows).items()
        if not (x == "seconds" and method == UNEDITED)
    }
    found = {method: pair for method, pair in found.items() if pair[0][2]}  # who has any figures
    limits_x = None if x == "seconds" else shown_range([scale_x * own[0] for own, _ in found.values()])
    limits_y = shown_range([scale_y * own[0] for _, own in found.values()])
    outside = 0
    for i, method in enumerate(by_method(rows)):
        if method not in found:
            continue
        (mean_x, spread_x, _), (mean_y, spread_y, _) = found[method]
        place = scale_x * mean_x, scale_y * mean_y
        shown = tuple(
            value if limits is None else min(max(value, limits[0]), limits[1])
            for value, limits in zip(place, (limits_x, limits_y), strict=True)
        )
        ours = method.startswith("rledit")
        color = "crimson" if ours else f"C{i % 10}"
        axis.errorbar(
            [shown[0]],
            [shown[1]],
            xerr=[scale_x * spread_x] if spread_x == spread_x else None,
            yerr=[scale_y * spread_y] if spread_y == spread_y else None,
            fmt=markers[i % len(markers)],
            color=color,
            markersize=9 if ours else 6,
            markerfacecolor=color if shown == place else "white",
            label=method,
            linewidth=1,
        )
        if shown != place:  # at the edge, with its name and where it really is
            says = f"{method} ({', '.join(f'{value:.3g}' for value in place)})"
            right = limits_x is not None and shown[0] > sum(limits_x) / 2
            # One above the other, since what is far away often lies together.
            side = {"xytext": (-6 if right else 6, 4 + 8 * outside), "ha": "right" if right else "left"}
            outside += 1
            axis.annotate(says, shown, textcoords="offset points", fontsize=6, color=color, **side)
    if x == "seconds":
        axis.set_xscale("log")
    for set_limits, limits in ((axis.set_xlim, limits_x), (axis.set_ylim, limits_y)):
        if limits is not None:
            room = 0.06 * (limits[1] - limits[0])
            set_limits(limits[0] - room, limits[1] + room)
    axis.set_xlabel(axis_label(x) if x != "seconds" else "seconds")
    axis.set_ylabel("retain minus forget accuracy (points)" if y == "quality" else axis_label(y))
    axis.grid(alpha=0.3)


def shown_range(values: Sequence[float]) -> tuple[float, float] | None:
    """What an axis shows: all values but outliers, by J. Tukey's outer fences (Exploratory Data
    Analysis, 1977), which would leave the others on one spot. None where there is nothing to show."""
    if len(values) < 2:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    reach = max(3 * (high - low), NEAR)
    inside = [value for value in values if low - reach <= value <= high + reach]
    lack = max(0.0, 0.1 - (max(inside) - min(inside))) / 2
    return min(inside) - lack, max(inside) + lack
