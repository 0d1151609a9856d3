"""The figures of a run: learning curves, accuracy per class, the edit as a heat map.

Only matplotlib's objects are used, never pyplot: a report may be written from any thread or notebook.
matplotlib itself is imported when a figure is drawn: runs do without it.
"""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..extras import MissingExtraError, require
from ..objectives.metric_names import axis_label, short_label, shown
from ..storage.files import write_bytes, write_error
from .history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("rledit")

# Okabe and Ito, Color Universal Design (2008): told apart by color-blind readers
BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8a8f98"
_SERIES = (ORANGE, BLUE, GREEN, PURPLE, SKY)

CURVES = {
    "reward": ("reward_best", "reward_mean"),
    "accuracy": ("forget_accuracy", "retain_accuracy"),
    "AUC": ("utility_auc", "bpsn_auc", "subgroup_auc"),
}
"""The metrics of a history that each learning curve draws."""

_DPI = 200  # of PNGs
_WIDTH = 5.2  # inches: two figures stand side by side on a screen, one fills a phone with readable text
_MOST_CLASSES = 24
_MOST_PIXELS = 256
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#b5bac1",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "svg.hashsalt": "rledit",  # equal runs give equal bytes
}


@dataclass(frozen=True)
class Plot:
    """A finished figure: a file name without suffix, its text for screen readers, and both renderings."""

    name: str
    alt: str
    svg: bytes
    png: bytes
    on_page: bool = True
    """Whether a report shows it, or has the same in another form."""


@dataclass(frozen=True)
class Drawing:
    """A figure still to be drawn; ``draw`` returns None where there is nothing to see."""

    name: str
    draw: Callable[[], Plot | None]


def plots(
    *,
    metrics: Mapping[str, Any],
    history: History,
    edit: Edit | None,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    baselines: Mapping[str, Mapping[str, Any]],
) -> list[Plot]:
    """All figures that the data allow; an interrupted run simply has fewer. Arguments as in
    `write_report`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawings = [
        *curves(history, "reward", "accuracy"),
        Drawing("accuracy per class", partial(per_class, metrics, baselines, classes)),
        *heat_maps(edit, weights),
    ]
    drawn = [drawing.draw() for drawing in drawings]
    return [plot for plot in drawn if plot is not None]


def curves(history: History, *kinds: str) -> list[Drawing]:
    """Learning curves of some of :data:`CURVES`."""
    return [Drawing(f"learning curve of {kind}", partial(curve, history, kind)) for kind in kinds]


def heat_maps(edit: Edit | None, weights: Mapping[str, Tensor]) -> list[Drawing]:
    """A heat map for each target of the edit, if all their weights are known."""
    if edit is None or not all(name in weights for name in edit.targets):
        return []
    deltas = cache(partial(edit.deltas, weights))

    def draw(name: str) -> Plot:
        return heat_map(name, deltas()[name])

    return [Drawing(f"edit of {name}", partial(draw, name)) for name in edit.targets]


def draw_all(drawings: Iterable[Drawing]) -> tuple[list[Plot], list[str]]:
    """The figures that can be drawn, and for each that cannot its name and why, which is also logged."""
    drawn, missing = [], []
    for drawing in drawings:
        try:
            plot = drawing.draw()
        except MissingExtraError as error:
            logger.warning("No figures: %s", error)
            return [], [f"figures: {error}"]
        except Exception as error:
            reason = f"{drawing.name}: {type(error).__name__}: {error}"
            missing.append(f"figure {reason}")
            logger.warning("A figure could not be drawn: %s", reason)
        else:
            drawn += [] if plot is None else [plot]
    return drawn, missing


def write_figures(folder: str | os.PathLike[str], figures: Sequence[Plot]) -> list[Path]:
    """Writes each plot as `<folder>/<name>.png` (200 dpi), atomically; makes the folder. Raises OSError."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(target, error) from error
    paths = [target / f"{plot.name}.png" for plot in figures]
    for path, plot in zip(paths, figures, strict=True):
        write_bytes(path, plot.png)
    return paths


def render(
    name: str, alt: str, height: float, draw: Callable[[Figure, Axes], None], *, on_page: bool = True
) -> Plot:
    """A figure of the house's style, ``height`` in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    mpl = require("matplotlib", "cli", "a figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    base: dict[Any, Any] = {k: v for k, v in mpl.rcParamsDefault.items() if k != "backend"}
    with mpl.rc_context({**base, **_STYLE}):  # a user's dark style must not reach a white page
        figure = Figure(figsize=(_WIDTH, height), facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        draw(figure, axes)
        svg, png = io.BytesIO(), io.BytesIO()
        if on_page:  # not by savefig, which draws twice, once for what no figure here has
            FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Title": alt})
            figure.set_layout_engine("none")  # the same layout, which takes half of the time
        figure.set_dpi(_DPI)
        FigureCanvasAgg(figure).print_png(png)
    return Plot(name, alt, svg.getvalue(), png.getvalue(), on_page)


def head(figure: Figure, axes: Axes, title: str, note: str = "") -> None:
    """Title, and below it a note or the legend: above the axes, where nothing can cover the data."""
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
    if note:
        axes.set_title(note, loc="left", fontsize=9, color="#555555")
    else:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=3,
            borderaxespad=0.2,
            borderpad=0,
            handlelength=1.6,
        )


def curve(history: History, kind: str) -> Plot | None:
    """Reward, accuracy or AUC over the candidates scored so far; one point is drawn as a dot."""
    series = {key: history.column(key) for key in CURVES[kind] if key in history.columns}
    series = {key: values for key, values in series.items() if any(map(math.isfinite, values))}
    if not series:
        return None
    by_candidates = "candidates" in history.columns
    x = history.column("candidates") if by_candidates else [float(i + 1) for i in range(len(history))]

    def draw(figure: Figure, axes: Axes) -> None:
        from matplotlib.ticker import EngFormatter, PercentFormatter

        for color, style, (key, y) in zip(_SERIES, ("-", "--", ":"), series.items(), strict=False):
            marker = "o" if len(x) < 3 else ""
            axes.plot(x, y, style, color=color, linewidth=1.8, marker=marker, label=short_label(key))
        axes.grid(axis="y")
        axes.set_xlabel("candidates scored" if by_candidates else "update")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylabel(axis_label(kind))
        if kind == "accuracy":
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        head(figure, axes, f"Learning curve: {kind}")

    ends = ", ".join(f"{short_label(key)} {shown(key, values[-1])}" for key, values in series.items())
    return render(f"learning_{kind.lower()}", f"{kind} over candidates; last update: {ends}", 3.5, draw)


def per_class(
    metrics: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], classes: Sequence[str]
) -> Plot | None:
    """Grouped bars, lying, so that long class names can be read; of many classes those that changed most."""
    test = metrics.get("test", {})
    rows = {"before": test.get("before"), "after": test.get("after")}
    rows |= {name: value.get("test", value) for name, value in baselines.items()}
    series = {k: list(v["per_class_accuracy"]) for k, v in rows.items() if v and "per_class_accuracy" in v}
    series = {k: v for k, v in series.items() if len(v) == len(classes)}
    if not series or not classes:
        return None
    values = list(series.values())
    order = sorted(range(len(classes)), key=lambda c: -max(abs(v[c] - values[0][c]) for v in values))
    shown = sorted(order[:_MOST_CLASSES])
    title = "Accuracy per class"
    if len(shown) < len(classes):
        title = f"Accuracy of the {len(shown)} (of {len(classes)}) most changed classes"
    colors = {"before": GRAY, "after": ORANGE}
    others = [BLUE, GREEN, PURPLE, SKY]
    for name in series:
        colors.setdefault(name, others[len(colors) % len(others) - 2])

    def draw(figure: Figure, axes: Axes) -> None:
        from matplotlib.ticker import PercentFormatter

        thick = 0.8 / len(series)
        for i, (name, row) in enumerate(series.items()):
            y = [k - 0.4 + (i + 0.5) * thick for k in range(len(shown))]
            lengths = [row[c] for c in shown]
            axes.barh(y, lengths, height=thick * 0.92, color=colors[name], label=shortened(name))
            for at, length in zip(y, lengths, strict=True):
                if length < 0.02:  # a bar too short to be seen
                    axes.text(
                        length + 0.008, at, f"{100 * length:.1f}", va="center", fontsize=7, color="#333333"
                    )
        axes.set_yticks(range(len(shown)), [shortened(str(classes[c])) for c in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{axis_label('accuracy')} on the test split")
        axes.set_ylabel("class")
        head(figure, axes, title)

    height = 1.3 + len(shown) * max(0.31, 0.11 * len(series))
    names = ", ".join(series)
    return render("per_class_accuracy", f"test accuracy of each class: {names}", height, draw)


def heat_map(target: str, delta: Tensor) -> Plot:
    """W' - W, red above and blue below zero; a large matrix is shown by its largest change per block."""
    rows, columns = delta.shape
    small = block_extremes(delta.to(torch.float64), _MOST_PIXELS)
    bound = float(small.abs().max()) or 1.0  # an edit that changes nothing is white, not an error
    shape = f"{rows} x {columns}"
    blocks = "" if small.shape == delta.shape else ", largest change of each block"

    def draw(figure: Figure, axes: Axes) -> None:
        image = axes.imshow(
            small.numpy(),
            cmap="RdBu_r",
            vmin=-bound,
            vmax=bound,
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        )
        axes.set_xlabel("input unit")
        axes.set_ylabel("output unit")
        head(figure, axes, f"The edit of {shortened(target, 36)}", f"{shape}{blocks}")
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, format="%.2g")
        bar.set_label("change of the weight, W' - W")
        bar.outline.set_visible(False)

    alt = f"heat map of the edit of {target}, {shape}, largest change {bound:.3g}"
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in target)
    return render(f"edit_{safe}", alt, 4.4, draw)


def block_extremes(matrix: Tensor, most: int) -> Tensor:
    """Shrinks [O, I] to at most [most, most]: of each block the value farthest from zero, with its sign."""
    for dim in (0, 1):
        size = matrix.shape[dim]
        if size > most:
            block = math.ceil(size / most)
            parts = []
            for part in torch.split(matrix, block, dim):
                at = part.abs().argmax(dim, keepdim=True)
                parts.append(part.gather(dim, at))
            matrix = torch.cat(parts, dim)
    return matrix


def shortened(text: str, most: int = 18) -> str:
    """A text shortened for a label."""
    # $ would start matplotlib's mathematics
    text = text.replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1] + "…"
